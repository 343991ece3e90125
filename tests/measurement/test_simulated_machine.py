"""Machines whose latencies are known: what is measured on them must be the truth, or be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from long_runs import amount
from simulated_machine import Factor, SimulatedMachine, drifting, quiet, switching, throttled

from cars_hw.config.measurement import USUAL, MeasurePlan
from cars_hw.measurement.schedule import Measured, measure
from cars_hw.measurement.states import Moments, fit_states

MODELS = 40
REFERENCE = Path("reference")
SEEDS = range(amount(1, 12))


def parts(model: Path) -> tuple[float, float]:
    """Return what a model takes: arithmetic and memory, from mostly the one to mostly the other."""
    if model == REFERENCE:
        return 1.0, 1.0
    number = int(model.name)
    # From 0.1 to 4 ms: of shorter models a session has thousands of runs.
    size = 0.1 * 1.1**number
    share = (number * 7 % MODELS) / (MODELS - 1)
    return size * (0.2 + 0.6 * share), size * (0.8 - 0.6 * share)


def measured_on(factor: Factor, *, seed: int = 0, ramp_s: float = 0.0, plan: MeasurePlan | None = None) -> Measured:
    machine = SimulatedMachine(parts, factor, ramp_s=ramp_s, seed=seed)
    return measure(
        machine,
        [Path(str(number)) for number in range(MODELS)],
        plan or MeasurePlan(seed=seed),
        reference=REFERENCE,
        clock=machine.clock,
    )


def errors(found: Measured, factor: float = 1.0) -> np.ndarray:
    """Return how far each latency is from the truth; a run takes 0.6% more at its low quantile, by the jitter."""
    truth = np.array([factor * sum(parts(Path(str(number)))) for number in range(MODELS)])
    return np.array([one.ms for one in found.models]) / (1.006 * truth) - 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("factor", "ramp_s"),
    [
        pytest.param(lambda _: quiet, 0.0, id="quiet"),
        pytest.param(lambda seed: switching((1, 1), (1.8, 1.3), seed=seed), 0.0, id="two states"),
        pytest.param(
            lambda seed: switching((1, 1), (1.25, 1.1), (1.9, 1.5), seed=seed, longest=3), 0.0, id="three states"
        ),
        pytest.param(lambda _: drifting(0.3, 60), 0.0, id="drift"),
        pytest.param(lambda _: quiet, 0.06, id="ramp of 60 ms"),
        pytest.param(lambda _: quiet, 0.3, id="ramp of 300 ms"),
        pytest.param(lambda seed: switching((1, 1), (1.8, 1.3), seed=seed), 0.3, id="two states and a ramp"),
        pytest.param(lambda _: throttled(8, 1.6, until=30), 0.0, id="throttled for a while"),
        pytest.param(lambda _: throttled(0, 1.6, until=15), 0.0, id="busy at first"),
    ],
)
def test_every_latency_is_within_two_percent_of_the_truth(factor: object, ramp_s: float, seed: int) -> None:
    found = measured_on(factor(seed), seed=seed, ramp_s=ramp_s)  # type: ignore[operator]
    assert np.abs(errors(found)).max() < 0.02
    assert min(one.quiet_sessions for one in found.models) >= 3
    assert found.machine.faster_before == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_throttle_that_never_lifts_is_measured_as_it_is_and_said(seed: int) -> None:
    found = measured_on(throttled(8, 1.6), seed=seed, plan=MeasurePlan(seed=seed, patience_seconds=30))
    assert np.abs(errors(found, 1.6)).max() < 0.02
    assert found.machine.faster_before == pytest.approx(1.6, rel=0.02)


def test_a_faster_state_is_not_forgotten_while_it_is_waited_for() -> None:
    """The longer the wait, the smaller is its share of the time."""
    machine = SimulatedMachine(parts, throttled(1.5, 1.6))
    found = measure(
        machine,
        [Path("20"), Path("25")],
        MeasurePlan(patience_seconds=90),
        reference=REFERENCE,
        clock=machine.clock,
    )
    assert machine.second > 90
    assert found.machine.faster_before == pytest.approx(1.6, rel=0.02)
    assert len(found.machine.warnings()) == 1


def test_the_states_have_their_shares_and_factors() -> None:
    found = measured_on(switching((1, 1), (2.0, 2.0), seed=3), plan=MeasurePlan(sessions=20))
    first, second = found.machine.states
    assert (first.name, first.factor) == ("quiet", 1.0)
    assert second.factor == pytest.approx(2.0, rel=0.02)
    assert first.share + second.share == pytest.approx(1, abs=0.05)
    assert first.share == pytest.approx(0.5, abs=0.2)
    assert found.machine.factor("0") == pytest.approx(1, rel=0.02)
    assert found.machine.factor("1") == pytest.approx(2, rel=0.05)
    assert found.machine.factor(USUAL) == found.machine.factor("0.5")
    assert min(abs(found.machine.usual_factor - factor) for factor in (1.0, 2.0)) < 0.1


def test_models_bound_by_memory_and_by_arithmetic_have_other_sensitivities() -> None:
    found = measured_on(switching((1, 1), (2.0, 1.2), seed=1), plan=MeasurePlan(sessions=12))
    slower = [one.in_state(found.machine.states[1].factor) / one.ms for one in found.models]
    for number, factor in enumerate(slower):
        arithmetic, memory = parts(Path(str(number)))
        assert factor == pytest.approx((2.0 * arithmetic + 1.2 * memory) / (arithmetic + memory), rel=0.06)


def test_a_quiet_state_slower_than_that_of_the_table_is_waited_for_and_said() -> None:
    machine = SimulatedMachine(parts, lambda _: (1.3, 1.3))
    found = measure(
        machine,
        [Path("3"), Path("5")],
        MeasurePlan(patience_seconds=20),
        reference=REFERENCE,
        expected_ms=2.0,
        clock=machine.clock,
    )
    assert found.machine.slower_than_expected == pytest.approx(1.3, rel=0.02)
    assert machine.second > 20
    assert [one.ms for one in found.models] == pytest.approx(
        [1.006 * 1.3 * sum(parts(Path(name))) for name in ("3", "5")], rel=0.02
    )


def test_a_patient_measurement_meets_the_quiet_state_of_the_table() -> None:
    machine = SimulatedMachine(parts, throttled(0, 1.6, until=25))
    found = measure(machine, [Path("3")], MeasurePlan(), reference=REFERENCE, expected_ms=2.0, clock=machine.clock)
    assert found.machine.slower_than_expected == pytest.approx(1.0, rel=0.02)
    assert found.models[0].ms == pytest.approx(1.006 * sum(parts(Path("3"))), rel=0.02)
    assert found.models[0].quiet_sessions >= 3


def test_a_machine_without_any_state_is_said_to_be_faster_at_times() -> None:
    # Levels from 1 to e^3, each of them once: none has a tenth of the time.
    count = 60
    level = np.linspace(0, 3, count)
    found = fit_states(Moments(np.zeros(count, int), level, np.arange(count, dtype=float)), 1)
    assert found.machine.faster_before > 2
