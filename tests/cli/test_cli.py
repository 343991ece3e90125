"""The command line: what a user can get wrong ends in one line, and nothing half-written."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from click.testing import Result
from frozen_data import freeze
from invoked import fails, run
from PIL import Image
from published_schemas import require_file
from rich.console import Console

from cars_hw.cli import options as common
from cars_hw.config.checksummed import checksum
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.evolution.strategies import OWN, STRATEGIES
from cars_hw.latency import profile_device
from cars_hw.pipeline.costs import COUNTED
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo
from cars_hw.studies.settings import CountedCost, StrategyName
from cars_hw.studies.strategy_comparison import STANDALONE

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "table.json"
    profile_device(FakeDevice(), SPEC, calibration=6, out=path, plan=MeasurePlan(sessions=1))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, shade in (("dark", 20), ("light", 220)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            Image.new("L", (8, 8), shade + number % 5).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")


def changed(table: Path, target: Path, **changes: object) -> Path:
    content = {**json.loads(table.read_text()), **changes}
    content["checksum"] = checksum({key: value for key, value in content.items() if key != "checksum"})
    target.write_text(json.dumps(content))
    return target


def test_the_whole_job_on_the_fake_device(tmp_path: Path, folder: Path) -> None:
    made, out = tmp_path / "t.json", tmp_path / "run"
    small = ("--channels", "4", "--layers", "3", "--resolution", "8", "--classes", "2")
    result = run("profile", "--device", "fake", *small, "--calibration", "6", "--out", made, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["calibration_networks"] == 6
    budget = run("predict", "--table", made, "--quantile", "0.5").stdout.strip()
    assert budget.endswith("ms")
    steps = [
        ("search", "--data", folder, "--table", made, "--latency", budget, "--out", out, *QUICK, "--json"),
        ("train", out, "--top", "2", "--epochs", "1", "--jobs", "1", "--on", "cpu", "--json"),
        ("export", out, "--json"),
        ("verify", out, "--device", "fake", "--sessions", "1", "--json"),
    ]
    for step in steps:
        result = run(*step)
        assert result.exit_code == 0, result.output + result.stderr
        assert len(json.loads(result.stdout)) >= 1
    assert run("report", out).stdout.strip() == str(out / "report.html")
    assert (out / "report.html").stat().st_size > 3000
    for step in (["validate", "--table", made, "--sample", "4"], ["measure", "--device", "fake", "CARS_A"]):
        assert run(*step).exit_code == 0
    table_again = run("verify", out, "--device", "fake", "--sessions", "1").stdout
    for column in ("accuracy", "parameters", "predicted", "upper bound", "measured", "deviation"):
        assert column in table_again


def test_an_image_is_classified_from_a_file_and_its_card(folder: Path, tmp_path: Path) -> None:
    image = next(folder.rglob("*.png"))
    small = ("--channels", "4", "--layers", "3", "--resolution", "8", "--classes", "2", "--in-channels", "1")
    made = run("export", "CARS_A", *small, "--out", tmp_path, "--json")
    assert made.exit_code == 0, made.output
    paths = [entry["path"] for entry in json.loads(made.stdout)]
    assert [Path(path).suffix for path in paths] == [".onnx", ".tflite"]
    found = [json.loads(run("classify", path, image, "--json").stdout) for path in paths]
    (of_onnx,), (of_tflite,) = ([one["classes"] for one in images] for images in found)
    assert [guess["name"] for guess in of_onnx] == [guess["name"] for guess in of_tflite]
    assert of_onnx[0]["probability"] == pytest.approx(of_tflite[0]["probability"], abs=1e-4)
    other = max(folder.rglob("*.png"))
    several = json.loads(run("classify", paths[0], image, other, "--top", "1", "--json").stdout)
    assert [one["image"] for one in several] == [str(image), str(other)]
    assert [len(one["classes"]) for one in several] == [1, 1]
    assert several[0]["classes"] == of_onnx[:1]
    printed = run("classify", paths[1], image, other).stdout
    assert "probability" in printed
    assert str(other) in printed
    fails(run("classify", tmp_path / "nothing.onnx", image), 1, "nothing.onnx")
    fails(run("classify", paths[0], tmp_path / "nothing.png"), 1, "nothing.png")
    fails(run("export", "CARS_A", "--precision", "int8", "--out", tmp_path), 2, "needs a run")
    fails(run("export", "CARS_A", "--int8", "symmetric", "--out", tmp_path), 2, "needs a run")


def test_a_validation_is_printed_drawn_and_written(table: Path, tmp_path: Path) -> None:
    plot, out = tmp_path / "plot.svg", tmp_path / "validation.json"
    result = run("validate", "--table", table, "--sample", "3", "--zoo", "--plot", plot, "--out", out)
    assert result.exit_code == 0, result.output
    for word in (
        "this table's predictor",
        "multiply-adds",
        "table sum",
        "operation counts",
        "Noise floor",
        "CARS_I",
    ):
        assert word in result.stdout
    assert require_file(out) == "validation"
    record = json.loads(out.read_text())
    assert len(record["names"]) == len(record["rows"]) > 20
    assert record["accuracy"]["mean_error"] < record["baselines"]["multiply-adds"]["mean_error"]
    # The fake device has no noise.
    assert record["noise_floor"] == record["drift"] == record["then_and_now"] == 0.0
    points = ElementTree.fromstring(plot.read_text()).find(".//*[@id='points']")
    assert points is not None
    assert len(points.findall(".//{http://www.w3.org/2000/svg}use")) == len(record["rows"])


def test_a_plot_needs_a_known_suffix_and_matplotlib(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("validate", "--table", table, "--sample", "1", "--plot")
    fails(run(*asked, tmp_path / "plot.gif"), 2, "must end in .png, .svg or .pdf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fails(run(*asked, tmp_path / "plot.png"), 1, "pip install 'cars-hw[plot]'")
    assert list(tmp_path.iterdir()) == []


def test_two_tables_are_compared(table: Path, tmp_path: Path) -> None:
    content = json.loads(table.read_text())
    name = next(key for key in content["entries"] if "sep_conv_5x5" in key)
    entries = {**content["entries"], name: {**content["entries"][name], "ms": 99.0}}
    after = changed(table, tmp_path / "after.json", entries=entries)
    same = run("table", "diff", table, table)
    assert same.exit_code == 0, same.output
    assert f"0 of {len(entries)} operations in both tables moved by more than the noise." in same.stdout
    result = run("table", "diff", table, after)
    assert f"1 of {len(entries)} operations" in result.stdout
    assert name in result.stdout
    assert str(after) in result.stdout
    found = json.loads(run("table", "diff", table, after, "--json").stdout)
    assert [moved["name"] for moved in found["operations"] if moved["beyond_noise"]] == [name]
    assert f"{len(entries)} of {len(entries)}" not in run("table", "diff", table, after, "--all").stdout
    fails(run("table", "diff", table, tmp_path / "nowhere"), 1, "nowhere")


def test_a_table_of_a_noisy_machine_is_warned_of(table: Path, tmp_path: Path) -> None:
    content = json.loads(table.read_text())
    networks = [{**network, "spread": 0.08} for network in content["calibration"]]
    noisy = changed(table, tmp_path / "noisy.json", calibration=networks)
    for command in (["predict", "--table", noisy, "CARS_A"], ["validate", "--table", noisy, "--sample", "1"]):
        result = run(*command)
        assert result.exit_code == 0
        assert f"{noisy} is unreliable" in result.stderr
        assert "repeated sessions differ by 8.0%, more than 3%" in result.stderr
        # The figures are printed, and then the command fails.
        strict = run(*command, "--strict")
        fails(strict, 3, "--strict", f"{noisy} is unreliable", "repeated sessions differ by 8.0%")
        assert strict.stdout == result.stdout
        assert run(*command, "--quiet").stderr == ""
    assert run("predict", "--table", table, "CARS_A", "--strict").exit_code == 0
    assert run("predict", "--table", table, "CARS_A").stderr == ""


def test_costs_are_those_of_the_file_and_of_the_paper() -> None:
    records = json.loads(run("cost", "CARS_A", "SNAS_aggressive", "--network", "imagenet", "--json").stdout)
    counts = [
        {name: value for name, value in record.items() if "_" in name or name == "parameters"} for record in records
    ]
    assert counts == [
        # 10,968 channels are normalised: the file has no scales.
        {
            "parameters": 3_676_744,
            "multiply_adds": 410_524_032,
            "published_parameters": 3_687_712,
            "published_multiply_adds": 410_524_032,
        },
        # Its reduction cells take nothing from the cell before: two preprocessings are not in the file.
        {
            "parameters": 3_459_592,
            "multiply_adds": 366_814_464,
            "published_parameters": 3_561_952,
            "published_multiply_adds": 395_715_840,
        },
    ]
    table = run("cost", "CARS_A", "--network", "imagenet").stdout
    assert "parameters (published rule)" in table
    assert all(f"{value:,}" in table for value in counts[0].values())


def test_the_zoo_has_both_counts() -> None:
    costs = json.loads(run("zoo", "--json").stdout)["CARS_A"]["costs"]
    assert costs["imagenet"]["parameters"] == 3_676_744
    assert costs["cifar"]["published_parameters"] == 2_432_206
    table = run("zoo").stdout
    assert all(text in table for text in ("3,676,744", "3,687,712", "2,432,206", "published rule"))


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["cost", "CARS_Z"], 2, ["unknown genotype 'CARS_Z'", "did you mean"]),
        (["cost", "nowhere.json"], 2, ["cannot read the genotype file"]),
        (["cost", "Genotype(normal=[], reduce=[])"], 2, ["needs 8 pairs"]),
        (["cost", "Genotype(normal=__import__('os').getcwd(), reduce=[])"], 2, ["is not a literal"]),
        (["cost", "CARS_A", "--channels", "7"], 1, ["channels must be even"]),
        (["cost", "CARS_A", "--resolution", "big"], 2, ["is not a resolution"]),
        (["profile", "--device", "abacus", "--out", "t.json"], 1, ["unknown device 'abacus'"]),
        (["predict", "--table", "nowhere.json"], 1, ["cannot read nowhere.json"]),
        (["train", "nowhere"], 1, ["is not a run folder"]),
        (["train", "nowhere", "--ema", "1"], 2, ["0<=x<1"]),
        (["train", "nowhere", "--hold-out", "0.6"], 2, ["0<=x<=0.5"]),
        (
            ["train", "nowhere", "--training-precision", "int4"],
            2,
            ["'int4' is not one of 'auto', 'float32', 'bf16', 'fp16'"],
        ),
        (["train", "nowhere", "--learning-rate", "0"], 2, ["x>0"]),
        (["verify", "nowhere", "--device", "ort"], 1, ["is not a run folder"]),
        (["report", "nowhere"], 1, ["is not a run folder"]),
        (["export", "CARS_Z"], 2, ["unknown genotype 'CARS_Z'"]),
        (["export", "CARS_A", "--format", "caffe"], 1, ["unknown format 'caffe'; known: onnx, tflite"]),
        (["search", "--data", "fashion-mini", "--out", "r"], 1, ["a search needs a cost"]),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], code: int, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(run(*arguments), code, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ([["skip_connect", 0], ["skip_connect", 0]], "takes input 0 twice"),
        ([["skip_connect", 0], ["skip_connect", 7]], "takes input 7; it can only look back at 0 to 1"),
        ([["skip_connect", 0], ["conv_9x9", 1]], "has an unknown operation 'conv_9x9'"),
    ],
)
def test_an_illegal_genotype_says_which_node(node: list[list[Any]], message: str, tmp_path: Path) -> None:
    legal = [["skip_connect", 0], ["sep_conv_3x3", 1]]
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"normal": node + legal * 3, "reduce": legal * 4}))
    fails(run("cost", path), 2, str(path), "node 0 of the normal cell", message)


@pytest.mark.parametrize(
    ("latency", "message"), [("20", "has no unit"), ("20min", "unknown unit"), ("fast", "20ms")]
)
def test_a_latency_needs_its_unit(table: Path, folder: Path, latency: str, message: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fails(run("search", "--data", folder, "--table", table, "--latency", latency, "--out", out), 2, message)
    assert not out.exists()


def test_an_impossible_budget_names_the_smallest_latency(table: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("search", "--data", folder, "--table", table, "--latency", "1us", "--out", out, *QUICK)
    fails(result, 3, "no architecture keeps to the budget", "limit 0.001 ms, possible ")
    assert not out.exists()


def test_a_budget_without_its_table_is_wrong_usage(table: Path, tmp_path: Path) -> None:
    result = run("search", "--data", "fashion-mini", "--latency", "1ms", "--out", tmp_path / "run")
    fails(result, 2, "1 --latency for 0 --table")


def test_tables_that_cannot_be_used_are_refused(table: Path, folder: Path, tmp_path: Path) -> None:
    def search(path: Path, *more: str) -> Result:
        return run("search", "--data", folder, "--table", path, "--out", tmp_path / "run", *QUICK, *more)

    newer = changed(table, tmp_path / "newer.json", version=99)
    fails(search(newer), 1, "newer", str(newer))
    content = json.loads(table.read_text())
    entries = dict(content["entries"])
    gone = next(key for key in entries if "sep_conv_5x5" in key)
    del entries[gone]
    fails(search(changed(table, tmp_path / "less.json", entries=entries)), 1, "no entry for", gone)
    broken = tmp_path / "broken.json"
    broken.write_text(table.read_text().replace('"ms": 0.', '"ms": 1.', 1))
    fails(search(broken), 1, str(broken))
    other = tmp_path / "other.json"
    profile_device(FakeDevice(), NetworkSpec(4, 3, (8, 8), 3, classes=2), calibration=6, out=other)
    fails(search(other), 1, "has 1 channels, the network 3")
    fails(
        run("search", "--data", folder, "--table", table, "--table", other, "--out", tmp_path / "run", *QUICK),
        1,
        "the table is for",
    )
    assert not (tmp_path / "run").exists()


def test_image_folders_that_cannot_be_used_are_refused(table: Path, folder: Path, tmp_path: Path) -> None:
    def search(path: Path) -> Result:
        return run("search", "--data", path, "--table", table, "--out", tmp_path / "run", *QUICK)

    empty = tmp_path / "empty"
    empty.mkdir()
    fails(search(empty), 1, str(empty))
    one = tmp_path / "one"
    one.mkdir()
    (folder / "dark").rename(one / "dark")
    fails(search(one), 1, "class")
    (one / "dark").rename(folder / "dark")
    (folder / "dark" / "3.png").write_bytes(b"no image")
    fails(search(folder), 1, "3.png")
    fails(search(tmp_path / "nowhere"), 1, "no data set and no folder")
    assert not (tmp_path / "run").exists()


def test_runs_that_exist_or_differ_are_left_alone(table: Path, folder: Path, tmp_path: Path) -> None:
    search = ["search", "--data", folder, "--table", table, "--out", tmp_path / "run", *QUICK]
    assert run(*search).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    fails(run(*search), 1, "exists; resume it with --resume")
    fails(run(*search, "--resume", "--seed", "5"), 1, "started with seed = 0, not 5")
    fails(run("export", tmp_path / "run"), 1, "no network of", "cars-hw train")
    fails(run("verify", tmp_path / "run", "--device", "fake"), 1, "has no onnx models", "cars-hw export")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.fixture
def searched(folder: Path, tmp_path: Path) -> Path:
    """A run whose search is said to have ended."""
    preset = replace(PRESETS["quick"], recipe=Recipe(epochs=1, batch_size=8))
    plan = SearchPlan(DataSource(str(folder)), SPEC, preset, costs=("parameters",))
    made = RunFolder.create(tmp_path / "searched", configuration(plan), RunAbout("", {}, 1))
    freeze(made, plan.data)
    made.write_front([FrontNetwork("net-01", zoo()["CARS_A"].genotype, SPEC, 0.5, 1, 1, ())])
    return made.path


def test_training_options_reach_the_recipe(searched: Path) -> None:
    given = ("--recipe", "cifar10-darts", "--epochs", "2", "--batch-size", "16", "--learning-rate", "0.02")
    more = ("--ema", "0.9", "--hold-out", "0.2", "--training-precision", "bf16", "--jobs", "1", "--on", "cpu")
    (trained,) = json.loads(run("train", searched, *given, *more, "--json").stdout)
    expected = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "ema": 0.9, "hold_out": 0.2}
    assert expected.items() <= trained["recipe"].items()
    assert (trained["recipe"]["precision"], trained["recipe"]["drop_path"]) == ("bf16", 0.2)
    said = run("train", searched, *given, *more)
    assert "accuracy (held out)" in said.stdout
    assert "best on held-out images, averaged with a decay of 0.9 a step." in said.stdout
    assert "those of the last epoch." in run("train", searched, "--jobs", "1", "--on", "cpu").stdout


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (["--recipe", "sota"], 2, ["'sota' is not one of", "cifar10-darts"]),
        (["--training-precision", "fp16"], 1, ["fp16 is for GPUs"]),
        (["--learning-rate", "1e30"], 1, ["the loss is", "epoch 1 of 1", "lower --learning-rate"]),
        (["--hold-out", "0.001"], 1, ["is less than one image"]),
    ],
)
def test_training_that_cannot_be_is_said_in_one_line(
    options: list[str], code: int, parts: list[str], searched: Path
) -> None:
    fails(run("train", searched, "--jobs", "1", "--on", "cpu", *options), code, *parts)
    assert not (searched / "trained").exists()
    assert not (searched / "checkpoint").exists()


def test_training_needs_a_front(searched: Path) -> None:
    (searched / "front.json").unlink()
    fails(run("train", searched, "--on", "cpu"), 1, "has not finished", "cars-hw search --resume")


def started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)


def test_several_processes_train_one_network_at_a_time(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started_by_torchrun(monkeypatch)
    fails(run("train", searched, "--on", "cpu", "--jobs", "2"), 2, "leave --jobs out")


@pytest.mark.parametrize("command", ["rank", "baselines", "experiment", "export"])
def test_commands_that_share_no_work_refuse_several_processes(
    command: str, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by_torchrun(monkeypatch)
    fails(
        run(command, searched), 2, f"2 processes would each do all of the work of '{command}'", "search and train"
    )


def test_help_and_a_number_of_processes_that_is_none_are_no_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in ("4", "", "many"):
        monkeypatch.setenv("WORLD_SIZE", value)
        assert run("rank", "--help").exit_code == 0


def test_a_full_disk_is_one_line_and_leaves_nothing(
    table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.fsync

    def full(handle: int) -> None:
        """Fail for the checkpoint only."""
        if "search.pt" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(28, "No space left on device")
        written(handle)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "run"
    asked = ("search", "--data", folder, "--table", table, "--out", out, *QUICK)
    fails(run(*asked), 1, "No space left on device", "search.pt")
    assert not (out / "front.json").exists()
    assert not list((out / "checkpoint").iterdir())
    monkeypatch.undo()
    again = run(*asked, "--resume")
    assert again.exit_code == 0, again.stderr


def test_a_missed_budget_is_an_error_of_verify(
    table: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    budget = run("predict", "--table", table, "--quantile", "0.5").stdout.strip()
    assert (
        run("search", "--data", folder, "--table", table, "--latency", budget, "--out", out, *QUICK).exit_code == 0
    )
    assert run("train", out, "--top", "1", "--epochs", "1", "--jobs", "1", "--on", "cpu").exit_code == 0
    assert run("export", out).exit_code == 0
    monkeypatch.setattr("cars_hw.devices.open_device", lambda *_: FakeDevice(speed=0.01))
    fails(run("verify", out, "--device", "fake", "--patience", "0"), 3, "1 of 1 models exceed the budget")


def test_the_names_that_settings_take_are_those_that_there_are() -> None:
    assert get_args(CountedCost) == COUNTED
    assert {OWN, *get_args(StrategyName)} == {*STRATEGIES, STANDALONE}


def test_in_a_narrow_terminal_titles_are_broken_and_not_what_stands_below() -> None:
    columns = [
        "network",
        "accuracy (shared)",
        "parameters",
        "multiply-adds",
        "latency on ort",
        "upper bound",
        "measured",
    ]
    cells = ["net-01", "72.5%", "37,106", "4,703,712", "0.1339 ms", "0.1439 ms", "0.1376 ms"]
    console = Console(width=80, file=io.StringIO())
    console.print(common.table_of("Pareto front", columns, [cells]))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert any(all(cell in line for cell in cells) for line in lines)
    assert max(map(len, lines)) <= 80
