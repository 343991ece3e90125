"""The confirmation of the front: networks over the limit are rejected, and the next best replace them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, FakeDevice, Measurement, Sample
from cars_hw.errors import BudgetError
from cars_hw.evolution.population import Member
from cars_hw.latency import LatencyTable, Predictor, measure_genotypes
from cars_hw.measurement.schedule import Measured
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.pipeline.confirm_front import ConfirmedFront, confirm_front, missed_quiet_state
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.space.genotype import Genotype
from cars_hw.space.search_space import SearchSpace

PLAN = MeasurePlan(sessions=1, patience_seconds=0)


def members(table: LatencyTable, count: int) -> list[Member]:
    """Return networks that are the more accurate the slower they are."""
    predictor, rng = Predictor(table), np.random.default_rng(4)
    costs: dict[float, Genotype] = {}
    while len(costs) < count:
        genotype = SearchSpace().sample(rng)
        costs[predictor.predict(genotype).ms] = genotype
    return [Member(costs[ms], table.spec, (ms,), 0.5 + 0.01 * place) for place, ms in enumerate(sorted(costs))]


def front_of(left: Sequence[Member]) -> list[Member]:
    """Return the three most accurate, cheapest first."""
    return sorted(left, key=lambda member: member.accuracy)[-3:]


def confirmed(
    table: LatencyTable, finalists: list[Member], limit: float | None, device: Device | None = None
) -> ConfirmedFront:
    return confirm_front(finalists, front_of, [LatencyTarget(table, limit, device or FakeDevice())], plan=PLAN)


def test_a_front_that_keeps_to_the_budget_is_measured_and_left_alone(table: LatencyTable) -> None:
    finalists = members(table, 8)
    found = confirmed(table, finalists, 1e6)
    assert found.front == finalists[-3:]
    assert found.rejected == []
    assert set(found.measured) == {member.architecture for member in found.front}
    assert all(times[0] > 0 for times in found.measured.values())
    assert confirmed(table, finalists, None).front == finalists[-3:]


def test_networks_over_the_limit_are_rejected_and_the_next_best_replace_them(table: LatencyTable) -> None:
    finalists = members(table, 8)
    every = confirm_front(finalists, list, [LatencyTarget(table, None, FakeDevice())], plan=PLAN).measured
    times = [every[member.architecture][0] for member in finalists]
    limit = sorted(times)[4]
    found = confirmed(table, finalists, limit)
    assert all(found.measured[member.architecture][0] <= limit for member in found.front)
    assert {member.architecture for member in found.rejected} <= {
        member.architecture for member, ms in zip(finalists, times, strict=True) if ms > limit
    }
    kept = [member for member, ms in zip(finalists, times, strict=True) if ms <= limit]
    assert found.front == kept[-3:]
    assert found.rejected
    # The measured latency of a rejected network is kept.
    assert all(found.measured[member.architecture][0] > limit for member in found.rejected)


def test_a_limit_on_a_second_device_rejects_as_well(table: LatencyTable) -> None:
    finalists = members(table, 5)
    targets = [LatencyTarget(table, 1e6, FakeDevice()), LatencyTarget(table, 0.01, FakeDevice(speed=0.1))]
    with pytest.raises(BudgetError, match=r"all 5 networks .* exceed the budget when they are measured") as raised:
        confirm_front(finalists, front_of, targets, plan=PLAN)
    assert len(raised.value.smallest) == 2
    assert raised.value.smallest[1] > raised.value.smallest[0] * 9


def test_a_device_that_was_not_quiet_is_told_once_a_front(table: LatencyTable) -> None:
    finalists, lines = members(table, 5), list[str]()
    targets = [LatencyTarget(table, None, FakeDevice()), LatencyTarget(table, None, FakeDevice(speed=0.8))]
    confirm_front(finalists, front_of, targets, plan=PLAN, log=lines.append)
    assert lines == [
        "while the front was measured, fake did not return to the quiet state of its table: the reference network "
        "took 1.25 times as long, so that the measured latencies are too high"
    ]


def test_models_without_a_quiet_session_are_counted() -> None:
    def model(quiet_sessions: int) -> Measurement:
        return Measurement(1.0, (Sample(1.0),), 0.0, quiet_sessions=quiet_sessions)

    machine = Machine((MachineState("quiet", 1.0, 1.0),), (1.0, 1.0), 0.0)
    assert missed_quiet_state("ort", Measured([model(1), model(3)], None, machine)) is None
    assert missed_quiet_state("ort", Measured([model(1), model(0), model(0)], None, machine)) == (
        "2 of 3 models had no session in the quiet state of ort: their latencies are derived from slower states"
    )
    slower = replace(machine, slower_than_expected=1.049)
    assert missed_quiet_state("ort", Measured([model(1)], model(1), slower)) is None


def test_a_network_is_confirmed_in_the_state_of_its_limit(table: LatencyTable) -> None:
    machine = Machine((MachineState("quiet", 0.5, 1.0), MachineState("slower", 0.5, 1.5)), (1.0, 1.5), 0.0)
    finalists, shared = members(table, 3), replace(table, machine=machine)
    targets = [LatencyTarget(shared, None, FakeDevice(), state=state) for state in ("quiet", "1")]
    found = confirm_front(finalists, front_of, targets, plan=PLAN)
    assert all(slow == pytest.approx(1.5 * quiet) for quiet, slow in found.measured.values())


def test_a_target_without_a_device_is_not_measured_and_rejects_nothing(table: LatencyTable) -> None:
    finalists = members(table, 5)
    steps: list[tuple[int, int]] = []
    targets = [LatencyTarget(table, 0.01), LatencyTarget(table, 1e6, FakeDevice())]
    found = confirm_front(
        finalists, front_of, targets, plan=PLAN, progress=lambda _what, done, total: steps.append((done, total))
    )
    assert found.front == finalists[-3:]
    assert all(first is None and second is not None for first, second in found.measured.values())
    assert steps[-1] == (3, 3)
    with pytest.raises(BudgetError) as raised:
        confirm_front(finalists, front_of, [targets[0], LatencyTarget(table, 0.01, FakeDevice())], plan=PLAN)
    assert raised.value.smallest == (min(ms for _, ms in measured(table, finalists)),)


def measured(table: LatencyTable, finalists: list[Member]) -> list[tuple[Genotype, float]]:
    """Return each network with its milliseconds on the fake device."""
    genotypes = [member.genotype for member in finalists]
    models = measure_genotypes(FakeDevice(), table.spec, genotypes, PLAN).models
    return list(zip(genotypes, (model.ms for model in models), strict=True))
