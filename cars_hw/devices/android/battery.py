"""The energy that a phone takes from its battery, by the counters of its fuel gauge.

Linux has them below ``/sys/class/power_supply``, in millionths of a volt, an ampere and so on; makers also have
thousandths, and either sign for a current that discharges. The unit follows from the size of the figures: a cell
has 2.5 to 5 volts, a phone a battery of 300 mAh to 30 Ah. Where the shell must not read these files, the battery
service tells the charge in microampere-hours and the voltage in millivolts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from cars_hw.config.measurement import Meter
from cars_hw.devices.energy import Reading
from cars_hw.errors import DeviceError, DeviceStateError

SUPPLIES: Final = "/sys/class/power_supply"

EVERY_S: Final = 2
"""The counters are read so often, in seconds."""

MOST_APART_S: Final = 10.0
"""A phone that looks later is suspended between, and its power is that of sleep."""

LEAST_WATTS: Final = 0.02
MOST_WATTS: Final = 40.0
"""No phone takes less or more: a unit would be wrong."""

APART: Final = 1.5
"""Charge and current, where a phone tells both, must agree within this factor."""

# The tool is in the background, so that its output does not come between the rows and its number is known.
FUNCTIONS: Final = r"""
first_in() {
  first=
  for file; do
    { read -r first < "$file"; } 2>/dev/null
    [ -n "$first" ] && return 0
  done
  return 0
}
meter_row() {
  { uptime_s 1<> HERE/lock/seen; } 2>/dev/null
  supply=SUPPLIES/battery
  second= rest=
  { read -r second rest < /proc/uptime; } 2>/dev/null
  first_in $supply/charge_counter $supply/charge_now; charge=$first
  first_in $supply/current_now; current=$first
  first_in $supply/voltage_now; voltage=$first
  first_in $supply/energy_now; energy=$first
  first_in $supply/capacity; level=$first
  plugged=
  for online in SUPPLIES/*/online; do
    # That of the battery itself does not tell whether there is a charger.
    case $online in */battery/online) continue ;; esac
    first_in "$online"
    # 1 is a fixed voltage, 2 one that the phone chooses.
    case $first in "") ;; 0) plugged=${plugged:-0} ;; *) plugged=1 ;; esac
  done
  first_in $supply/status
  case $first in Charging|Full) plugged=1 ;; esac
  echo "@meter $second / $charge / $current / $voltage / $energy / $level / $plugged"
  if [ -z "$charge$energy$current" ] || [ -z "$plugged" ]; then
    dumpsys battery 2>/dev/null | while read -r line; do echo "@service $line"; done
  fi
}
rest_metered() {
  left=$2
  while [ "$left" -gt 0 ]; do meter_row; sleep $1; left=$((left - 1)); done
  meter_row
}
metered() {
  every=$1
  shift
  "$@" > model_said 2>&1 &
  model=$!
  echo $model > metered
  meter_row
  while kill -0 $model 2>/dev/null; do sleep $every; meter_row; done
  wait $model
  status=$?
  rm -f metered
  cat model_said
  return $status
}""".strip().replace("SUPPLIES", SUPPLIES)
"""Shell functions: ``rest_metered SECONDS TIMES`` and ``metered SECONDS COMMAND`` print rows of the counters.

