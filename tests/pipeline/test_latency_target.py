"""The latency target: one class from the command line to the report, with precision and threads."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

import cars_hw
from cars_hw.config.codec import unstructure
from cars_hw.config.presets import PRESETS
from cars_hw.devices import FakeDevice, Measurement
from cars_hw.errors import InputError, TableError
from cars_hw.latency import CalibrationNetwork, Coefficients, LatencyTable, genotype_keys
from cars_hw.latency.predictor import REPEATABILITY
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.pipeline.latency_target import LatencyTarget, targets_for_models
from cars_hw.pipeline.plan import DataSource, SearchPlan, configuration, search_plan, search_settings
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TargetSettings
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo

GENOTYPE = zoo()["CARS_A"].genotype

NETWORK = NetworkSpec(4, 3, (8, 8), 1, classes=3)
"""The network of the table."""
ARCHITECTURE = Architecture(GENOTYPE, NETWORK)


class Threaded(FakeDevice):
    """The fake device, on another number of threads."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads = threads

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), "threads": self._threads}


MARGIN = 0.1 + REPEATABILITY * NormalDist().inv_cdf(19.5 / 20)
"""What 20 residuals of 10% leave at a level of 95%: their last rank, spread by the error of a later measurement."""


@pytest.fixture
def known(table: LatencyTable) -> LatencyTable:
    """A table whose every operation takes 0.25 ms, and whose predictor is 2 x + 0.5 ms with residuals of 10%."""
    entry = Measurement(0.75, (), 0.0)
    return replace(
        table,
        overhead=Measurement(0.5, (), 0.0),
        entries=dict.fromkeys(table.entries, entry),
        predictor=Coefficients(2.0, 0.5, 0.0, residuals=(0.1,) * 20),
        reference=None,
        calibration=(CalibrationNetwork(GENOTYPE, entry),) * 20,
        standard_error=0.0,
    )


def test_an_estimate_by_hand(known: LatencyTable) -> None:
    operations = len(genotype_keys(known.spec, GENOTYPE))
    predicted = 2.0 * 0.25 * operations + 0.5
    target = LatencyTarget(replace(known, precision="int8", threads=4), limit_ms=predicted + 1)
    estimate = target.estimate(ARCHITECTURE)
    assert dataclasses.asdict(estimate) == {
        "device": "fake",
        "predicted_ms": pytest.approx(predicted),
        "bound_ms": pytest.approx((1 + MARGIN) * predicted),
        "limit_ms": predicted + 1,
        "measured_ms": None,
        "precision": "int8",
        "threads": 4,
        "state": "quiet",
        "usual_ms": pytest.approx(predicted),
        "quality_warnings": (),
    }
    assert not estimate.over_limit
    assert not target.estimate(ARCHITECTURE, predicted + 1).over_limit
    assert target.estimate(ARCHITECTURE, predicted + 1.001).over_limit
    assert not LatencyTarget(known).estimate(ARCHITECTURE, 1e9).over_limit


MACHINE = Machine((MachineState("quiet", 0.4, 1.0), MachineState("slower", 0.6, 1.5)), (1.0, 1.5, 2.0), 0.01)


def test_figures_are_those_of_the_state_of_the_limit(known: LatencyTable) -> None:
    table = replace(known, machine=MACHINE, standard_error=0.5)
    quiet, usual, most = (LatencyTarget(table, 3.0, state=state) for state in ("quiet", "usual", "0.75"))
    ms = quiet.estimate(ARCHITECTURE).predicted_ms
    assert [target.estimate(ARCHITECTURE).predicted_ms / ms for target in (quiet, usual, most)] == [1.0, 1.5, 1.75]
    assert [target.estimate(ARCHITECTURE).state for target in (quiet, usual, most)] == ["quiet", "usual", "0.75"]
    usual_ms = [target.estimate(ARCHITECTURE).usual_ms for target in (quiet, usual, most)]
    assert usual_ms == pytest.approx([1.5 * ms] * 3)
    assert most.objective().value(ARCHITECTURE) == most.estimate(ARCHITECTURE).predicted_ms
    measured = Measurement(4.0, (), 0.0, sensitivity=0.5)
    assert [target.in_state(measured) for target in (quiet, usual)] == pytest.approx([4.0, 4.0 * 1.5**0.5])
    # The quality of the table goes with the figures.
    (reason,) = quiet.estimate(ARCHITECTURE).quality_warnings
    assert "standard error of 50.0%" in reason
    assert quiet.quality_warnings == (reason,)


