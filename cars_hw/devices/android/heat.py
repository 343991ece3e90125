"""What a phone or a board tells of its heat: temperatures, and the cooling devices that lower its clock.

Android's thermal service has a status, the temperatures of its sensors, and cooling devices. Its status is 0 on
many phones that throttle, and older phones have no such service. Linux has thermal zones and cooling devices below
``/sys/class/thermal``, which are read where the service has no temperatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

THERMAL: Final = "/sys/class/thermal"

# Read by the shell itself: a phone has up to a hundred zones, and a program for each would take seconds.
READ_ZONES: Final = (
    f"for d in {THERMAL}/thermal_zone*; do t=; v=; "
    '{ read -r t < "$d/type"; read -r v < "$d/temp"; } 2>/dev/null; [ -n "$v" ] && echo "@zone $v $t"; done; '
    f"for d in {THERMAL}/cooling_device*; do t=; v=; "
    '{ read -r t < "$d/type"; read -r v < "$d/cur_state"; } 2>/dev/null; [ -n "$v" ] && echo "@cooling $v $t"; '
    "done"
)
"""A command that prints the temperature and the type of every zone, and the level and the type of every cooling
device."""

READ_SERVICE: Final = (
    "{ t=$(dumpsys thermalservice); echo \"$t\"; case $t in *'Temperature{'*) ;; *) " + READ_ZONES + " ;; esac; }"
)
"""A command that prints what Android's thermal service reports, and the zones if that has no temperatures."""

_SENSOR: Final = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(\d+), mName=([^,]*), mStatus=\d+\}")
_COOLING: Final = re.compile(r"CoolingDevice\{mValue=(\d+), mType=(\d+), mName=([^,}]*)\}")
_CPU, _SKIN, _COOLS_CPU = 0, 3, 2
"""Types of sensors and of cooling devices in Android's interface to the hardware."""

_SKIN_ZONE: Final = re.compile(r"skin", re.IGNORECASE)
_CPU_ZONE: Final = re.compile(r"cpu|soc|pkg|tsens|^(?:big|mid|little)\b", re.IGNORECASE)
_CPU_COOLER: Final = re.compile(r"cpu|processor", re.IGNORECASE)


class Heat(NamedTuple):
    """What a machine tells of its heat; None is what it does not tell. Temperatures are in degrees Celsius.

    Attributes:
        status: 0 is cool; 1 to 6 are Android's levels of throttling.
        skin_c: the temperature of the case.
        processor_c: the temperature of the hottest sensor of the processor.
        cooling: the names of the cooling devices that lower the clock of the processor now.
    """

    status: int | None = None
    skin_c: float | None = None
    processor_c: float | None = None
    cooling: tuple[str, ...] = ()


def parse_heat(output: str) -> Heat:
    """Return what the output of :data:`READ_SERVICE` or :data:`READ_ZONES` tells."""
    status = re.search(r"^ *Thermal Status: (\d+)", output, re.MULTILINE)
    # The service prints the temperatures of before, too.
    _, _, present = output.rpartition("Current temperatures from HAL")
    sensors = [(float(value), int(kind)) for value, kind, _ in _SENSOR.findall(present)]
    zones = [
        (degrees(value), kind) for value, kind in re.findall(r"^@zone (-?\d+) (.*?)\s*$", output, re.MULTILINE)
    ]
    _, _, coolers = output.rpartition("Current cooling devices from HAL")
    cooling = [(int(level), name) for level, kind, name in _COOLING.findall(coolers) if int(kind) == _COOLS_CPU]
    cooling += [
        (int(level), name)
        for level, name in re.findall(r"^@cooling (\d+) (.*?)\s*$", output, re.MULTILINE)
        if _CPU_COOLER.search(name)
    ]
    return Heat(
        status=int(status[1]) if status else None,
        skin_c=_hottest(
            [value for value, kind in sensors if kind == _SKIN]
            + [value for value, kind in zones if _SKIN_ZONE.search(kind)]
        ),
        processor_c=_hottest(
            [value for value, kind in sensors if kind == _CPU]
            + [value for value, kind in zones if _CPU_ZONE.search(kind)]
        ),
        cooling=tuple(name for level, name in cooling if level > 0),
    )


def degrees(text: str) -> float:
    """Return the temperature of a zone in degrees Celsius: Linux has thousandths of a degree, some makers tenths or
    whole degrees."""
    value = int(text)
    return value / 1000 if abs(value) >= 1000 else value / 10 if abs(value) >= 200 else float(value)


def _hottest(values: Iterable[float]) -> float | None:
    """Return the largest of ``values``; sensors without a value report -99.9, 0.0, or what no phone survives."""
    known = [round(value, 1) for value in values if 0 < value < 130]
    return max(known) if known else None
