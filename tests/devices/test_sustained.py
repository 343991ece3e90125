"""The latency after minutes of load, on a phone that heats up: its clock is simulated, and the truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_phone import truth_us
from throttling_stand import Stand

from cars_hw.config.measurement import SustainedPlan
from cars_hw.devices import FakeDevice
from cars_hw.devices.load import Spell
from cars_hw.errors import InputError
from cars_hw.measurement.sustained import measure_sustained, quantile

PLAN = SustainedPlan(session_seconds=10.0)
HEAT_S = 60.0


@pytest.fixture
def model_count() -> int:
    return 2


def test_the_latency_under_load_is_that_of_the_hot_phone_and_it_cools_down_between(
    stand: Stand, models: list[Path]
) -> None:
    stand.throttling.heats(0.5, HEAT_S)
    found = measure_sustained(stand.device, models, PLAN, clock=stand.throttling.clock)
    assert 1e3 * found[0].fresh_ms == pytest.approx(truth_us(models[0]), rel=0.02)
    # The first session heats it by a sixth.
    assert truth_us(models[1]) <= 1e3 * found[1].fresh_ms < truth_us(models[1], 1.15)
    for one, model in zip(found, models, strict=True):
        # After 240 s, 98% of the heat is reached.
        assert 1e3 * one.p50_ms == pytest.approx(truth_us(model, 1.49), rel=0.01)
        assert one.p50_ms <= one.p90_ms <= 1.01 * one.p50_ms
        assert (one.load_s, one.window_s) == (pytest.approx(240, abs=15), 60.0)
        assert one.runs == pytest.approx(60e3 / one.p50_ms, rel=0.15)
        assert (one.cooled, one.exact, one.warnings()) == (True, True, [])
    # It rests for as long as the phone needs, and no longer.
    assert 600 + 35 < stand.throttling.clock.now() < 600 + 120
    assert stand.phone.setting("stay_on_while_plugged_in") is None


def test_what_is_not_settled_is_said(stand: Stand, models: list[Path]) -> None:
    stand.throttling.heats(0.5, HEAT_S)
    short = SustainedPlan(load_seconds=50, window_seconds=20, session_seconds=10, cool_seconds=0)
    first, second = measure_sustained(stand.device, models, short, clock=stand.throttling.clock)
    (rises,) = first.warnings()
    assert rises.startswith("after 50 s of load the latency still rises, by ")
    assert "the device had not cooled down when the load began" in second.warnings()
    assert 1e3 * second.fresh_ms > 1.1 * truth_us(models[1])


def test_a_window_without_load_before_it_is_compared_with_its_beginning(stand: Stand, models: list[Path]) -> None:
    stand.throttling.heats(0.5, HEAT_S)
    plan = SustainedPlan(load_seconds=0, window_seconds=60, session_seconds=10)
    (one,) = measure_sustained(stand.device, models[:1], plan, clock=stand.throttling.clock)
    assert one.before_ms == one.fresh_ms < one.p50_ms


def test_the_load_goes_on_although_the_phone_becomes_hot(stand: Stand, models: list[Path]) -> None:
    def hot(_stage: str, done: int, _total: int) -> None:
        if done >= 30:
            stand.phone.thermal(2, skin=44.0)
            stand.phone.limit_clocks(1500)

    plan = SustainedPlan(load_seconds=60, window_seconds=30, session_seconds=10)
    (one,) = measure_sustained(stand.device, models[:1], plan, clock=stand.throttling.clock, progress=hot)
    assert one.load_s == pytest.approx(60, abs=15)
    assert (one.warmest_c["case"], one.thermal_status) == (44.0, 2)
    # A clock that heat limits is what is measured.
    assert stand.device.warnings == ()
    assert stand.device.conditions()["warmest_c"]["case"] == 44.0
    stand.device.release()


def test_percentiles_are_those_of_all_runs_together() -> None:
    fast = Spell(((0.0, 1.0), (0.05, 1.0), (0.5, 1.0), (0.95, 1.0), (1.0, 1.0)), 300)
    slow = Spell(((0.0, 2.0), (0.05, 2.0), (0.5, 3.0), (0.95, 4.0), (1.0, 4.0)), 100)
    assert quantile([fast, slow], 0.5) == 1.0
    # A fifth of the runs of the slow session are above it.
    assert quantile([fast, slow], 0.95) == pytest.approx(3 + 0.3 / 0.45, abs=0.02)
    assert quantile([slow], 0.5) == pytest.approx(3.0, abs=0.02)
    assert quantile([Spell(((0.5, 7.0),), 5)], 0.9) == 7.0


def test_a_device_that_cannot_run_a_model_for_minutes_is_an_error(models: list[Path]) -> None:
    with pytest.raises(InputError, match="fake: the sustained state is measured on phones and boards only"):
        measure_sustained(FakeDevice(), models)
