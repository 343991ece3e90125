"""Exported models on the device: each is compared with the table of its precision and its number of threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

from cars_hw.cli.main import main
from cars_hw.config.checksummed import digest
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import QUIET, USUAL, MeasurePlan, SustainedPlan
from cars_hw.config.presets import PRESETS
from cars_hw.devices import FakeDevice
from cars_hw.devices.load import Spell
from cars_hw.errors import InputError, TableError
from cars_hw.export.card import ModelCard, card_path
from cars_hw.export.export import export_genotype
from cars_hw.formatting import state_name
from cars_hw.latency import LatencyTable
from cars_hw.latency.sustained import LoadedNetwork, SustainedState
from cars_hw.measurement.energy import Energy
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.measurement.sustained import Sustained
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout, names_by_state
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.run_formats import RUN
from cars_hw.pipeline.verify import _most_used_first, verify_run
from cars_hw.space.architecture import Architecture
from cars_hw.space.zoo import zoo

GENOTYPE = zoo()["CARS_A"].genotype
PLAN = MeasurePlan(sessions=1)


class Threaded(FakeDevice):
    """The fake device, on another number of threads."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads = threads

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), "threads": self._threads}


@pytest.fixture
def run(table: LatencyTable, tmp_path: Path) -> RunFolder:
    """A run with an fp32 table on 1 thread and one on 2, an int8 table on 1, and a model of each precision."""
    targets = [
        LatencyTarget(table, 1e6),
        LatencyTarget(replace(table, threads=2), 1e-6),
        LatencyTarget(replace(table, precision="int8"), 2e6),
    ]
    plan = SearchPlan(DataSource("fashion-mini"), table.spec, PRESETS["quick"], tuple(targets))
    run = RunFolder.create(tmp_path / "run", configuration(plan), RunAbout("", {}, 1))
    for index, target in enumerate(targets):
        target.table.write(run.table_path(index))
    for suffix in ("", ".int8"):
        name = f"net-01{suffix}"
        (model,) = export_genotype(GENOTYPE, table.spec, run.path / "models", name=name, formats=["onnx"])
        known = {"precision": "int8", "int8": "asymmetric"} if suffix else {}
        replace(model.card, **known).write(card_path(model.path))
    return run


def test_no_table_is_for_a_symmetric_model(run: RunFolder) -> None:
    path = run.model_path("net-01.int8", "onnx")
    replace(ModelCard.read(card_path(path)), int8="symmetric").write(card_path(path))
    int8, fp32 = verify_run(run, Threaded(1), plan=PLAN)
    assert (int8.precision, int8.predicted_ms, int8.bound_ms, int8.limit_ms) == ("int8", None, None, None)
    assert int8.measured_ms > 0
    assert fp32.limit_ms == 1e6


@pytest.mark.parametrize(
    ("threads", "fp32", "int8"), [(1, (1e6, True), (2e6, True)), (2, (1e-6, False), (None, None))]
)
def test_a_model_is_compared_with_the_table_of_its_precision_and_threads(
    run: RunFolder, table: LatencyTable, threads: int, fp32: tuple[float, bool], int8: tuple[float, bool]
) -> None:
    rows = verify_run(run, Threaded(threads), plan=PLAN)
    assert [(row.precision, row.limit_ms, row.within_budget) for row in rows] == [("int8", *int8), ("fp32", *fp32)]
    assert {row.threads for row in rows} == {threads}
    estimate = LatencyTarget(table).estimate(Architecture(GENOTYPE, table.spec))
    assert (rows[1].predicted_ms, rows[1].bound_ms) == (estimate.predicted_ms, estimate.bound_ms)
    assert rows[1].deviation == rows[1].measured_ms / estimate.predicted_ms - 1
    written = run.verified()[1]
    assert written == rows[1]
    assert (written.limit_ms, written.threads, written.within_budget) == (fp32[0], threads, fp32[1])


def test_a_device_on_other_threads_than_its_tables_is_refused_before_it_is_measured(run: RunFolder) -> None:
    with pytest.raises(TableError) as raised:
        verify_run(run, Threaded(64), plan=PLAN)
    assert str(raised.value) == (
        "the run's tables of fake are for 1 or 2 threads, the device runs with 64, and their latencies cannot be "
        "compared; measure with 1 or 2 threads, or search with a table that was profiled with 64"
    )
    assert run.verified() == []


def test_a_model_is_measured_in_the_state_of_its_limit(run: RunFolder, table: LatencyTable) -> None:
    machine = Machine((MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, 1.5)), (1.0, 1.5), 0.0)
    slow = LatencyTarget(replace(table, machine=machine, standard_error=0.5), 1.0, state="1")
    quiet_ms = verify_run(run, FakeDevice(), plan=PLAN)[1].measured_ms
    known = run.record_of_run
    changed = replace(known.configuration, targets=(slow.record(),))
    RUN.write_record(run.path / "run.json", replace(known, configuration=changed))
    slow.table.write(run.table_path(0))
    row = verify_run(run, FakeDevice(), plan=PLAN)[1]
    assert row.state == "1"
    assert row.quiet
    # The fake device is as fast as when the table was made: the model takes 1.5 times as long in this state.
    assert row.measured_ms == pytest.approx(1.5 * quiet_ms)
    assert row.usual_ms == pytest.approx(1.25 * quiet_ms)
    assert row.predicted_ms == slow.estimate(Architecture(GENOTYPE, table.spec)).predicted_ms
    assert row.quality_warnings == slow.quality_warnings != ()
    assert run.verified()[1].usual_ms == row.usual_ms