A window may be longer than the time after which a lock is free, so every row renews it.
"""

AFTER: Final = '{ read -r model < metered; } 2>/dev/null && kill -9 "$model" 2>/dev/null; rm -f metered'
"""What ends a tool whose script is stopped."""


class Row(NamedTuple):
    """One look at the counters, as the phone writes them; None is what it does not tell."""

    second: float
    charge: int | None
    current: int | None
    voltage: int | None
    energy: int | None
    level: int | None
    plugged: bool | None


def parse_rows(output: str, where: str) -> list[Row]:
    """Return the rows in the ``output`` of the shell functions.

    Raises:
        DeviceError: there is none.
        DeviceStateError: the phone is on a charger, or slept, or its battery service was told to say something.
    """
    rows: list[Row] = []
    for line in output.splitlines():
        if found := re.fullmatch(r"@meter ([\d.]+) / (.*)", line.strip()):
            charge, current, voltage, energy, level, plugged = (part.strip() for part in found[2].split("/"))
            rows.append(
                Row(
                    float(found[1]),
                    charge=_whole(charge),
                    current=_whole(current),
                    voltage=_whole(voltage),
                    energy=_whole(energy),
                    level=_whole(level),
                    plugged={"0": False, "1": True}.get(plugged),
                )
            )
        elif rows and line.strip().startswith("@service "):
            rows[-1] = _with_service(rows[-1], line.strip().removeprefix("@service ").strip(), where)
    if not rows:
        raise DeviceError(f"{where} does not tell anything of its battery")
    if any(row.plugged for row in rows):
        raise DeviceStateError(
            f"{where} is on a charger or a powered cable, and its battery does not give what it takes; "
            "unplug it, and connect over the network",
            remedy="phone-by-network",
        )
    asleep = max((after.second - before.second for before, after in pairwise(rows)), default=0.0)
    if asleep > MOST_APART_S:
        raise DeviceStateError(
            f"{where} did not look at its battery for {asleep:.0f} s: it slept meanwhile; keep its screen on"
        )
    return rows


def _with_service(row: Row, line: str, where: str) -> Row:
    if "UPDATES STOPPED" in line:
        raise DeviceStateError(
            f"the battery service of {where} was told to stop, and says what it was told; run on the phone: "
            "dumpsys battery reset"
        )
    name, _, value = line.partition(": ")
    match name:
        case "Charge counter" if row.charge is None:
            return row._replace(charge=_whole(value))
        case "voltage" if row.voltage is None:
            return row._replace(voltage=_whole(value))
        case "level" if row.level is None:
            return row._replace(level=_whole(value))
        case _ if name.endswith(" powered"):
            return row._replace(plugged=bool(row.plugged) or value.strip() == "true")
    return row


def meter_of(rows: Sequence[Row], wanted: Meter, where: str) -> Meter:
    """Return what tells the energy in ``rows``: ``wanted``, or for ``auto`` the first of the meters.

    Raises:
        DeviceError: nothing does, or it is not known that the phone is unplugged.
    """
    first = rows[0]
    if first.plugged is None:
        raise DeviceError(f"{where} does not tell whether it is on a charger")
    has: dict[Meter, bool] = {
        "energy": first.energy is not None,
        "charge": None not in (first.charge, first.voltage),
        "current": None not in (first.current, first.voltage),
    }
    found = next((meter for meter, there in has.items() if there and wanted in ("auto", meter)), None)
    if found is None:
        what = "energy, charge or current" if wanted == "auto" else wanted
        raise DeviceError(f"{where} does not tell the {what} of its battery to the shell")
    return found


def readings_of(rows: Sequence[Row], meter: Meter, where: str) -> list[Reading]:
    """Return the energy in joules that left the battery, at the time of each of ``rows``, by ``meter``.

    Raises:
        DeviceError: figures are missing, or are none of a phone.
        DeviceStateError: the battery gained meanwhile.
    """
    if meter == "energy":
        return _falling([(row.second, 3.6e-3 * _told(row.energy, meter, where)) for row in rows], where)
    volts = [_volts(_told(row.voltage, "voltage", where), where) for row in rows]
    charges = _coulombs(rows, where) if all(row.charge is not None for row in rows) else None
    if meter == "charge":
        if charges is None:
            raise DeviceError(f"{where} did not tell the charge of its battery each time")
        mean = sum(volts) / len(volts)
        # By one voltage: it has noise, and the steps of the charge are what is counted.
        return _falling([(row.second, mean * charge) for row, charge in zip(rows, charges, strict=True)], where)
    amperes = _amperes([_told(row.current, "current", where) for row in rows], where)
    found = [Reading(rows[0].second, 0.0)]
    for place, (before, after) in enumerate(pairwise(rows)):
        watts = (amperes[place] * volts[place] + amperes[place + 1] * volts[place + 1]) / 2
        found.append(Reading(after.second, found[-1].joules + watts * (after.second - before.second)))
    if charges is not None:
        _require_agreement(found, volts, charges, where)
    return found


def require_power(watts: float, where: str) -> None:
    """Check that a phone can take so many watts.

    Raises:
        DeviceError: it cannot.
    """
    if watts and not LEAST_WATTS <= watts <= MOST_WATTS:
        raise DeviceError(
            f"the battery of {where} gives {watts:.3g} W by its counters, which no phone takes: its units are not "
            "known"
        )


def _falling(stored: Sequence[tuple[float, float]], where: str) -> list[Reading]:
    """Return readings of what left the battery. Some makers count what has left, and not what is there."""
    taken = [stored[0][1] - joules for _, joules in stored]
    if taken[-1] < 0:
        taken = [-joules for joules in taken]
    if any(after < before for before, after in pairwise(taken)):
        raise DeviceStateError(f"the battery of {where} lost and gained meanwhile; is it on a charger?")
    return [Reading(second, joules) for (second, _), joules in zip(stored, taken, strict=True)]


def _volts(voltage: int, where: str) -> float:
    for unit in (1e-6, 1e-3):
        # One cell, or two in a row.
        if 2.5 <= voltage * unit <= 10.0:
            return voltage * unit
    raise DeviceError(f"{where} tells a voltage of {voltage}, which is of no battery in mV or \N{MICRO SIGN}V")


def _coulombs(rows: Sequence[Row], where: str) -> list[float]:
    first = rows[0]
    charge, level = _told(first.charge, "charge", where), first.level
    if not level or charge == 0:
        raise DeviceError(f"{where} does not tell how full its battery is, and so not the unit of its charge")
    # From a level of a few percent, the capacity would be off by much.
    capacity = abs(charge) / (level / 100)
    for unit in (1e-6, 1e-3):
        if 0.3 <= capacity * unit <= 30:
            return [3600 * unit * _told(row.charge, "charge", where) for row in rows]
    raise DeviceError(
        f"{where} tells a charge of {charge} at {level}%, which is of no phone in mAh or \N{MICRO SIGN}Ah"
    )


def _amperes(currents: Sequence[int], where: str) -> list[float]:
    if any(current > 0 for current in currents) and any(current < 0 for current in currents):
        raise DeviceStateError(f"the current of the battery of {where} changed its direction; is it on a charger?")
    sizes = [abs(current) for current in currents]
    middle = sorted(sizes)[len(sizes) // 2]
    # 10 to 15,000 mA; the same in millionths begins at 10,000.
    if 10 <= middle < 10_000:
        unit = 1e-3
    elif 15_000 < middle <= 15_000_000:
        unit = 1e-6
    else:
        raise DeviceError(f"{where} tells a current of {middle}, which is of no phone in mA or \N{MICRO SIGN}A")
    return [unit * size for size in sizes]


def _require_agreement(
    found: Sequence[Reading], volts: Sequence[float], charges: Sequence[float], where: str
) -> None:
    """Check the unit of the current by the charge, where that moved enough to tell."""
    steps = len(set(charges))
    by_charge = abs(charges[-1] - charges[0]) * sum(volts) / len(volts)
    by_current = found[-1].joules
    if steps > 3 and not by_charge / APART <= by_current <= by_charge * APART:
        raise DeviceError(
            f"the battery of {where} gave {by_charge:.4g} J by its charge and {by_current:.4g} J by its current, "
            "which do not agree; measure by the charge",
            remedy="meter-charge",
        )


def _told(value: int | None, what: str, where: str) -> int:
    if value is None:
        raise DeviceError(f"{where} did not tell the {what} of its battery each time")
    return value


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text.strip()) else None