def test_a_limit_may_be_exceeded_in_the_usual_state(known: LatencyTable) -> None:
    table = replace(known, machine=MACHINE)
    ms = LatencyTarget(table).estimate(ARCHITECTURE).predicted_ms
    assert LatencyTarget(table, 1.4 * ms).estimate(ARCHITECTURE).usually_over_limit
    assert not LatencyTarget(table, 1.6 * ms).estimate(ARCHITECTURE).usually_over_limit
    assert not LatencyTarget(table).estimate(ARCHITECTURE).usually_over_limit


@pytest.mark.parametrize("state", ["fast", "1.5", "-0.1", "nan", ""])
def test_a_state_is_known(table: LatencyTable, tiny_table: Path, state: str) -> None:
    told = re.escape(f"'{state}' is no state; use quiet, usual, sustained, or a quantile over the time from 0 to 1")
    with pytest.raises(InputError, match=told):
        LatencyTarget(table, state=state)
    with pytest.raises(InputError, match=told):
        TargetSettings(tiny_table, state=state)


def test_the_objective_is_the_prediction_limited_by_the_bound(known: LatencyTable) -> None:
    predicted = 2.0 * 0.25 * len(genotype_keys(known.spec, GENOTYPE)) + 0.5
    objective = LatencyTarget(known, limit_ms=1.1 * predicted).objective()
    assert (objective.name, objective.unit, objective.limit) == ("latency on fake", "ms", 1.1 * predicted)
    assert objective.value(ARCHITECTURE) == pytest.approx(predicted)
    assert objective.upper(ARCHITECTURE) == pytest.approx((1 + MARGIN) * predicted)
    assert not objective.allows(ARCHITECTURE)
    assert LatencyTarget(known).objective().allows(ARCHITECTURE)


def test_a_limit_is_exceeded_by_more_than_the_limit(known: LatencyTable) -> None:
    target = LatencyTarget(known, limit_ms=2.0)
    assert [target.exceeded_by(ms) for ms in (1.9, 2.0, 2.1)] == [False, False, True]
    assert not LatencyTarget(known).exceeded_by(1e9)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_is_positive(known: LatencyTable, limit: float) -> None:
    with pytest.raises(InputError, match=re.escape(f"a latency limit must be positive, not {limit} ms")):
        LatencyTarget(known, limit)


def test_a_lower_level_gives_a_lower_bound(known: LatencyTable) -> None:
    assert known.predictor is not None
    table = replace(known, predictor=replace(known.predictor, residuals=(0.0,) * 10 + (0.1,) * 10))
    high, low = LatencyTarget(table).estimate(ARCHITECTURE), LatencyTarget(table, level=0.4).estimate(ARCHITECTURE)
    # Of 20 residuals the ninth holds at a level of 40%. It is 85% up those around 0, as (9 - 0.5) / 20 is 0.85 / 2.
    margin = REPEATABILITY * NormalDist().inv_cdf(0.85)
    assert low.bound_ms == pytest.approx((1 + margin) * low.predicted_ms)
    # The last of them is 95% up those around 10%.
    margin = 0.1 + REPEATABILITY * NormalDist().inv_cdf(0.95)
    assert high.bound_ms == pytest.approx((1 + margin) * high.predicted_ms)


