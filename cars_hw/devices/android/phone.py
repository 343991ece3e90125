"""The properties and the state of an Android phone, from the output of its commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cars_hw.devices.remote import RemoteShell
from cars_hw.errors import DeviceError, DeviceStateError

CPUS: Final = "/sys/devices/system/cpu"
FOLDER: Final = "/data/local/tmp"
"""The folder on every phone in which the user of the shell may write and run files."""

MIN_BATTERY_PERCENT: Final = 15
"""Below this charge phones reduce their speed."""

WARM_C: Final = 40.0
"""From this temperature of the battery on, in degrees Celsius, phones reduce their speed."""

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
    """The present state of a phone; None is what the phone does not report.

    Attributes:
        battery_percent: the charge of the battery.
        battery_c: the temperature of the battery in degrees Celsius.
        thermal_status: 0 is cool; 1 to 6 are the levels of thermal throttling.
        free_mb: the free storage for models in MB.
    """

    battery_percent: int | None
    battery_c: float | None
    thermal_status: int | None
    free_mb: float | None

    @property
    def is_hot(self) -> bool:
        """Whether the phone reduces its speed because of heat, or is about to."""
        return (self.thermal_status or 0) > 0 or (self.battery_c or 0.0) >= WARM_C

    def describe(self) -> str:
        """Return the temperatures as text."""
        battery = "unknown" if self.battery_c is None else f"{self.battery_c:g} C"
        return (
            f"battery {battery}, thermal status {self.thermal_status if self.thermal_status is not None else '?'}"
        )

    def require_charge(self, where: str) -> None:
        """Check the battery.

        Raises:
            DeviceStateError: the charge is too low.
        """
        if self.battery_percent is not None and self.battery_percent < MIN_BATTERY_PERCENT:
            raise DeviceStateError(
                f"{where} has {self.battery_percent}% of its battery left, and phones slow down when it runs out; "
                f"charge it to {MIN_BATTERY_PERCENT}% or more"
            )


class Phone(NamedTuple):
    """The properties of a phone.

    Attributes:
        serial: the serial number.
        name: manufacturer, model and chip.
        android: version and API level.
        abi: the binary interface that programs are built for, such as arm64-v8a.
        clocks_mhz: the maximum clock of every core by its number; None is one that is not reported.
        memory_mb: the memory in MB.
        can_pin: whether the phone has ``taskset``.
        governor: the CPU frequency governor.
        load: the load averages over 1, 5 and 15 minutes.
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
        """Return the numbers of the ``count`` fastest cores; of equally fast ones, the last.

        Raises:
            DeviceError: the phone has fewer cores.
        """
        if count > len(self.clocks_mhz):
            raise DeviceError(f"{self.name} has {len(self.clocks_mhz)} cores, not {count}", remedy="fewer-threads")
        ranked = sorted(self.clocks_mhz, key=lambda core: (self.clocks_mhz[core] or 0.0, core))
        return sorted(ranked[-count:])


def read_phone(shell: RemoteShell) -> tuple[Phone, PhoneState]:
    """Return properties and state of the phone behind ``shell``, in one call.

    Raises:
        DeviceError: the connection fails, or the machine is no Android phone.
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


def read_state(shell: RemoteShell) -> PhoneState:
    """Return the present state of the phone.

    Raises:
        DeviceError: the connection fails.
    """
    return _state(_ask(shell, _STATE))


def _ask(shell: RemoteShell, names: Sequence[str]) -> dict[str, str]:
    """Return the output for each of ``names``, in one call: a call costs more than its commands."""
    command = "; ".join(f"echo; echo {_PART} {name}; {_PARTS[name]} 2>/dev/null" for name in names)
    found = re.split(rf"^{_PART} (\w+)\s*$", shell.call(command).output, flags=re.MULTILINE)
    return dict.fromkeys(names, "") | dict(zip(found[1::2], found[2::2], strict=True))


def _state(parts: Mapping[str, Any]) -> PhoneState:
    battery = dict(re.findall(r"^ *([\w ]+): (-?\w+)\s*$", parts["battery"], re.MULTILINE))
    level, scale, tenths = battery.get("level", ""), battery.get("scale", "100"), battery.get("temperature", "")
    has_battery = battery.get("present") != "false" and level.isdecimal() and scale.isdecimal() and int(scale) > 0
    status = re.search(r"^ *Thermal Status: (\d+)", parts["thermal"], re.MULTILINE)
    # Phones without a sensor report -99.9 or 0.0.
    known = has_battery and re.fullmatch(r"-?\d+", tenths) is not None and int(tenths) not in (0, -999)
    return PhoneState(
        battery_percent=100 * int(level) // int(scale) if has_battery else None,
        battery_c=int(tenths) / 10 if known else None,
        thermal_status=int(status[1]) if status else None,
        free_mb=_free_mb(parts["storage"]),
    )


def _free_mb(output: str) -> float | None:
    """Return the fourth column of the last row of df. A row with a long name has two lines."""
    fields = " ".join(output.strip().splitlines()[1:]).split()
    if len(fields) >= 4 and fields[3].isdecimal():
        return int(fields[3]) / 1024
    return None


def _cores(text: str) -> set[int] | None:
    """Return the cores of a list such as ``0-3,6``; None if ``text`` is no such list."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            return None
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
