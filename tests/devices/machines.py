"""Machines as Linux describes them, for tests: the files below /sys and /proc of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cars_hw.devices.host.topology import pin
from cars_hw.errors import InputError


def _has_two_cores() -> bool:
    try:
        pin(2)
    except InputError:
        return False
    return True


needs_two_cores = pytest.mark.skipif(not _has_two_cores(), reason="this process may use one physical core only")


@dataclass(frozen=True)
class Cpu:
    """One hardware thread; None is a file that the system does not have.

    ``core`` numbers the physical cores, and ``cluster`` the clusters that the system names.
    """

    core: int
    package: int = 0
    capacity: int | None = None
    max_khz: int | None = None
    cluster: int | None = None
    node: int | None = None


@dataclass(frozen=True)
class Machine:
    """A machine: its hardware threads by number, and further files by path.

    ``offline`` threads are listed as such, and have no topology. ``described`` False is a machine without topology.
    """

    cpus: Mapping[int, Cpu]
    offline: frozenset[int] = frozenset()
    described: bool = True
    files: Mapping[str, str] = field(default_factory=dict)

    def online(self) -> list[int]:
        """Return the hardware threads that are online."""
        return sorted(set(self.cpus) - self.offline)

    def write(self, root: Path) -> Path:
        """Write the files below ``root``, and return it."""
        for path, text in {**self._files(), **self.files}.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text + "\n")
        return root

    def _files(self) -> dict[str, str]:
        online = self.online()
        files = {"sys/devices/system/cpu/online": ",".join(map(str, online))}
        for number in online:
            cpu, folder = self.cpus[number], f"sys/devices/system/cpu/cpu{number}"
            if cpu.capacity is not None:
                files[f"{folder}/cpu_capacity"] = str(cpu.capacity)
            if cpu.max_khz is not None:
                files[f"{folder}/cpufreq/cpuinfo_max_freq"] = str(cpu.max_khz)
            if cpu.node is not None:
                files[f"{folder}/node{cpu.node}/cpulist"] = "read elsewhere"
            if self.described:
                files[f"{folder}/topology/core_cpus_list"] = self._same(online, number, "core")
                files[f"{folder}/topology/physical_package_id"] = str(cpu.package)
                files[f"{folder}/topology/cluster_id"] = str(65535 if cpu.cluster is None else cpu.cluster)
                near = "core" if cpu.cluster is None else "cluster"
                files[f"{folder}/topology/cluster_cpus_list"] = self._same(online, number, near)
        return files

    def _same(self, online: list[int], number: int, name: str) -> str:
        wanted = getattr(self.cpus[number], name)
        return ",".join(str(other) for other in online if getattr(self.cpus[other], name) == wanted)


def intel_hybrid(*, counters: bool = False) -> Machine:
    """Core i9-13900K: 8 P cores of two threads, two of them favoured, and 16 E cores in clusters of four."""
    clocks = {4: 5_800_000, 5: 5_800_000}
    p_cores = {
        cpu: Cpu(core=cpu // 2, max_khz=clocks.get(cpu // 2, 5_500_000), cluster=100 + cpu // 2)
        for cpu in range(16)
    }
    e_cores = {cpu: Cpu(core=cpu, max_khz=4_300_000, cluster=cpu // 4) for cpu in range(16, 32)}
    lists = {"sys/devices/cpu_core/cpus": "0-15", "sys/devices/cpu_atom/cpus": "16-31"}
    return Machine(p_cores | e_cores, files=lists if counters else {})


def two_ccds() -> Machine:
    """Ryzen 9, 2 chiplets of 8 cores of different clocks; the second threads come behind all first ones."""
    return Machine(
        {cpu: Cpu(core=cpu % 16, max_khz=5_200_000 + 40_000 * (cpu % 16), cluster=cpu % 16) for cpu in range(32)}
    )


def two_sockets() -> Machine:
    """A server with two processors of 4 cores, and a node of memory each."""
    return Machine({cpu: Cpu(core=cpu, package=cpu // 4, node=cpu // 4) for cpu in range(8)})


def phone() -> Machine:
    """Four small cores, three middle ones, one large one."""
    capacities = [325] * 4 + [871] * 3 + [1024]
    clusters = [0] * 4 + [1] * 3 + [2]
    return Machine(
        {
            cpu: Cpu(core=cpu, capacity=size, cluster=cluster, max_khz=2_000_000)
            for cpu, (size, cluster) in enumerate(zip(capacities, clusters, strict=True))
        }
    )


def server_with_clusters() -> Machine:
    """Kunpeng 920: equal cores in clusters of four."""
    return Machine({cpu: Cpu(core=cpu, cluster=cpu // 4, max_khz=2_600_000) for cpu in range(16)})


def small_vm() -> Machine:
    """Two virtual cores without siblings, as Firecracker shows them."""
    return Machine({cpu: Cpu(core=cpu) for cpu in range(2)})


def bare_vm() -> Machine:
    """Four virtual cores without any description."""
    return Machine({cpu: Cpu(core=cpu) for cpu in range(4)}, described=False)
