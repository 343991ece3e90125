"""A phone that is not at its best: its clock is waited for, and heat, a saver and a battery are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phone_stand import PLAN, WAITS, standing
from simulated_phone import System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.errors import DeviceStateError


@pytest.fixture(autouse=True)
def nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


RAMP = """\
for flag in "$@"; do case $flag in --warmup_min_secs=*) seconds=${flag#--warmup_min_secs=} ;; esac; done
sum='BEGIN { r = 1 - s / RAMP; if (r < 0) r = 0; printf "%d", us * (1 + 0.8 * r) }'
us=$(PATH=/usr/bin:/bin; awk -v us=$us -v s=$seconds "$sum")
"""


# Ends the warm-up at the limit of the tool, as the tool does. To be followed by RAMP.
CUT = """\
limit() { awk -v a="$1" -v b="$2" 'BEGIN { print (a < b ? a : b) }'; }
for flag in "$@"; do case $flag in --max_secs=*) most=${flag#--max_secs=} ;; esac; done
for flag in "$@"; do
  case $flag in --warmup_min_secs=*)
    flag=--warmup_min_secs=$(PATH=/usr/bin:/bin; limit "${flag#--warmup_min_secs=}" "$most") ;;
  esac
  shift
  set -- "$@" "$flag"
done
"""


@pytest.mark.parametrize("seconds", [0.01, 0.06, 0.3, 1.2])
def test_a_clock_that_rises_is_waited_for(seconds: float, tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """The canned runner is slower as long as its clock rises: of 1000 microseconds, up to 1800."""
    plan = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, patience_seconds=0)
    with standing(tmp_path / "phone", keys, System(), RAMP.replace("RAMP", str(seconds))) as stand:
        device = stand.device()
        samples = device.run(models, plan, 0)
        assert [1e3 * sample.ms for sample in samples] == pytest.approx([1000, 1100, 1200], rel=0.02)
        warmup = device.conditions()["warmup_s"]
        # Not longer than it has to be: twice the time that the clock takes, and the shortest there is.
        assert seconds * 0.97 <= warmup <= max(2 * seconds, 0.1)
        device.release()
        assert stand.said == []


def test_a_quick_plan_before_does_not_shorten_the_warm_up(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """The tool ends its warm-up, too, after --max_secs; and each plan has a warm-up of its own."""
    quick = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, max_seconds=0.5, patience_seconds=0)
    with standing(tmp_path / "phone", keys, System(), CUT + RAMP.replace("RAMP", "1.2")) as stand:
        device = stand.device()
        assert [sample.ms for sample in device.run(models[:1], replace(quick, warmup_seconds=0.0), 0)] == [1.8]
        assert [sample.ms for sample in device.run(models[:1], quick, 0)] == pytest.approx([1.0], rel=0.02)
        assert device.conditions()["warmup_s"] >= 1.2 * 0.97
        device.release()


def test_a_clock_that_never_is_steady_is_told(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    with standing(tmp_path / "phone", keys, System(), RAMP.replace("RAMP", "4")) as stand:
        device = stand.device()
        device.run(models[:1], MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, patience_seconds=0), 0)
        assert "still falls after 3.2 s of warm-up" in stand.said[0]
        device.release()


def test_a_phone_that_is_not_at_its_best_is_measured_and_told(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        device = stand.device()
        conditions = device.conditions()
        assert (conditions["warnings"], conditions["plugged"], conditions["battery_saver"]) == ([], True, None)
        stand.phone.set("low_power", "1")
        stand.phone.battery(usb=False)
        stand.phone.limit_clocks(1200)
        assert len(device.run(models, PLAN, 0)) == 3
        conditions = device.conditions()
        core = conditions["pinned"][0]
        assert conditions["warnings"] == [
            f"the clock of core {core} is limited to 1200 of 2800 MHz",
            "the battery saver is on",
            "the phone runs on its battery: no charger and no powered cable",
        ]
        assert [line.split(": ", 1)[1] for line in stand.said] == [
            f"{text}; latencies are those of this state" for text in conditions["warnings"]
        ]
        device.release()


def test_a_hot_case_counts_also_where_the_thermal_status_stays_zero(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        stand.phone.thermal(0, skin=43.5)
        device = stand.device()
        with pytest.raises(
            DeviceStateError, match=r"still is hot .battery 27 C, case 43\.5 C, processor 25\.6 C, "
        ):
            device.run(models, PLAN, 0)
        stand.phone.thermal(0, skin=33.0)
        assert len(device.run(models, PLAN, 0)) == 3
        assert device.conditions()["skin_c"] == 33.0
        device.release()


def test_a_good_state_is_read_again_after_a_while_only(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """Reading the state takes a part of the time of a block."""
    with standing(tmp_path / "phone", keys, System()) as stand:

        def readings() -> int:
            return stand.phone.log().count("settings get global low_power")

        device = stand.device(replace(WAITS, state=60.0))
        assert len(device.run(models, PLAN, 0)) == 3
        before = readings()
        assert len(device.run(models, PLAN, 0)) == 3
        assert readings() == before
        # The next contact after a lost connection reads it.
        stand.adbd.cut()
        assert len(device.run(models, PLAN, 0)) == 3
        assert readings() > before
        device.release()
        impatient = stand.device()
        impatient.run(models, PLAN, 0)
        before = readings()
        impatient.run(models, PLAN, 0)
        assert readings() > before
        impatient.release()
