"""What phones and boards print of their heat, and what is understood of it."""

from __future__ import annotations

import pytest

from cars_hw.devices.android.clocks import FEWEST_READINGS, ClockWatch
from cars_hw.devices.android.heat import Heat, degrees, parse_heat

SERVICE = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
	Temperature{mValue=91.0, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=48.5, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=51.25, mType=0, mName=CPU7, mStatus=0}
	Temperature{mValue=27.0, mType=2, mName=battery, mStatus=0}
	Temperature{mValue=-99.9, mType=3, mName=skin2, mStatus=0}
	Temperature{mValue=36.1, mType=3, mName=skin, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=2, mType=2, mName=thermal-cpufreq-2}
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
	CoolingDevice{mValue=3, mType=3, mName=gpu}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=3, mName=skin, mHotThrottlingThresholds=[NaN, 39.0, 43.0]}
"""
ZONES = """\
@zone 47250 cpu-1-7-usr
@zone 33 skin-therm
@zone 312 battery
@zone -40000 tsens_tz_sensor9
@zone 150000 soc_broken
@cooling 1 cpufreq-cpu4
@cooling 0 cpu-cluster0
@cooling 5 gpu
@cooling 1 pwm-fan
"""

ROWS = {
    "a service with sensors": (SERVICE, Heat(0, 36.1, 51.2, ("thermal-cpufreq-2",))),
    "a service without sensors, and zones": (
        f"Thermal Status: 2\nHAL Ready: false\n{ZONES}",
        Heat(2, 33.0, 47.2, ("cpufreq-cpu4",)),
    ),
    "no service, and zones": (
        f"Can't find service: thermalservice\n{ZONES}",
        Heat(None, 33.0, 47.2, ("cpufreq-cpu4",)),
    ),
    "zones of a terminal": (ZONES.replace("\n", "\r\n"), Heat(None, 33.0, 47.2, ("cpufreq-cpu4",))),
    "nothing": ("Can't find service: thermalservice\n", Heat()),
    "a board": ("@zone 54200 cpu-thermal\n@cooling 0 Processor\n", Heat(None, None, 54.2, ())),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_is_printed_is_understood(name: str) -> None:
    output, expected = ROWS[name]
    assert parse_heat(output) == expected


@pytest.mark.parametrize(
    ("text", "value"), [("47250", 47.25), ("312", 31.2), ("33", 33.0), ("-40000", -40.0), ("0", 0.0)]
)
def test_zones_have_thousandths_tenths_or_whole_degrees(text: str, value: float) -> None:
    assert degrees(text) == value


def watched(*readings: float | None) -> ClockWatch:
    watch = ClockWatch()
    for reading in readings:
        watch.add(reading)
    return watch


def test_a_clock_below_its_largest_is_told_once_there_are_enough_readings() -> None:
    assert watched(*[1400.0] * (FEWEST_READINGS - 1)).shortfall(7, 2800.0) is None
    assert watched(*[1400.0] * FEWEST_READINGS).shortfall(7, 2800.0) == (
        "the clock of core 7 reached 1400 of 2800 MHz while models ran"
    )
    # Once it was there, what came later is the matter of the states.
    assert watched(*[1400.0] * FEWEST_READINGS, 2750.0).shortfall(7, 2800.0) is None
    assert watched(*[None] * 50).shortfall(7, 2800.0) is None
    assert watched(*[1400.0] * FEWEST_READINGS).shortfall(7, None) is None
