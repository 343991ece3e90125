"""What an Android phone is and how it is, from what its own commands print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cars_hw.devices.remote import RemoteShell
from cars_hw.errors import DeviceError, DeviceStateError

CPUS: Final = "/sys/devices/system/cpu"
FOLDER: Final = "/data/local/tmp"
"""What the shell's user may write to and run from, on every phone."""

LEAST_BATTERY: Final = 15
"""Percent: below it phones slow themselves down."""

WARM_C: Final = 40.0
"""Degrees Celsius of the battery from which on phones slow themselves down."""

_PART: Final = "@cars-hw part"
_PARTS: Final = {
    "props": "getprop",
    "clocks": f"for f in {CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo $f $(cat $f 2>/dev/null); done",
    "cores": f"ls -d {CPUS}/cpu[0-9]*",
    "online": f"cat {CPUS}/online",
    "governor": f"cat {CPUS}/cpu0/cpufreq/scaling_governor",
    "memory": "cat /proc/meminfo",
    "storage": f"df -k {FOLDER}",
    "load": "cat /proc/loadavg",
    "taskset": "command -v taskset",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
}
_STATE: Final = ("battery", "thermal", "storage")


class PhoneState(NamedTuple):
    """How the phone is at this moment; None where it does not tell.

    Attributes:
        battery_percent: charge.
        battery_c: the battery's temperature in degrees Celsius.
        thermal_status: 0 is cool, 1 to 6 say how far the phone slows itself down.
        free_mb: room where models go.
    """

    battery_percent: int | None
    battery_c: float | None
    thermal_status: int | None
    free_mb: float | None

    @property
    def is_hot(self) -> bool:
        """Whether the phone slows itself down, or is about to."""
        return (self.thermal_status or 0) > 0 or (self.battery_c or 0.0) >= WARM_C

    def describe(self) -> str:
        """Return the temperatures for people."""
        battery = "unknown" if self.battery_c is None else f"{self.battery_c:g} C"
        return (
            f"battery {battery}, thermal status {self.thermal_status if self.thermal_status is not None else '?'}"
        )

    def require_charge(self, where: str) -> None:
        """Check the battery.

        Raises:
            DeviceStateError: there is too little in it.
        """
        if self.battery_percent is not None and self.battery_percent < LEAST_BATTERY:
            raise DeviceStateError(
                f"{where} has {self.battery_percent}% of its battery left, and phones slow down when it runs out; "
                f"charge it to {LEAST_BATTERY}% or more"
            )


class Phone(NamedTuple):
    """What the phone is.

    Attributes:
        serial: its own number.
        name: manufacturer, model and chip.
        android: version and API level.
        abi: what programs must be built for, such as arm64-v8a.
        clocks_mhz: the top clock of every core by number, None where it is not told.
        memory_mb: all of it.
        can_pin: whether it has ``taskset``.
        governor: what decides the clocks.
        load: over a minute, five and fifteen.
    """

    serial: str
    name: str
    android: str
    abi: str
    clocks_mhz: Mapping[int, float | None]
    memory_mb: float | None
    can_pin: bool
    governor: str | None
    load: Sequence[float] | None

    def fastest(self, count: int) -> list[int]:
        """Return the numbers of the ``count`` fastest cores, of equal ones the last.

        Raises:
            DeviceError: there are not so many.
        """
        if count > len(self.clocks_mhz):
            raise DeviceError(f"{self.name} has {len(self.clocks_mhz)} cores, not {count}", remedy="fewer-threads")
        ranked = sorted(self.clocks_mhz, key=lambda core: (self.clocks_mhz[core] or 0.0, core))
        return sorted(ranked[-count:])


