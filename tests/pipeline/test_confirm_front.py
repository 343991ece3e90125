"""The front on the device: who exceeds the budget is struck, and the next best come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, FakeDevice
from cars_hw.errors import BudgetError
from cars_hw.evolution.population import Member
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.pipeline.confirm_front import ConfirmedFront, Held, confirm_front, device_of
from cars_hw.space.genotype import Genotype
from cars_hw.space.search_space import SearchSpace

PLAN = MeasurePlan(sessions=1, max_extra_sessions=0)


def members(table: LatencyTable, count: int) -> list[Member]:
    """Return networks that are the more accurate the slower they are."""
    predictor, rng = Predictor(table), np.random.default_rng(4)
    costs: dict[float, Genotype] = {}
    while len(costs) < count:
        genotype = SearchSpace().sample(rng)
        costs[predictor.predict(genotype).ms] = genotype
    return [Member(costs[ms], (ms,), 0.5 + 0.01 * place) for place, ms in enumerate(sorted(costs))]


def front_of(left: Sequence[Member]) -> list[Member]:
    """Return the three most accurate, cheapest first."""
    return sorted(left, key=lambda member: member.accuracy)[-3:]


def confirmed(
    table: LatencyTable, finalists: list[Member], limit: float | None, device: Device | None = None
) -> ConfirmedFront:
    return confirm_front(finalists, front_of, [Held(table, device or FakeDevice(), limit)], plan=PLAN)


def test_a_front_that_keeps_to_the_budget_is_measured_and_left_alone(table: LatencyTable) -> None:
    finalists = members(table, 8)
    found = confirmed(table, finalists, 1e6)
    assert found.front == finalists[-3:]
    assert found.rejected == []
    assert set(found.measured) == {member.genotype for member in found.front}
    assert all(times[0] > 0 for times in found.measured.values())
    assert confirmed(table, finalists, None).front == finalists[-3:]


def test_who_exceeds_it_is_struck_and_the_next_best_come_in(table: LatencyTable) -> None:
    finalists = members(table, 8)
    every = confirm_front(finalists, list, [Held(table, FakeDevice(), None)], plan=PLAN).measured
    times = [every[member.genotype][0] for member in finalists]
    limit = sorted(times)[4]
    found = confirmed(table, finalists, limit)
    assert all(found.measured[member.genotype][0] <= limit for member in found.front)
    assert {member.genotype for member in found.rejected} <= {
        member.genotype for member, ms in zip(finalists, times, strict=True) if ms > limit
    }
    kept = [member for member, ms in zip(finalists, times, strict=True) if ms <= limit]
    assert found.front == kept[-3:]
    assert found.rejected
    # Who was struck is known with what it took.
    assert all(found.measured[member.genotype][0] > limit for member in found.rejected)


def test_a_budget_on_a_second_device_strikes_as_well(table: LatencyTable) -> None:
    finalists = members(table, 5)
    slow = FakeDevice(speed=0.1)
    with pytest.raises(BudgetError, match=r"all 5 networks .* exceed the budget when they are measured") as raised:
        confirm_front(finalists, front_of, [Held(table, FakeDevice(), 1e6), Held(table, slow, 0.01)], plan=PLAN)
    assert len(raised.value.smallest) == 2
    assert raised.value.smallest[1] > raised.value.smallest[0] * 9


def test_a_device_is_at_hand_where_the_machine_is_the_table_s(table: LatencyTable, tmp_path: Path) -> None:
    device, reason = device_of(table)
    assert device is not None
    assert reason == ""
    elsewhere = replace(table, conditions={**table.conditions, "processor": "something else"})
    assert device_of(elsewhere) == (
        None,
        "processor is none, latencies are computed here, and something else in the table",
    )
    device, reason = device_of(replace(table, device="android"))
    assert device is None
    assert "phone" in reason
    assert not list(tmp_path.iterdir())
