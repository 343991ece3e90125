"""The states of a machine on the command line: which one a figure is for, the usual one beside it, and quality."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoked import done, fails, run
from loaded_device import Loaded, hurried
from long_runs import amount
from PIL import Image

from cars_hw.cli.front_table import print_front, warn_of_usual
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Measurement, Sample
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.measurement.schedule import Measured
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.pipeline.latency_target import LatencyEstimate
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.zoo import zoo

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=2)
QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
SMALL = ("--channels", "4", "--layers", "3", "--resolution", "8", "--classes", "2", "--in-channels", "1")


class Threaded(FakeDevice):
    """The fake device, on another number of threads."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads = threads

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), "threads": self._threads}


def machine(factor: float) -> Machine:
    """Return a machine that is in the quiet state for 40% of the time, and otherwise slower by ``factor``."""
    states = (MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, factor))
    return Machine(states, (1.0, factor, factor), 0.01)


@pytest.fixture(scope="module")
def made() -> LatencyTable:
    return profile_device(FakeDevice(), SPEC, calibration=6, plan=MeasurePlan(sessions=1))


@pytest.fixture(scope="module")
def table(made: LatencyTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a machine that takes 1.5 times the quiet latency at the median moment."""
    path = tmp_path_factory.mktemp("states") / "table.json"
    replace(made, machine=machine(1.5)).write(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, shade in (("dark", 20), ("light", 220)):
        (folder / name).mkdir()
        for number in range(30):
            Image.new("L", (8, 8), shade + number % 5).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def finished(made: LatencyTable, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an exported model, whose table is unreliable."""
    folder = tmp_path_factory.mktemp("finished")
    replace(made, machine=machine(1.5), standard_error=0.07).write(folder / "noisy.json")
    out = folder / "run"
    done("search", "--data", images, "--table", folder / "noisy.json", "--latency", "5ms", "--out", out, *QUICK)
    done("train", out, "--top", "1", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    done("export", out, "--format", "onnx")
    return out


def test_predictions_are_those_of_the_state_that_is_asked_for(table: Path) -> None:
    quiet, usual, most = (
        json.loads(done("predict", "--table", table, *given, "CARS_A", "--json").stdout)[0]
        for given in ((), ("--state", "usual"), ("--state", "0.25"))
    )
    assert (quiet["state"], usual["state"], most["state"]) == ("quiet", "usual", "0.25")
    assert usual["ms"] == pytest.approx(1.5 * quiet["ms"])
    assert most["ms"] == pytest.approx(1.25 * quiet["ms"])
    assert usual["bound_ms"] == pytest.approx(1.5 * quiet["bound_ms"])
    assert quiet["usual_ms"] == usual["usual_ms"] == usual["ms"]
    assert quiet["quality_warnings"] == []
    printed = done("predict", "--table", table, "CARS_A").stdout
    assert "usual state" in printed
    assert f"{quiet['usual_ms']:.4g} ms" in printed
    shares = [int(share) for share in re.findall(r"(\d+)%", printed.split("CARS_A")[1].splitlines()[0])[:4]]
    assert 98 <= sum(shares) <= 102
    assert "Latencies are those of the quiet state of fake." in printed
    assert "40% of the time in the quiet state, 60% at 1.50 times the latency" in printed
    bounds = json.loads(done("predict", "--table", table, "--json").stdout)
    assert (bounds["state"], bounds["quality_warnings"]) == ("quiet", [])
    budgets = [
        float(done("predict", "--table", table, "--quantile", "0.5", "--state", state).stdout.removesuffix("ms\n"))
        for state in ("quiet", "usual")
    ]
    assert budgets[1] == pytest.approx(1.5 * budgets[0], rel=1e-3)


def test_predict_takes_its_settings_from_a_file(table: Path, tmp_path: Path) -> None:
    config = tmp_path / "predict.toml"
    config.write_text(f'table = "{table}"\nstate = "usual"\n')
    (found,) = json.loads(done("predict", "--config", config, "CARS_A", "--json").stdout)
    assert found["state"] == "usual"
    config.write_text(f'table = "{table}"\nstate = "fast"\n')
    fails(
        run("predict", "--config", config, "CARS_A"),
        2,
        "'fast' is no state; use quiet, usual, sustained, or a quantile",
    )


@pytest.mark.parametrize("state", ["fast", "1.5", "nan", "-1"])
def test_another_state_is_wrong_usage(table: Path, images: Path, tmp_path: Path, state: str) -> None:
    told = f"'{state}' is no state; use quiet, usual, sustained, or a quantile over the time from 0 to 1"
    fails(run("predict", "--table", table, "CARS_A", "--state", state), 2, told)
    search = ("search", "--data", images, "--out", tmp_path / "run", *QUICK)
    fails(run(*search, "--table", table, "--state", state), 2, told)
    fails(run(*search, "--cost", "parameters", "--state", "usual"), 2, "--state is for latencies: give a --table")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_search_holds_its_budget_in_the_state_and_is_repeated_with_it(
    table: Path, images: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    given = ("--table", table, "--table", table, "--latency", "2ms", "--latency", "3ms", "--state", "0.75", *QUICK)
    printed = done("search", "--data", images, *given, "--out", first).stdout
    targets = tomllib.loads((first / "config.toml").read_text())["targets"]
    assert [one["state"] for one in targets] == ["0.75", "0.75"]
    front = RunFolder.open(first).front()
    assert {one.state for network in front for one in network.latency_estimates} == {"0.75"}
    slowest = max(front, key=lambda network: network.latency_estimates[0].usual_ms or 0)
    assert (
        f"The budget of 2 ms holds in the 0.75 quantile of the time of fake; in the usual state, {slowest.name}, "
        f"the slowest, takes {slowest.latency_estimates[0].usual_ms:.4g} ms."
    ) in printed
    assert "usual state" in printed
    # How much of each budget the most accurate network uses.
    best = max(front, key=lambda network: network.accuracy)
    for one, limit in zip(best.latency_estimates, (2, 3), strict=True):
        used = f"{(one.measured_ms or 0) / limit:.0%} of the {limit} ms on fake, and its upper bound "
        assert f"The most accurate network, {best.name}, uses {used}{one.bound_ms / limit:.0%}." in printed
    again = tmp_path / "again"
    done("search", "--config", first / "config.toml", "--out", again)
    assert RunFolder.open(again).front() == front
    done("search", "--config", first / "config.toml", "--out", tmp_path / "usual", "--state", "usual")
    assert {target.state for target in RunFolder.open(tmp_path / "usual").targets()} == {"usual"}
    resumed = ("search", "--data", images, *given[:-10], "--state", "usual", *QUICK, "--out", first, "--resume")
    fails(run(*resumed), 1, "was started with targets")


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_budget_that_the_usual_state_exceeds_is_warned_of(
    made: LatencyTable, images: Path, tmp_path: Path
) -> None:
    table = tmp_path / "restless.json"
    replace(made, machine=machine(50.0)).write(table)
    search = ("search", "--data", images, "--table", table, "--latency", "5ms", *QUICK)
    loose = done(*search, "--out", tmp_path / "loose", "--json")
    printed = json.loads(loose.stdout)
    # As in front.json: the networks, and what is known of those that use more of the budget.
    written = json.loads((tmp_path / "loose" / "front.json").read_text())
    assert printed == {name: written[name] for name in ("networks", "rejected", "larger")}
    assert printed["larger"][0]["sentence"].startswith("No network that uses more of the 5 ms on fake was trained")
    count = len(printed["networks"])
    told = f"Warning: in the usual state of fake, {count} of {count} networks exceed the budget of 5 ms: net-"
    assert loose.stderr.count(told) == 1
    assert "search with --state usual" in loose.stderr
    fails(run(*search, "--out", tmp_path / "strict", "--strict"), 3, "--strict", "in the usual state of fake")
    assert (tmp_path / "strict" / "front.json").is_file()


def estimate(name: str, ms: float, usual_ms: float, limit_ms: float | None) -> FrontNetwork:
    one = LatencyEstimate("ort", ms, 1.1 * ms, limit_ms, usual_ms=usual_ms)
    return FrontNetwork(name, zoo()["CARS_A"].genotype, NETWORKS["tiny"], 0.5, 1, 1, (one,))


def test_the_states_of_a_front_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"net-01": (1.0, 1.5), "net-02": (1.8, 2.25), "net-03": (1.7, 2.5)}
    front = [estimate(name, ms, usual_ms, 2.0) for name, (ms, usual_ms) in times.items()]
    print_front(front)
    warn_of_usual(front)
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == (
        "The budget of 2 ms holds in the quiet state of ort; in the usual state, net-03, the slowest, takes 2.5 ms."
    )
    assert told.err == (
        "Warning: in the usual state of ort, 2 of 3 networks exceed the budget of 2 ms: net-03 takes 2.5 ms. The "
        "budget holds in the quiet state; to hold it in the usual state, search with --state usual.\n"
    )
    one = estimate("net-01", 1.0, 1.5, None)
    unreliable = replace(one.latency_estimates[0], quality_warnings=("too noisy", "too few"))
    print_front([replace(one, latency_estimates=(unreliable,))])
    warn_of_usual([*front[:1], estimate("net-02", 1.0, 9.0, None)])
    warn_of_usual([])
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[-1] == (
        "Latencies are those of the quiet state of ort; in the usual state, net-01, the slowest, takes 1.5 ms. Its "
        "latency table is unreliable: too noisy; too few."
    )


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_search_on_a_device_that_is_not_quiet_says_so(
    table: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cars_hw.pipeline.latency_target.open_device", lambda *_: SlowFake())
    monkeypatch.setattr("cars_hw.pipeline.confirm_front.MeasurePlan", lambda: MeasurePlan(patience_seconds=0))
    search = ("search", "--data", images, "--table", table, "--latency", "9ms", *QUICK, "--out")
    result = done(*search, tmp_path / "run")
    assert result.stderr.count("did not return to the quiet state of its table") == 1
    assert "the reference network took 1.25 times as long" in result.stderr
    fails(run(*search, tmp_path / "strict", "--strict"), 3, "did not return to the quiet state of its table")


class SlowFake(FakeDevice):
    """The fake device, slower than when the table was made."""

    def __init__(self) -> None:
        super().__init__(speed=0.8)

    def conditions(self) -> dict[str, Any]:
        return FakeDevice().conditions()


class Saving(FakeDevice):
    """The fake device, which reports that it is slow."""

    warnings = ("the battery saver is on",)


def test_what_a_device_warned_of_refuses_a_search_with_strict(
    table: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told.json"
    made = LatencyTable.read(table)
    replace(made, conditions={**made.conditions, "warnings": ["the battery saver is on"]}).write(told)
    search = ("search", "--data", images, "--latency", "9ms", *QUICK, "--strict", "--out", tmp_path / "run")
    fails(run(*search, "--table", told), 3, "fake reported when it was made: the battery saver is on. Change that")
    assert not (tmp_path / "run").exists()
    # When the front is measured, the search is done.
    monkeypatch.setattr("cars_hw.pipeline.latency_target.open_device", lambda *_: Saving())
    fails(run(*search, "--table", table), 3, "unreliable, and --strict is given: fake: the battery saver is on")
    assert (tmp_path / "run" / "front.json").is_file()


def test_each_command_tells_the_quality_of_its_table_once(finished: Path, images: Path, tmp_path: Path) -> None:
    table = finished.parent / "noisy.json"
    told = "predicted networks have a standard error of 7.0%, more than 1.5%"
    commands: list[tuple[str | Path, ...]] = [
        ("predict", "--table", table, "CARS_A"),
        ("validate", "--table", table, "--sample", "1", "--patience", "0"),
        ("search", "--data", images, "--table", table, "--table", table, *QUICK, "--out", tmp_path / "run"),
        ("verify", finished, "--device", "fake", "--sessions", "1"),
        ("report", finished),
        ("table", "show", table),
    ]
    for command in commands:
        result = done(*command)
        assert result.stderr.count(told) == 1, command
        again = (*command[:-1], tmp_path / "strict") if command[0] == "search" else command
        fails(run(*again, "--strict"), 3, "--strict", told)
        # A search of hours does not begin.
        assert command[0] != "search" or not (tmp_path / "strict").exists()
        assert "Warning" not in run(*again, "--quiet").stderr
    (row,) = json.loads(done("verify", finished, "--device", "fake", "--sessions", "1", "--json").stdout)
    assert row["quality_warnings"] == [told]
    (estimate,) = RunFolder.open(finished).front()[0].latency_estimates
    assert estimate.quality_warnings == (told,)
    assert json.loads(done("predict", "--table", table, "CARS_A", "--json").stdout)[0]["quality_warnings"] == [told]


def test_an_unreliable_profile_is_3_with_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.devices.open_device", lambda *_: FakeDevice(noise=0.1))
    given = ("profile", "--device", "fake", *SMALL, "--calibration", "8", "--patience", "0")
    loose = done(*given, "--out", tmp_path / "loose.json", "--json")
    assert loose.stderr.count("is unreliable") == 1
    assert json.loads(loose.stdout)["quality_warnings"]
    assert LatencyTable.read(tmp_path / "loose.json").plan["patience_seconds"] == 0
    fails(run(*given, "--out", tmp_path / "strict.json", "--strict"), 3, "strict.json is unreliable")
    assert (tmp_path / "strict.json").is_file()


def test_verify_prints_the_usual_state_and_whether_the_device_was_quiet(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("verify", finished, "--device", "fake", "--sessions", "1", "--patience", "0")
    (row,) = json.loads(done(*given, "--json").stdout)
    assert (row["state"], row["quiet"]) == ("quiet", True)
    assert row["usual_ms"] == pytest.approx(1.5 * row["measured_ms"])
    printed = done(*given)
    assert f"{row['usual_ms']:.4g} ms" in printed.stdout
    assert "Measured and predicted latencies are those of the quiet state of fake." in printed.stdout
    assert "--patience" not in printed.stderr
    monkeypatch.setattr("cars_hw.devices.open_device", lambda *_: FakeDevice(speed=0.8))
    slow = done(*given)
    assert slow.stderr.count("the quiet state of fake is 25.0% slower than when the table was made") == 1
    assert "measure again with a longer --patience" in slow.stderr
    fails(run(*given, "--strict"), 3, "25.0% slower")
    assert RunFolder.open(finished).verified()[0].quiet is False
    monkeypatch.undo()
    done(*given)


def test_models_without_a_quiet_session_are_named(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never_quiet(_device: object, paths: list[Path], *_: object, **__: object) -> Measured:
        model = Measurement(1.0, (Sample(1.0),), 0.0, quiet_sessions=0)
        return Measured([model] * len(paths), None, machine(1.5))

    monkeypatch.setattr("cars_hw.pipeline.verify.measure", never_quiet)
    result = done("verify", finished, "--device", "fake", "--sessions", "1")
    assert result.stderr.count("never measured in the quiet state of fake") == 1
    assert "net-" in result.stderr
    monkeypatch.undo()
    done("verify", finished, "--device", "fake", "--sessions", "1")


def test_a_measurement_has_the_usual_latency_and_the_states() -> None:
    given = ("measure", "--device", "fake", *SMALL, "--sessions", "3", "CARS_A")
    (found,) = json.loads(done(*given, "--json").stdout)
    assert found["usual_ms"] == found["ms"]
    assert found["quiet_sessions"] == 3
    assert found["standard_error"] > 0
    assert found["states"] == [{"name": "quiet", "share": 1.0, "factor": 1.0}]
    printed = done(*given).stdout
    assert "usual state" in printed
    assert "3 of 3" in printed
    assert "100% of the time in the quiet state" in printed


def test_patience_is_a_setting_of_every_measurement(
    table: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[MeasurePlan] = []

    class Seen(Exception):
        pass

    def stop(_self: object, _device: object, plan: MeasurePlan, **_: object) -> None:
        plans.append(plan)
        raise Seen

    monkeypatch.setattr("cars_hw.measurement.schedule.Schedule.__init__", stop)
    for command in (
        ("measure", "--device", "fake", *SMALL, "CARS_A"),
        ("validate", "--table", table, "--sample", "1"),
        ("verify", finished, "--device", "fake"),
    ):
        assert isinstance(run(*command, "--patience", "7").exception, Seen), command
    assert [plan.patience_seconds for plan in plans] == [7.0] * 3
    fails(run("measure", "--device", "fake", "CARS_A", "--patience", "-1"), 2, "'--patience'")


def test_a_table_shows_its_states(table: Path, made: LatencyTable, tmp_path: Path) -> None:
    printed = done("table", "show", table).stdout
    assert "4 channels, 3 cells, 8x8x1, 2 classes" in printed
    assert "40% of the time in the quiet state, 60% at 1.50 times the latency" in printed
    shown = json.loads(done("table", "show", table, "--json").stdout)
    assert [one["factor"] for one in shown["states"]["states"]] == [1.0, 1.5]
    made.write(tmp_path / "steady.json")
    compared = done("table", "diff", tmp_path / "steady.json", table).stdout
    assert f"{tmp_path / 'steady.json'}: The machine was 100% of the time in the quiet state." in compared
    assert f"{table}: The machine was 40% of the time in the quiet state, 60% at 1.50 times" in compared
    assert len(json.loads(done("table", "diff", table, table, "--json").stdout)["machines"]) == 2
    fails(run("table", "show", tmp_path / "nowhere.json"), 1, "nowhere.json")


def test_another_number_of_threads_than_the_table_s_is_an_error(
    finished: Path, made: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(run("measure", "--device", "fake", *SMALL, "--threads", "2", "CARS_A"), 1, "one thread, not 2")
    two = tmp_path / "two.json"
    replace(made, threads=2).write(two)
    fails(run("validate", "--table", two, "--sample", "1"), 1, "one thread, not 2")
    monkeypatch.setattr("cars_hw.devices.open_device", lambda _name, threads: Threaded(threads))
    before = RunFolder.open(finished).verified()
    result = run("verify", finished, "--device", "fake", "--threads", "64")
    fails(result, 1, "the run's tables of fake are for 1 thread, the device runs with 64")
    assert "kept" not in result.stdout
    assert RunFolder.open(finished).verified() == before


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A table with the sustained state, and what the command that made it printed."""
    path = tmp_path_factory.mktemp("loaded") / "table.json"
    config = path.with_name("once.toml")
    config.write_text("[measurement]\nsessions = 1\n[load]\nload_seconds = 30\nwindow_seconds = 30\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cars_hw.devices.open_device", lambda *_: Loaded())
        patch.setattr("cars_hw.measurement.sustained.Clock", hurried)
        profile = ["profile", "--device", "fake", *SMALL, "--calibration", "6", "--config", config]
        return path, done(*profile, "--sustained", "--out", path).stdout


LOADED = (
    "After 30 s of load (clock 1800 MHz, case 41 C, thermal status 1), the median run takes 1.50 times the quiet "
    "latency, and 90% of runs take at most 1.80 times; 3 networks over 30 s each."
)


def test_a_table_states_the_sustained_state_and_predictions_have_it(loaded: tuple[Path, str]) -> None:
    path, told = loaded
    assert LOADED in told
    assert LOADED in done("table", "show", path).stdout
    state = json.loads(done("table", "show", path, "--json").stdout)["sustained"]
    assert state["p50_factor"] == pytest.approx(1.5)
    (quiet,) = json.loads(done("predict", "--table", path, "CARS_A", "--json").stdout)
    assert quiet["sustained_p50_ms"] == pytest.approx(1.5 * quiet["ms"])
    assert quiet["sustained_ms"] == pytest.approx(1.8 * quiet["ms"])
    (hot,) = json.loads(done("predict", "--table", path, "CARS_A", "--state", "sustained", "--json").stdout)
    assert (hot["state"], hot["ms"]) == ("sustained", quiet["sustained_ms"])
    shown = done("predict", "--table", path, "CARS_A", "--state", "sustained").stdout
    assert re.search(r"Latencies are those of the sustained state of fake\. .*After 30 s of load", shown)
    for ms in (quiet["sustained_p50_ms"], quiet["sustained_ms"]):
        assert f"{ms:.4g} ms" in shown


def test_a_search_holds_its_budget_in_the_sustained_state(loaded: tuple[Path, str], table: Path) -> None:
    path, _ = loaded
    least = json.loads(done("predict", "--table", path, "--json").stdout)["bounds_ms"]["smallest"]
    search = ["search", "--data", "fashion-mini", "--proxy", "--latency", f"{1.2 * least}ms", "--dry-run", *QUICK]
    fails(run(*search, "--table", path, "--state", "sustained"), 3, "no architecture")
    told = ("does not have the sustained state", "cars-hw profile --sustained")
    fails(run(*search, "--table", table, "--state", "sustained"), 1, *told)
