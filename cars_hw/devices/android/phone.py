"""The properties and the state of an Android phone, from the output of its commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cars_hw.devices.android.cores import Core, allowed_cores, core_list, machine_commands, parse_cores
from cars_hw.devices.android.heat import READ_SERVICE, parse_heat
from cars_hw.devices.remote import RemoteShell, ask
from cars_hw.errors import DeviceError, DeviceStateError

FOLDER: Final = "/data/local/tmp"
"""The folder on every phone in which the user of the shell may write and run files."""

MIN_BATTERY_PERCENT: Final = 15
"""Below this charge phones reduce their speed."""

WARM_C: Final = 40.0
"""From this temperature of the battery on, in degrees Celsius, phones reduce their speed."""

WARM_SKIN_C: Final = 42.0
"""From this temperature of the case on, in degrees Celsius, phones reduce their speed, also with a status of 0."""

_PARTS: Final = {
    "props": "getprop",
    **machine_commands(FOLDER),
    "battery": "dumpsys battery",
    "thermal": READ_SERVICE,
    "saver": "settings get global low_power",
    "doze": "dumpsys deviceidle get deep",
    "group": "cat /proc/self/cpuset",
}
_STATE: Final = ("battery", "thermal", "storage", "cores", "online", "status", "saver", "doze")

_DOZES: Final = frozenset({"IDLE", "IDLE_MAINTENANCE"})
_KNOWN_DOZE: Final = _DOZES | {"ACTIVE", "INACTIVE", "IDLE_PENDING", "SENSING", "LOCATING", "QUICK_DOZE_DELAY"}


class PhoneState(NamedTuple):
    """The present state of a phone; None is what the phone does not report.

    Attributes:
        battery_percent: the charge of the battery.
        battery_c: the temperature of the battery in degrees Celsius.
        thermal_status: 0 is cool; 1 to 6 are the levels of thermal throttling.
        free_mb: the free storage for models in MB.
        online: the cores that are switched on.
        allowed: the cores on which the shell may run.
        skin_c: the temperature of the case in degrees Celsius.
        is_plugged: whether a charger, a computer or a wireless charger powers the phone.
        is_saving: whether the battery saver is on.
        is_dozing: whether the phone is in doze, in which it idles with its screen off.
        processor_c: the temperature of the hottest sensor of the processor in degrees Celsius.
        cooling: the names of the cooling devices that lower the clock of the processor.
        notes: other reasons why it is slower than it could be.
        limits_mhz: for each core whose clock is limited at present, its limit and its largest clock in MHz.
    """

    battery_percent: int | None
    battery_c: float | None
    thermal_status: int | None
    free_mb: float | None
    online: frozenset[int] | None = None
    allowed: frozenset[int] | None = None
    skin_c: float | None = None
    is_plugged: bool | None = None
    is_saving: bool | None = None
    is_dozing: bool | None = None
    processor_c: float | None = None
    cooling: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    limits_mhz: Mapping[int, tuple[float, float]] = MappingProxyType({})

    def warnings(self, cores: Sequence[int]) -> list[str]:
        """Return why a latency on ``cores`` is not that of the phone at its best, each in a few words."""
        found = [
            f"the clock of core {core} is limited to {limit:g} of {largest:g} MHz"
            for core, (limit, largest) in self.limits_mhz.items()
            if core in cores
        ]
        if self.is_saving:
            found.append("the battery saver is on")
        if self.is_plugged is False:
            found.append("the phone runs on its battery: no charger and no powered cable")
        return [*found, *self.notes]

    def missing(self, cores: Sequence[int]) -> str | None:
        """Return which of ``cores`` cannot be used now and why; None if all can."""
        for known, how in ((self.online, "switched off"), (self.allowed, "closed to the shell by a cpuset")):
            lost = [core for core in cores if known is not None and core not in known]
            if lost:
                return f"{'core' if len(lost) == 1 else 'cores'} {', '.join(map(str, lost))} {how}"
        return None

    @property
    def is_hot(self) -> bool:
        """Whether the phone reduces its speed because of heat, or is about to."""
        return (
            (self.thermal_status or 0) > 0
            or (self.battery_c or 0.0) >= WARM_C
            or (self.skin_c or 0.0) >= WARM_SKIN_C
        )

    def temperatures(self) -> dict[str, float]:
        """Return what is known of the temperatures in degrees Celsius, by part."""
        known = {"battery": self.battery_c, "case": self.skin_c, "processor": self.processor_c}
        return {part: value for part, value in known.items() if value is not None}

    def describe(self) -> str:
        """Return the temperatures as text."""
        known = ", ".join(f"{part} {value:g} C" for part, value in self.temperatures().items())
        status = "?" if self.thermal_status is None else self.thermal_status
        return f"{known or 'temperature unknown'}, thermal status {status}"

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
        cores: all cores, also those that cannot be used now.
        memory_mb: the memory in MB.
        can_pin: whether the phone has ``taskset``.
        governor: the CPU frequency governor.
        load: the load averages over 1, 5 and 15 minutes.
        group: the group of the scheduler that the shell is in, such as ``/foreground``; None if not reported.
    """

    serial: str
    name: str
    android: str
    abi: str
    cores: tuple[Core, ...]
    memory_mb: float | None
    can_pin: bool
    governor: str | None
    load: Sequence[float] | None
    group: str | None = None


