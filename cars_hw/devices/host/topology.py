"""The processor's cores as Linux describes them, and those that a measurement is pinned to.

See Documentation/admin-guide/cputopology.rst and Documentation/ABI/testing/sysfs-devices-system-cpu of Linux.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cars_hw.devices.host.cgroup import cpu_quota
from cars_hw.errors import InputError

_CPUS: Final = Path("sys/devices/system/cpu")

_INTEL_KINDS: Final = ("cpu_core", "cpu_atom", "cpu_lowpower")
"""The performance counters of Intel's hybrid processors, which list the cores of each kind; the fastest first."""

SAME_SPEED: Final = 0.92
"""Cores are of one kind if their speeds, sorted, nowhere fall below this share of the next faster one.

Favoured cores of one kind have up to 6% more clock than the others (Core i9-13900K: 5.8 and 5.5 GHz); kinds are 10%
apart or more (Core Ultra 5 225F: 4.9 and 4.4 GHz; Snapdragon 855: capacities 1024 and 871).
"""


@dataclass(frozen=True)
class Core:
    """A physical core: its hardware threads that are online, and the cluster that it is in.

    ``cluster`` sorts: the fastest kind of core first.
    """

    threads: tuple[int, ...]
    cluster: tuple[int, ...]


@dataclass(frozen=True)
class Pinning:
    """What a measurement may use, and uses.

    ``cores`` are the hardware threads that it is pinned to, one for each of its threads, or None if the system
    cannot pin. ``siblings`` are the other hardware threads of the same physical cores. ``allowed`` are those that
    this process may use, ``online`` is their number in the machine (0: unknown), and ``quota`` is the share that a
    container may use, in processors.
    """

    cores: tuple[int, ...] | None
    siblings: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()
    online: int = 0
    quota: float | None = None

    def conditions(self) -> dict[str, Any]:
        """Return ``pinned``, ``siblings``, ``cpuset`` (None: all) and ``cpu_quota`` (None: no limit) for JSON."""
        return {
            "pinned": "not possible here" if self.cores is None else list(self.cores),
            "siblings": list(self.siblings),
            "cpuset": list(self.allowed) if len(self.allowed) < self.online else None,
            "cpu_quota": self.quota,
        }

    def __str__(self) -> str:
        if self.cores is None:
            return "cannot be pinned here"
        words = [f"pinned to core{'s' if len(self.cores) > 1 else ''} {_text(self.cores)}"]
        if self.siblings:
            words[0] += f" (sibling{'s' if len(self.siblings) > 1 else ''} {_text(self.siblings)})"
        if len(self.allowed) < self.online:
            words.append(f"this process may use {len(self.allowed)} of {self.online} cores")
        if self.quota is not None:
            words.append(f"CPU quota {self.quota:g}")
        return "; ".join(words)


def pin(threads: int, root: Path = Path("/"), allowed: Collection[int] | None = None) -> Pinning:
    """Return the hardware threads to pin a measurement of ``threads`` threads to.

    They are on as many physical cores, all of one cluster: the fastest one that has so many cores free. Among equal
    cores and clusters the last ones are taken, because the first core serves interrupts. ``allowed`` are the
    hardware threads that this process may use, by default its affinity, to which a container's cpuset belongs;
    ``root`` is the root of the file system.

    Raises:
        InputError: no cluster has so many cores that this process may use, or its CPU quota is less than
            ``threads``.
    """
    quota = cpu_quota(root)
    if quota is not None and quota < threads:
        limited = f"this process has a CPU quota of {quota:g} cores, and {_count(threads)} would be stopped halfway"
        if quota >= 1:
            raise InputError(limited, remedy="fewer-threads")
        raise InputError(f"{limited}; raise the quota")
    if allowed is None:
        if sys.platform == "darwin" or not hasattr(os, "sched_getaffinity"):
            return Pinning(None, quota=quota)
        allowed = os.sched_getaffinity(0)
    cores = read_cores(root, allowed)
    online = {thread for core in cores for thread in core.threads}
    usable = sorted(online & set(allowed))
    chosen = _choose(cores, set(usable), threads)
    pinned = sorted(max(set(core.threads) & set(usable)) for core in chosen)
    siblings = sorted({thread for core in chosen for thread in core.threads} - set(pinned))
    return Pinning(tuple(pinned), tuple(siblings), tuple(usable), len(online), quota)


def _choose(cores: Sequence[Core], usable: Collection[int], threads: int) -> list[Core]:
    """Return ``threads`` cores of one cluster; see :func:`pin`."""
    clusters: dict[tuple[int, ...], list[Core]] = {}
    for core in cores:
        if not set(core.threads).isdisjoint(usable):
            clusters.setdefault(core.cluster, []).append(core)
    large_enough = [cluster for cluster, free in clusters.items() if len(free) >= threads]
    if not large_enough:
        most = max((len(free) for free in clusters.values()), default=0)
        raise InputError(
            f"{_count(threads)} would need as many physical cores of one kind, and this process may use {most}",
            remedy="fewer-threads" if most else None,
        )
    kind = min(cluster[0] for cluster in large_enough)
    last = max(cluster for cluster in large_enough if cluster[0] == kind)
    return sorted(clusters[last], key=lambda core: core.threads)[-threads:]


