"""The cores of a phone: what Linux tells of each, clusters of equal cores, and those to measure on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cars_hw.errors import DeviceError

CPUS: Final = "/sys/devices/system/cpu"

# One line a core, read by the shell itself: a list of files is printed in columns on a terminal.
READ_CORES: Final = (
    f"for d in {CPUS}/cpu[0-9]*; do l=${{d##*/}}; "
    "for f in online cpu_capacity cpufreq/cpuinfo_max_freq cpufreq/scaling_max_freq; do "
    'v=; { read -r v < "$d/$f"; } 2>/dev/null; l="$l ${v:-?}"; done; echo "$l"; done'
)
"""A command that prints of every core: its name, online (0 or 1), capacity, largest clock and its present limit in
kilohertz; a question mark is what it does not tell."""


def machine_commands(folder: str) -> dict[str, str]:
    """Return the commands that tell of any Linux machine its cores, memory and load, and the room in ``folder``.

    The names are those of :func:`cars_hw.devices.remote.ask`.
    """
    return {
        "cores": READ_CORES,
        "online": f"cat {CPUS}/online",
        "status": "cat /proc/self/status",
        "governor": f"cat {CPUS}/cpu0/cpufreq/scaling_governor",
        "memory": "cat /proc/meminfo",
        "storage": f"df -k {folder}",
        "load": "cat /proc/loadavg",
        "taskset": "command -v taskset",
    }


class Core(NamedTuple):
    """One core.

    Attributes:
        number: its number.
        is_online: whether it is switched on.
        is_allowed: whether the shell may run on it.
        capacity: its speed relative to the fastest core, whose capacity is 1024; None if not told.
        max_mhz: its largest clock in MHz; None if not told, as of a core that is switched off.
        limit_mhz: the largest clock that is allowed at present, in MHz; None if not told.
    """

    number: int
    is_online: bool = True
    is_allowed: bool = True
    capacity: int | None = None
    max_mhz: float | None = None
    limit_mhz: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a measurement can run on it now."""
        return self.is_online and self.is_allowed


def parse_cores(cores: str, online: str, status: str) -> tuple[Core, ...]:
    """Return the cores.

    Args:
        cores: the output of :data:`READ_CORES`.
        online: the list of cores that are switched on, such as ``0-3,6``; anything else is no such list.
        status: ``/proc/self/status`` of a process of the shell.
    """
    switched_on, allowed = core_list(online), allowed_cores(status)
    found = []
    for line in cores.splitlines():
        match = re.fullmatch(r"cpu(\d+) (\S+) (\S+) (\S+) (\S+)\s*", line)
        if match is None:
            continue
        number, own = int(match[1]), match[2]
        is_online = number in switched_on if switched_on is not None else own != "0"
        capacity, *clocks = (int(text) if text.isdecimal() and int(text) else None for text in match.groups()[2:])
        max_mhz, limit_mhz = (None if clock is None else clock / 1000 for clock in clocks)
        is_allowed = allowed is None or number in allowed
        found.append(Core(number, is_online, is_allowed, capacity, max_mhz, limit_mhz))
    return tuple(sorted(found))


def core_list(text: str) -> frozenset[int] | None:
    """Return the cores of a list such as ``0-3,6``; None if ``text`` is no such list."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            return None
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def allowed_cores(status: str) -> frozenset[int] | None:
    """Return the cores that a process may run on by its ``/proc/PID/status``; None if that does not tell."""
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.MULTILINE)
    return core_list(match[1]) if match else None


def clusters(cores: Iterable[Core]) -> list[list[Core]]:
    """Return ``cores`` in groups of equally fast ones, the fastest first: by capacity, or else by clock."""
    known = list(cores)
    by_capacity = all(core.capacity is not None for core in known)

    def speed(core: Core) -> float:
        return float((core.capacity if by_capacity else core.max_mhz) or 0.0)

    return [
        [core for core in known if speed(core) == one]
        for one in sorted({speed(core) for core in known}, reverse=True)
    ]


def fastest_cores(cores: Sequence[Core], count: int, name: str) -> list[int]:
    """Return the numbers of ``count`` cores to measure on: the fastest usable ones, all of one cluster if it has so
    many.

    The slowest of them decides how fast they are together. So if its cluster has enough cores, all come from there;
    of equally fast cores, the last.

    Raises:
        DeviceError: there are fewer; ``name`` is that of the phone.
    """
    usable = [core for core in cores if core.is_usable]
    if count > len(usable):
        lost = [core.number for core in cores if not core.is_usable]
        why = f", of which {', '.join(map(str, lost))} cannot be used now" if lost else ""
        raise DeviceError(f"{name} has {len(cores)} cores{why}, not {count}", remedy="fewer-threads")
    chosen: list[Core] = []
    for cluster in clusters(usable):
        if len(cluster) >= count:
            chosen = cluster[-count:]
            break
        chosen += cluster[max(len(cluster) - (count - len(chosen)), 0) :]
        if len(chosen) == count:
            break
    return sorted(core.number for core in chosen)


def describe(cores: Sequence[Core], chosen: Sequence[int]) -> str:
    """Return how many cores of which kind the ``chosen`` ones are, such as ``1 x 2850 MHz``."""
    kinds: dict[str, int] = {}
    for core in cores:
        if core.number in chosen:
            kind = "a core" if core.max_mhz is None else f"{core.max_mhz:g} MHz"
            kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