def look(shell: RemoteShell) -> tuple[Phone, PhoneState]:
    """Return what the phone behind ``shell`` is and how it is, in one call.

    Raises:
        DeviceError: the connection fails, or this is no phone.
    """
    parts = _ask(shell, tuple(_PARTS))
    props = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]\s*$", parts["props"], re.MULTILINE))
    if "ro.product.model" not in props and "ro.build.version.sdk" not in props:
        raise DeviceError(f"{shell.where} does not say what it is; is it an Android phone?")
    chip = props.get("ro.soc.model") or props.get("ro.board.platform") or props.get("ro.hardware") or "?"
    maker, model = props.get("ro.product.manufacturer", ""), props.get("ro.product.model", "?")
    clocks: dict[int, float | None] = {}
    online = _cores(parts["online"])
    for number in re.findall(r"/cpu(\d+)\s*$", parts["cores"], re.MULTILINE):
        if online is None or int(number) in online:
            clocks[int(number)] = None
    for number, kilohertz in re.findall(r"/cpu(\d+)/cpufreq/cpuinfo_max_freq (\d+)", parts["clocks"]):
        if int(number) in clocks:
            clocks[int(number)] = int(kilohertz) / 1000
    memory = re.search(r"^MemTotal: +(\d+) kB", parts["memory"], re.MULTILINE)
    load = re.match(r"([\d.]+) ([\d.]+) ([\d.]+) ", parts["load"].strip())
    governor = parts["governor"].strip()
    phone = Phone(
        serial=props.get("ro.serialno") or props.get("ro.boot.serialno") or "",
        name=f"{model if model.lower().startswith(maker.lower()) else f'{maker} {model}'} ({chip})",
        android=f"Android {props.get('ro.build.version.release', '?')} (API "
        f"{props.get('ro.build.version.sdk', '?')})",
        abi=props.get("ro.product.cpu.abi", "?"),
        clocks_mhz=clocks,
        memory_mb=round(int(memory[1]) / 1024) if memory else None,
        can_pin=bool(parts["taskset"].strip()),
        governor=governor if re.fullmatch(r"\w+", governor) else None,
        load=[float(value) for value in load.groups()] if load else None,
    )
    return phone, _state(parts)


def look_again(shell: RemoteShell) -> PhoneState:
    """Return how the phone is now.

    Raises:
        DeviceError: the connection fails.
    """
    return _state(_ask(shell, _STATE))


def _ask(shell: RemoteShell, names: Sequence[str]) -> dict[str, str]:
    """Return what the phone says to each of ``names``, in one call: the way there takes longer than the work."""
    command = "; ".join(f"echo; echo {_PART} {name}; {_PARTS[name]} 2>/dev/null" for name in names)
    found = re.split(rf"^{_PART} (\w+)\s*$", shell.call(command).output, flags=re.MULTILINE)
    return dict.fromkeys(names, "") | dict(zip(found[1::2], found[2::2], strict=True))


def _state(parts: Mapping[str, Any]) -> PhoneState:
    battery = dict(re.findall(r"^ *([\w ]+): (-?\w+)\s*$", parts["battery"], re.MULTILINE))
    level, scale, tenths = battery.get("level", ""), battery.get("scale", "100"), battery.get("temperature", "")
    has_battery = battery.get("present") != "false" and level.isdecimal() and scale.isdecimal() and int(scale) > 0
    status = re.search(r"^ *Thermal Status: (\d+)", parts["thermal"], re.MULTILINE)
    # -99.9 and 0.0 are what phones say that do not know.
    known = has_battery and re.fullmatch(r"-?\d+", tenths) is not None and int(tenths) not in (0, -999)
    return PhoneState(
        battery_percent=100 * int(level) // int(scale) if has_battery else None,
        battery_c=int(tenths) / 10 if known else None,
        thermal_status=int(status[1]) if status else None,
        free_mb=_free_mb(parts["storage"]),
    )


def _free_mb(output: str) -> float | None:
    """Return the fourth column of df's last line, which may begin on the line before if a name is long."""
    fields = " ".join(output.strip().splitlines()[1:]).split()
    if len(fields) >= 4 and fields[3].isdecimal():
        return int(fields[3]) / 1024
    return None


def _cores(text: str) -> set[int] | None:
    """Return the cores of a list such as ``0-3,6``, None if it is none."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            return None
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