@pytest.mark.parametrize("quiet_first", [True, False])
def test_of_several_limits_on_a_device_the_one_that_is_missed_counts(
    run: RunFolder, table: LatencyTable, quiet_first: bool
) -> None:
    machine = Machine((MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, 1.5)), (1.0, 1.5), 0.0)
    quiet_ms = verify_run(run, FakeDevice(), plan=PLAN)[1].measured_ms
    slow = replace(table, machine=machine)
    kept, missed = LatencyTarget(slow, 1.01 * quiet_ms), LatencyTarget(slow, 1.4 * quiet_ms, state="1")
    targets = [kept, missed] if quiet_first else [missed, kept]
    known = run.record_of_run
    changed = replace(known.configuration, targets=tuple(one.record() for one in targets))
    RUN.write_record(run.path / "run.json", replace(known, configuration=changed))
    for index, target in enumerate(targets):
        target.table.write(run.table_path(index))
    row = verify_run(run, FakeDevice(), plan=PLAN)[1]
    assert (row.state, row.limit_ms, row.within_budget) == ("1", missed.limit_ms, False)
    assert row.measured_ms == pytest.approx(1.5 * quiet_ms)


def test_each_model_is_compared_with_the_limit_that_it_uses_most() -> None:
    quiet: Any = SimpleNamespace(precision="fp32", limit_ms=1.0, state="quiet", in_state=lambda one: one.ms)
    usual: Any = SimpleNamespace(precision="fp32", limit_ms=1.2, state="usual", in_state=lambda one: one.usual)
    card: Any = SimpleNamespace(precision="fp32", int8=None)

    def first(ms: float, usual_ms: float) -> str:
        measured: Any = SimpleNamespace(ms=ms, usual=usual_ms)
        found = [_most_used_first(given, card, measured, None) for given in ([quiet, usual], [usual, quiet])]
        assert found[0] == found[1]
        return found[0][0].state

    # The one misses the limit of the usual state only, the other that of the quiet state only.
    assert first(0.9, 1.3) == "usual"
    assert first(1.05, 1.1) == "quiet"
    measured: Any = SimpleNamespace(ms=1.0, usual=1.0)
    assert _most_used_first([quiet], SimpleNamespace(precision="int8", int8="symmetric"), measured, None) == []


def test_models_whose_limits_hold_in_different_states_are_told_apart(
    run: RunFolder, table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The run has no images.
    monkeypatch.setattr("cars_hw.cli.verify.warn_of_changed_images", lambda _run: None)
    machine = Machine((MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, 1.5)), (1.0, 1.5), 0.0)
    slow = replace(table, machine=machine)
    targets = [LatencyTarget(slow, 1e6), LatencyTarget(replace(slow, precision="int8"), 1e6, state=USUAL)]
    known = run.record_of_run
    changed = replace(known.configuration, targets=tuple(one.record() for one in targets))
    RUN.write_record(run.path / "run.json", replace(known, configuration=changed))
    for index, target in enumerate(targets):
        target.table.write(run.table_path(index))
    rows = verify_run(run, FakeDevice(), plan=PLAN)
    assert {row.precision: row.state for row in rows} == {"fp32": QUIET, "int8": USUAL}
    names = {row.precision: row.name for row in rows}
    told = CliRunner().invoke(main, ["verify", str(run.path), "--device", "fake"])
    assert told.exit_code == 0, told.output
    latencies = [line for line in told.stdout.splitlines() if line.startswith("Measured and predicted")]
    assert latencies == [
        f"Measured and predicted latencies of {names[precision]} are those of {state_name(state)} of fake."
        for precision, state in (("int8", USUAL), ("fp32", QUIET))
    ]
    assert names_by_state(rows) == {QUIET: [names["fp32"]], USUAL: [names["int8"]]}


def test_a_device_that_is_not_as_fast_as_its_table_is_not_quiet(run: RunFolder) -> None:
    rows = verify_run(run, FakeDevice(speed=0.8), plan=MeasurePlan(sessions=1, patience_seconds=0))
    assert [row.quiet for row in rows] == [False, False]
    assert rows[0].drift == pytest.approx(0.25, abs=1e-4)
    assert [row.quiet for row in verify_run(run, FakeDevice(speed=0.97), plan=PLAN)] == [True, True]


