"""A phone that throttles while its thermal status stays 0: what it did, what is measured, and what the tool says.

Every row is right within 2% of the truth, or measured as the phone is and said. The phone has a clock of its own,
so that minutes pass in no time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from long_runs import amount
from simulated_phone import truth_us
from throttling_stand import Stand

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import warnings_of
from cars_hw.errors import DeviceStateError
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.measurement.schedule import Measured, Schedule, measure
from cars_hw.space.network_spec import NetworkSpec

PLAN = MeasurePlan(sessions=3, patience_seconds=60)
HASTY = MeasurePlan(sessions=3, patience_seconds=6)


@pytest.fixture
def model_count() -> int:
    return 6


class Row(NamedTuple):
    """What the phone did, how many times the truth is measured (None: refused), and what the tool says."""

    did: Callable[[Stand], object]
    factor: float | None = 1.0
    says: str | None = None
    plan: MeasurePlan = PLAN
    beside: bool = True
    """Whether a reference runs beside the models."""


FASTER = r"the machine was 1\.[3-6]\d times faster before and did not return"


def limited(stand: Stand, **how: Callable[[Stand], object]) -> None:
    """A cap that was there from the start: models take 1.6 times as long."""
    stand.throttling.phase(0, 1.6, 1.6)
    for change in how.values():
        change(stand)


ROWS = {
    "nothing": Row(lambda _: None),
    "it throttles at once, and that lifts": Row(
        lambda on: (on.throttling.phase(3, 1.6, 1.6), on.throttling.phase(7, 1, 1))
    ),
    "it throttles at once, and that never lifts": Row(
        lambda on: on.throttling.phase(3, 1.6, 1.6), 1.6, FASTER, HASTY
    ),
    "it throttles at once, and that does not lift for longer than is waited": Row(
        lambda on: on.throttling.phase(1, 1.6, 1.6), 1.6, FASTER, MeasurePlan(sessions=3, patience_seconds=12)
    ),
    "it throttles at once, with no reference": Row(
        lambda on: on.throttling.phase(2, 1.6, 1.6), 1.6, FASTER, beside=False
    ),
    "it throttles gradually, and that lifts": Row(
        lambda on: (on.throttling.phase(2, 1, 1.5, 4), on.throttling.phase(8, 1.5, 1, 2))
    ),
    "it throttles gradually, and that never lifts": Row(
        lambda on: on.throttling.phase(1, 1, 1.5, 3), 1.5, FASTER, HASTY
    ),
    "it throttles from the first moment, and that lifts": Row(
        lambda on: (on.throttling.phase(0, 1.6, 1.6), on.throttling.phase(2, 1, 1))
    ),
    "two states, for seconds each": Row(lambda on: on.throttling.alternate(2.0, 1.6)),
    "two states, for a block each": Row(lambda on: on.throttling.alternate(1.1, 1.3)),
    "a cap that its clock shows": Row(
        partial(limited, clock=lambda on: (on.phone.runs_at(1750), on.phone.no_fixed_mode())),
        1.6,
        r"the clock of core \d+ reached 1750 of 2800 MHz while models ran",
    ),
    "a cap that its settings show": Row(
        partial(limited, clock=lambda on: on.phone.limit_clocks(1750)),
        1.6,
        r"the clock of core \d+ is limited to 1750 of 2800 MHz",
    ),
    "a cap that a cooling device of its processor shows": Row(
        partial(limited, no=lambda on: on.phone.no_thermal_service(), cool=lambda on: on.phone.cool(3)),
        1.6,
        r"lowers the clock of its processor against heat \(thermal-cpufreq-0\)",
    ),
    "a cap in doze": Row(
        partial(limited, doze=lambda on: on.phone.doze(wakes=False)), 1.6, "in doze, .* and does not wake"
    ),
    "doze, from which it wakes": Row(lambda on: on.phone.doze()),
    "a hot case that only a thermal zone shows": Row(
        lambda on: (on.phone.no_thermal_service(), on.phone.zones(skin_therm=43500)), None, r"is hot .*case 43\.5 C"
    ),
}


def chosen() -> list[str]:
    """Return the rows of this run: in ``make test`` one of each kind."""
    few = [
        "it throttles at once, and that lifts",
        "it throttles gradually, and that never lifts",
        "two states, for seconds each",
        "a cap that its clock shows",
        "a cap that a cooling device of its processor shows",
        "doze, from which it wakes",
        "a hot case that only a thermal zone shows",
    ]
    return list(ROWS)[: amount(0, len(ROWS))] or few


def measured(stand: Stand, models: list[Path], row: Row) -> Measured:
    reference = models[-1] if row.beside else None
    return measure(stand.device, models, row.plan, reference=reference, clock=stand.throttling.clock)


@pytest.mark.parametrize("name", chosen())
def test_every_row_is_right_or_said(name: str, stand: Stand, models: list[Path]) -> None:
    row = ROWS[name]
    row.did(stand)
    if row.factor is None:
        with pytest.raises(DeviceStateError, match=row.says):
            measured(stand, models, row)
        return
    found = measured(stand, models, row)
    ratios = [1e3 * one.ms / truth_us(model, row.factor) for one, model in zip(found.models, models, strict=True)]
    assert ratios == pytest.approx([1.0] * len(models), abs=0.02)
    told = [*warnings_of(stand.device), *found.machine.warnings()]
    if row.says is None:
        assert told == []
    else:
        assert any(re.search(row.says, text) for text in told), told


@pytest.mark.parametrize("stand", [0.06, 0.3][: amount(1, 2)], indirect=True)
def test_a_clock_that_rises_is_waited_for_also_where_the_phone_throttles(stand: Stand, models: list[Path]) -> None:
    stand.throttling.alternate(2.0, 1.6)
    found = measured(stand, models, ROWS["nothing"])
    ratios = [1e3 * one.ms / truth_us(model) for one, model in zip(found.models, models, strict=True)]
    assert ratios == pytest.approx([1.0] * len(models), abs=0.02)


def test_temperatures_are_kept_also_where_the_thermal_service_has_none(stand: Stand, models: list[Path]) -> None:
    stand.phone.no_thermal_service()
    stand.phone.zones(**{"skin-therm": 33500, "cpu-1-7": 47250, "battery": 27000, "tsens_off": -99900})
    assert len(stand.device.run(models, PLAN, 0)) == 6
    stand.phone.zones(**{"skin-therm": 31000, "cpu-1-7": 41000})
    conditions = stand.device.conditions()
    assert (conditions["thermal_status"], conditions["skin_c"], conditions["processor_c"]) == (None, 31.0, 41.0)
    assert conditions["warmest_c"] == {"battery": 27.0, "case": 33.5, "processor": 47.2}
    assert conditions["fixed_performance"] is True
    stand.device.release()


SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
FEW = MeasurePlan(sessions=2, patience_seconds=60)


def profiled(stand: Stand, monkeypatch: pytest.MonkeyPatch, plan: MeasurePlan) -> LatencyTable:
    monkeypatch.setattr("cars_hw.latency.campaign.Schedule", partial(Schedule, clock=stand.throttling.clock))
    return profile_device(stand.device, SPEC, calibration=4, plan=plan)


@pytest.mark.skipif(amount(1, 0) == 1, reason="three profiles take half a minute: pytest --long")
@pytest.mark.parametrize("lifts", [True, False])
def test_a_throttle_between_the_stages_is_waited_for_or_said(
    lifts: bool, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = profiled(stand, monkeypatch, FEW)
    assert truth.quality_warnings() == []
    now = stand.throttling.clock.now()
    stages = now * amount(1, 1) / 2
    stand.throttling.phase(now + stages, 1.6, 1.6)
    if lifts:
        stand.throttling.phase(now + 3 * stages, 1, 1)
    table = profiled(stand, monkeypatch, FEW if lifts else HASTY)
    factor = 1.0 if lifts else 1.6
    for key, entry in table.entries.items():
        assert entry.ms == pytest.approx(factor * truth.entries[key].ms, rel=0.02), key
    told = table.quality_warnings()
    assert (told == []) if lifts else any(re.search(FASTER, text) for text in told)