def read_cores(root: Path, allowed: Collection[int]) -> list[Core]:
    """Return the physical cores that are online.

    Where the system describes no topology, as in some virtual machines, each hardware thread counts as a core of
    the same cluster; where it does not say which are online, those of ``allowed`` are.
    """
    folder = root / _CPUS
    online = _listed(folder / "online") or sorted(allowed)
    kinds = _kinds(root, online)
    shared = {cpu: _siblings(folder / f"cpu{cpu}/topology", cpu) & set(online) for cpu in online}
    places = {cpu: (kinds[cpu], _package(folder, cpu), _node(folder, cpu)) for cpu in online}
    found = _clusters(folder, shared, places)
    firsts = sorted({min(threads) for threads in shared.values()})
    return [Core(tuple(sorted(shared[cpu])), (*places[cpu], found[cpu])) for cpu in firsts]


def _kinds(root: Path, online: Sequence[int]) -> dict[int, int]:
    """Return the kind of each hardware thread, 0 for the fastest: by Intel's lists, then by capacity or clock."""
    intel = dict.fromkeys(online, 0)
    for number, name in enumerate(_INTEL_KINDS):
        intel.update(dict.fromkeys(_listed(root / "sys/devices" / name / "cpus"), number))
    speeds = _speeds(root / _CPUS, online)
    steps = sorted({(intel[cpu], -speeds[cpu]) for cpu in online})
    kind = dict.fromkeys(steps[:1], 0)
    for before, step in pairwise(steps):
        same = step[0] == before[0] and step[1] <= SAME_SPEED * before[1]
        kind[step] = kind[before] + (not same)
    return {cpu: kind[intel[cpu], -speeds[cpu]] for cpu in online}


def _speeds(folder: Path, online: Sequence[int]) -> dict[int, int]:
    """Return the capacity of each hardware thread, or its highest clock; 0 for all unless each has one."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        found = {cpu: _number(folder / f"cpu{cpu}" / name) or 0 for cpu in online}
        if all(speed > 0 for speed in found.values()):
            return found
    return dict.fromkeys(online, 0)


def _siblings(topology: Path, cpu: int) -> set[int]:
    """Return the hardware threads of the physical core of ``cpu``; the second name is that of Linux before 5.3."""
    return {cpu, *(_listed(topology / "core_cpus_list") or _listed(topology / "thread_siblings_list"))}


def package_of(cpu: int, root: Path = Path("/")) -> int:
    """Return the number of the processor package of the hardware thread ``cpu``; 0 if not reported."""
    return _package(root / "sys/devices/system/cpu", cpu)


def _package(folder: Path, cpu: int) -> int:
    return _number(folder / f"cpu{cpu}/topology/physical_package_id") or 0


def _node(folder: Path, cpu: int) -> int:
    """Return the node of memory (NUMA) that is next to ``cpu``."""
    nodes = [path.name.removeprefix("node") for path in (folder / f"cpu{cpu}").glob("node[0-9]*")]
    return min((int(node) for node in nodes if node.isdecimal()), default=0)


def _clusters(folder: Path, shared: dict[int, set[int]], places: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    """Return the first hardware thread of the cluster that the system names; 0 where its clusters mean nothing.

    On x86 a "cluster" shares the second cache, which mostly belongs to a single core. Clusters count only if all
    those of a place (kind, package, node) have more than one core.
    """
    members: dict[tuple[int, ...], set[int]] = {}
    for cpu, place in places.items():
        members.setdefault(place, set()).add(cpu)
    found = dict.fromkeys(places, 0)
    for there in members.values():
        named = {cpu: _named_cluster(folder / f"cpu{cpu}/topology", cpu) & there for cpu in there}
        if all(not named[cpu] <= shared[cpu] for cpu in there):
            found.update({cpu: min(named[cpu]) for cpu in there})
    return found


def _named_cluster(topology: Path, cpu: int) -> set[int]:
    unknown = (None, -1, 0xFFFF)
    return {
        cpu,
        *(_listed(topology / "cluster_cpus_list") if _number(topology / "cluster_id") not in unknown else ()),
    }


def _listed(path: Path) -> list[int]:
    """Return the numbers of a list such as ``0-3,8``; none if there is no such file."""
    found: list[int] = []
    for part in (_read(path) or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if last.isdecimal() else first) + 1)
    return found


def _text(numbers: Iterable[int]) -> str:
    """Return ``numbers`` as Linux writes them, such as ``0-3,8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _number(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) if text.removeprefix("-").isdecimal() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