class Loaded(FakeDevice):
    """The fake device, which reports that it is slow, and runs a model for minutes."""

    warnings = ("the battery saver is on",)

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        assert (sessions, seconds) == (1, 2.0)
        return [Spell(((0.0, 2.0), (0.5, 3.0), (1.0, 4.0)), 10)]


def test_the_sustained_state_and_what_the_device_warned_of_are_kept(run: RunFolder) -> None:
    plan = SustainedPlan(load_seconds=0.0, window_seconds=1e-9, cool_seconds=0.0)
    rows = verify_run(run, Loaded(), plan=PLAN, sustained=plan)
    assert [row.device_warnings for row in rows] == [("the battery saver is on",)] * 2
    for row in rows:
        assert row.sustained is not None
        assert row.sustained.p50_ms == pytest.approx(3, abs=0.02)
        assert row.sustained.p90_ms == pytest.approx(3.8, abs=0.02)
    assert run.verified() == rows
    with pytest.raises(InputError, match="on phones and boards only"):
        verify_run(run, FakeDevice(), plan=PLAN, sustained=plan)
    assert run.verified() == rows


def test_what_an_earlier_verification_measured_besides_is_kept_for_the_same_model(run: RunFolder) -> None:
    plan = SustainedPlan(load_seconds=0.0, window_seconds=1e-9, cool_seconds=0.0)
    first = verify_run(run, Loaded(), plan=PLAN, sustained=plan)
    energy = Energy(5.0, 0.01, 3.0, 1.0, 1.0, 60.0)
    loads = [row.sustained for row in first]
    assert None not in loads
    run.write_verified([replace(row, energy=energy) for row in first])
    rows = verify_run(run, Loaded(), plan=PLAN)
    assert [(row.energy, row.sustained) for row in rows] == [(energy, load) for load in loads]
    assert run.verified() == rows
    # A model of the same name that is another one, or that ran on other threads, has figures of its own.
    int8, fp32 = rows
    run.write_verified([replace(int8, origin="sha256:" + "0" * 64), replace(fp32, origin=None)])
    rows = verify_run(run, Loaded(), plan=PLAN)
    assert [(row.energy, row.sustained) for row in rows] == [(None, None)] * 2


class Elsewhere(Loaded):
    """The device of the same name of another computer, or another phone at the same address."""

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), "processor": "of another computer"}


def test_what_another_machine_of_the_same_name_measured_is_not_kept(run: RunFolder) -> None:
    first = verify_run(run, Loaded(), plan=PLAN)
    run.write_verified([replace(row, energy=Energy(5.0, 0.01, 3.0, 1.0, 1.0, 60.0)) for row in first])
    assert [row.energy for row in verify_run(run, Elsewhere(), plan=PLAN)] == [None, None]


def test_what_was_measured_of_another_model_file_of_the_same_name_is_not_kept(run: RunFolder) -> None:
    first = verify_run(run, Loaded(), plan=PLAN)
    run.write_verified([replace(row, energy=Energy(5.0, 0.01, 3.0, 1.0, 1.0, 60.0)) for row in first])
    path = run.model_path(first[0].name, "onnx")
    other = onnx.load(path)
    other.doc_string = "by another scheme of int8"
    onnx.save(other, path)
    card = ModelCard.read(card_path(path))
    replace(card, digest=digest(path.read_bytes())).write(card_path(path))
    assert [row.energy is None for row in verify_run(run, Loaded(), plan=PLAN)] == [True, False]


def test_a_limit_in_the_sustained_state_is_compared_with_what_was_measured_under_load(
    run: RunFolder, table: LatencyTable
) -> None:
    # Two targets of this state, in which the table says 1.5 times the quiet latency.
    state = SustainedState((LoadedNetwork(GENOTYPE, 4, 5, (9, 8), 1.0, Sustained(1, 1.5, 1.5, 1.5, 240, 60, 500)),))
    hot = LatencyTarget(replace(table, sustained=state), 3.5, state="sustained")
    quiet_ms = verify_run(run, FakeDevice(), plan=PLAN)[1].measured_ms
    known = run.record_of_run
    changed = replace(known.configuration, targets=(hot.record(),))
    RUN.write_record(run.path / "run.json", replace(known, configuration=changed))
    hot.table.write(run.table_path(0))
    derived = verify_run(run, FakeDevice(), plan=PLAN)[1]
    assert (derived.state, derived.measured_ms) == ("sustained", pytest.approx(1.5 * quiet_ms))
    plan = SustainedPlan(load_seconds=0.0, window_seconds=1e-9, cool_seconds=0.0)
    row = verify_run(run, Loaded(), plan=PLAN, sustained=plan)[1]
    assert row.measured_ms == pytest.approx(3.8, abs=0.02)
    assert (derived.within_budget, row.within_budget) == (True, False)


def test_a_device_without_a_table_is_measured_and_compared_with_nothing(run: RunFolder) -> None:
    rows = verify_run(run, FakeDevice("another"), plan=PLAN)
    assert [(row.predicted_ms, row.limit_ms, row.within_budget, row.drift) for row in rows] == [(None,) * 4] * 2