def read_phone(shell: RemoteShell) -> tuple[Phone, PhoneState]:
    """Return properties and state of the phone behind ``shell``, in one call.

    Raises:
        DeviceError: the connection fails, or the machine is no Android phone.
    """
    parts = ask(shell, _PARTS)
    props = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]\s*$", parts["props"], re.MULTILINE))
    if "ro.product.model" not in props and "ro.build.version.sdk" not in props:
        raise DeviceError(f"{shell.where} does not say what it is; is it an Android phone?")
    chip = props.get("ro.soc.model") or props.get("ro.board.platform") or props.get("ro.hardware") or "?"
    maker, model = props.get("ro.product.manufacturer", ""), props.get("ro.product.model", "?")
    memory = re.search(r"^MemTotal: +(\d+) kB", parts["memory"], re.MULTILINE)
    load = re.match(r"([\d.]+) ([\d.]+) ([\d.]+) ", parts["load"].strip())
    governor = parts["governor"].strip()
    phone = Phone(
        serial=props.get("ro.serialno") or props.get("ro.boot.serialno") or "",
        name=f"{model if model.lower().startswith(maker.lower()) else f'{maker} {model}'} ({chip})",
        android=f"Android {props.get('ro.build.version.release', '?')} (API "
        f"{props.get('ro.build.version.sdk', '?')})",
        abi=props.get("ro.product.cpu.abi", "?"),
        cores=parse_cores(parts["cores"], parts["online"], parts["status"]),
        memory_mb=round(int(memory[1]) / 1024) if memory else None,
        can_pin=bool(parts["taskset"].strip()),
        governor=governor if re.fullmatch(r"\w+", governor) else None,
        load=[float(value) for value in load.groups()] if load else None,
        group=group if (group := parts["group"].strip()).startswith("/") else None,
    )
    return phone, _state(parts)


def read_state(shell: RemoteShell) -> PhoneState:
    """Return the present state of the phone.

    Raises:
        DeviceError: the connection fails.
    """
    return _state(ask(shell, {name: _PARTS[name] for name in _STATE}))


def _state(parts: Mapping[str, Any]) -> PhoneState:
    battery = _battery(parts["battery"])
    level, scale, tenths = battery.get("level", ""), battery.get("scale", "100"), battery.get("temperature", "")
    has_battery = battery.get("present") != "false" and level.isdecimal() and scale.isdecimal() and int(scale) > 0
    heat = parse_heat(parts["thermal"])
    # Phones without a sensor report -99.9 or 0.0.
    known = has_battery and re.fullmatch(r"-?\d+", tenths) is not None and int(tenths) not in (0, -999)
    return PhoneState(
        battery_percent=100 * int(level) // int(scale) if has_battery else None,
        battery_c=int(tenths) / 10 if known else None,
        thermal_status=heat.status,
        free_mb=free_mb(parts["storage"]),
        online=core_list(parts["online"]),
        allowed=allowed_cores(parts["status"]),
        skin_c=heat.skin_c,
        is_plugged=_is_plugged(parts["battery"]),
        is_saving={"0": False, "1": True}.get(parts["saver"].strip()),
        is_dozing=_is_dozing(parts["doze"]),
        processor_c=heat.processor_c,
        cooling=heat.cooling,
        notes=("it does not tell whether the battery saver is on",) if _is_unknown(parts["saver"]) else (),
        limits_mhz=limits_of(parse_cores(parts["cores"], parts["online"], parts["status"])),
    )


def limits_of(cores: Sequence[Core]) -> dict[int, tuple[float, float]]:
    """Return the limit and the largest clock, in MHz, of every core whose clock is limited."""
    return {
        core.number: (core.limit_mhz, core.max_mhz)
        for core in cores
        if core.limit_mhz is not None and core.max_mhz is not None and core.limit_mhz < core.max_mhz
    }


def _is_unknown(setting: str) -> bool:
    """Return whether the phone printed something else than the value of a switch; nothing is an old phone."""
    return setting.strip() not in ("", "null", "0", "1")


def _is_dozing(output: str) -> bool | None:
    """Return whether the phone is in doze by the one word that it prints; None if it prints something else."""
    word = output.strip()
    return word in _DOZES if word in _KNOWN_DOZE else None


def _is_plugged(output: str) -> bool | None:
    """Return whether any source powers the phone; None if the battery service does not tell."""
    sources = re.findall(r"^[ \t]*\w+ powered: (true|false)\s*$", output, re.MULTILINE)
    return "true" in sources if sources else None


def _battery(output: str) -> dict[str, str]:
    """Return the values of the battery service's own section; makers print sections of their own around it.

    A name that comes twice in the section has its first value.
    """
    own = re.search(r"^Current Battery Service state:.*$\n((?:[ \t].*\n?|\n)*)", output, re.MULTILINE)
    found: dict[str, str] = {}
    for name, value in re.findall(r"^[ \t]*([\w ]+): (-?\w+)\s*$", own[1] if own else output, re.MULTILINE):
        found.setdefault(name, value)
    return found


def free_mb(output: str) -> float | None:
    """Return the fourth column of the last row of df. A row with a long name has two lines."""
    fields = " ".join(output.strip().splitlines()[1:]).split()
    if len(fields) >= 4 and fields[3].isdecimal():
        return int(fields[3]) / 1024
    return None