def test_a_predictor_is_built_once(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    target = LatencyTarget(table)
    assert target.predictor is target.predictor
    assert target.predictor_of(NETWORK) is target.predictor_of(replace(NETWORK))
    before = target.estimate(ARCHITECTURE)
    monkeypatch.setattr("cars_hw.pipeline.latency_target.Predictor", None)
    assert target.estimate(ARCHITECTURE) == before
    assert target.objective().value(ARCHITECTURE) == before.predicted_ms


def test_a_table_of_one_network_refuses_an_architecture_of_another(table: LatencyTable) -> None:
    target = LatencyTarget(table, 1.0)
    larger = Architecture(GENOTYPE, replace(NETWORK, channels=8))
    message = "the table is for 4 channels, 3 cells, 8x8x1, 3 classes, cifar stem, not for 8 channels, 3 cells"
    for ask in (target.predict, target.estimate, target.card_latency, target.usual_ms, target.objective().value):
        with pytest.raises(TableError, match=message):
            ask(larger)
    with pytest.raises(TableError, match=message):
        target.objective().allows(larger)


def test_a_device_of_another_name_or_number_of_threads_is_refused(table: LatencyTable) -> None:
    assert LatencyTarget(table, device=Threaded(1)).device is not None
    with pytest.raises(TableError, match=r"device fake with 1 threads?, .*fake with 64"):
        LatencyTarget(table, device=Threaded(64))
    with pytest.raises(TableError, match=r"device fake with 1 threads?, .*mine with 1"):
        LatencyTarget(table, device=FakeDevice("mine"))
    assert LatencyTarget(replace(table, threads=64), device=Threaded(64)).threads == 64


def test_a_device_is_available_where_the_machine_is_the_table_s(table: LatencyTable) -> None:
    device, reason = LatencyTarget(table).available_device()
    assert device is not None
    assert reason == ""
    given = FakeDevice(speed=3.0)
    assert LatencyTarget(table, device=given).available_device() == (given, "")
    elsewhere = replace(table, conditions={**table.conditions, "processor": "something else"})
    assert LatencyTarget(elsewhere).available_device() == (
        None,
        "processor is none, latencies are computed here, and something else in the table",
    )
    device, reason = LatencyTarget(replace(table, threads=2)).available_device()
    assert device is None
    assert reason == "the simulated device 'fake' has one thread, not 2"
    device, reason = LatencyTarget(replace(table, device="android")).available_device()
    assert device is None
    assert "phone" in reason


def test_models_find_the_targets_of_their_format_and_precision(table: LatencyTable) -> None:
    fp32, int8 = LatencyTarget(table, 1.0), LatencyTarget(replace(table, precision="int8"), 2.0)
    phone = LatencyTarget(replace(table, device="android:serial"))
    targets = (fp32, LatencyTarget(table, 3.0), int8, phone)
    assert targets_for_models(targets, "onnx", "fp32") == [fp32, targets[1]]
    assert targets_for_models(targets, "onnx", "int8") == [int8]
    assert targets_for_models(targets, "tflite", "fp32") == [phone]
    assert targets_for_models(targets, "tflite", "int8") == []
    assert targets_for_models([LatencyTarget(replace(table, device="mine"))], "onnx", "fp32") == []


def test_a_run_keeps_its_targets(table: LatencyTable, tmp_path: Path) -> None:
    targets = (
        LatencyTarget(table, 0.5),
        LatencyTarget(table, 0.25, level=0.9, state="0.75", at_least_ms=0.125),
        LatencyTarget(table, state="usual"),
    )
    plan = SearchPlan(DataSource("fashion-mini"), table.spec, PRESETS["quick"], targets)
    run = RunFolder.create(tmp_path / "run", configuration(plan), RunAbout("", {}, 1))
    for index, target in enumerate(targets):
        target.table.write(run.table_path(index))
    assert RunFolder.open(tmp_path / "run").targets() == targets
    assert unstructure(run.configuration.targets[1]) == {
        "device": "fake",
        "limit_ms": 0.25,
        "level": 0.9,
        "profiled": table.created,
        "precision": "fp32",
        "threads": 1,
        "state": "0.75",
        "at_least_ms": 0.125,
    }


def test_the_settings_of_a_search_keep_a_target(tiny_table: Path, table: LatencyTable) -> None:
    target = LatencyTarget(table, 0.25, level=0.9, state="usual", at_least_ms=0.125)
    plan = SearchPlan(DataSource("fashion-mini"), table.spec, PRESETS["quick"], (target,))
    settings = search_settings(plan, [tiny_table])
    assert settings.targets == (
        TargetSettings(tiny_table, limit_ms=0.25, at_least_ms=0.125, level=0.9, state="usual"),
    )
    assert search_plan(settings, "cpu").targets == (target,)


def package_classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(cars_hw.__path__, "cars_hw."):
        if not module.name.endswith("__main__"):
            for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if found.__module__ == module.name:
                    yield found


def test_a_limit_has_one_holder() -> None:
    """Beside the target, only what is told and what a run writes has a limit.

    These are the sentences on its use and on larger networks, the comparison at budgets, config.toml, run.json,
    front.json and verified.json, and what predict prints.
    """
    names = {"limit_ms", "asked_ms", "budget", "budget_ms"}
    holders = {
        found.__qualname__
        for found in package_classes()
        if names & {*getattr(found, "_fields", ()), *getattr(found, "__annotations__", ())}
    }
    assert holders == {
        "BudgetChoice",
        "BudgetUse",
        "LargerNetworks",
        "LatencyEstimate",
        "LatencyTarget",
        "PredictOutput",
        "TargetRecord",
        "TargetSettings",
        "Verified",
    }
    assert dataclasses.is_dataclass(LatencyTarget)


def test_predictors_are_built_in_one_place() -> None:
    """``latency.validation`` compares a predictor with its device, below the pipeline.

    A tracker of a profile draws the predictor of the table that was just made. The energy follows from the latency,
    also without a target. All else asks the target.
    """
    root = Path(cars_hw.__file__).parent
    built = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"(?<!class )\bPredictor\(", path.read_text())
    }
    assert built == {
        "pipeline/latency_target.py",
        "latency/measure_energy.py",
        "latency/validation.py",
        "tracking/follow.py",
    }
