"""Profiles of machines whose latencies are known: operations and networks are of one state, or the table says
so."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount
from simulated_machine import Factor, SimulatedMachine, quiet, switching, throttled

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.fake import model_parts
from cars_hw.latency import LatencyTable, Predictor, fresh_genotypes, profile_device
from cars_hw.measurement.schedule import Schedule
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1)
FEW = SearchSpace(("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"))
NETWORKS = 24
OVERHEAD_MS = 0.01
OPERATIONS_END_S = 8.0
"""Networks begin a little before this time of the simulated machine."""


@cache
def parts_of(content: bytes) -> tuple[float, float]:
    path = Path(parts_of.folder) / "model.onnx"  # type: ignore[attr-defined]
    path.write_bytes(content)
    arithmetic, rest = model_parts(path)
    return arithmetic, OVERHEAD_MS + rest


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    parts_of.folder = tmp_path_factory.mktemp("models")  # type: ignore[attr-defined]


def profiled(
    monkeypatch: pytest.MonkeyPatch, factor: Factor, *, seed: int = 0, plan: MeasurePlan | None = None
) -> LatencyTable:
    machine = SimulatedMachine(lambda path: parts_of(path.read_bytes()), factor, seed=seed)
    monkeypatch.setattr("cars_hw.latency.campaign.Schedule", partial(Schedule, clock=machine.clock))
    return profile_device(machine, SPEC, calibration=NETWORKS, plan=plan, space=FEW, seed=seed)


def apart(table: LatencyTable, truth: LatencyTable, factor: float = 1.0) -> float:
    """Return the largest relative distance of an operation of ``table`` from ``factor`` times the ``truth``."""
    return max(abs(entry.ms / (factor * truth.entries[key].ms) - 1) for key, entry in table.entries.items())


@pytest.fixture(scope="module")
def truth() -> LatencyTable:
    machine = SimulatedMachine(lambda path: parts_of(path.read_bytes()), noise=0.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cars_hw.latency.campaign.Schedule", partial(Schedule, clock=machine.clock))
        return profile_device(machine, SPEC, calibration=NETWORKS, space=FEW)


MACHINES = {
    "quiet": lambda _: quiet,
    "two states": lambda seed: switching((1, 1), (1.8, 1.3), seed=seed),
    "three states": lambda seed: switching((1, 1), (1.25, 1.1), (1.9, 1.5), seed=seed, longest=3),
    "throttled between the stages, and it lifts": lambda _: throttled(OPERATIONS_END_S, 1.6, until=60),
}

SHORT = ("quiet", "three states")
"""Those of the short suite; a throttle that lifts is in that of measurements."""


@pytest.mark.parametrize("seed", range(amount(1, 6)))
@pytest.mark.parametrize("name", [name for name in MACHINES if amount(0, 1) or name in SHORT])
def test_a_table_is_that_of_the_quiet_state(
    name: str, seed: int, truth: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = profiled(monkeypatch, MACHINES[name](seed), seed=seed)
    assert table.quality_warnings() == []
    assert apart(table, truth) < 0.02
    genotypes = fresh_genotypes(table, 20, np.random.default_rng(1), FEW)
    ours, theirs = Predictor(table), Predictor(truth)
    errors = [ours.predict(genotype).ms / theirs.predict(genotype).ms - 1 for genotype in genotypes]
    assert np.mean(np.abs(errors)) < 0.02
    assert ours.margin < 0.1


def test_a_throttle_between_the_stages_that_never_lifts_is_in_all_figures_and_said(
    truth: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = profiled(monkeypatch, throttled(OPERATIONS_END_S, 1.6), plan=MeasurePlan(patience_seconds=20))
    # Operations were measured in both states; all figures are those of the slower one.
    assert apart(table, truth, 1.6) < 0.02
    for genotype in fresh_genotypes(table, 20, np.random.default_rng(1), FEW):
        assert Predictor(table).predict(genotype).ms == pytest.approx(
            1.6 * Predictor(truth).predict(genotype).ms, rel=0.03
        )
    (warning,) = table.quality_warnings()
    assert warning == "the machine was 1.60 times faster before and did not return to that state"


def test_a_machine_that_is_slower_for_the_networks_alone_is_told_by_its_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without further rounds nothing is waited for.
    plan = MeasurePlan(sessions=2, patience_seconds=0)
    table = profiled(monkeypatch, throttled(OPERATIONS_END_S / 2, 1.1), plan=plan)
    assert any("faster before" in warning or "standard error" in warning for warning in table.quality_warnings())
