"""Which cores a measurement is pinned to, on machines that are described by files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import machines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_runs import amount
from machines import Cpu, Machine

from cars_hw.devices import OrtDevice, available
from cars_hw.devices.host.topology import Pinning, pin, read_cores
from cars_hw.errors import InputError


def pinned(machine: Machine, root: Path, threads: int, allowed: list[int] | None = None) -> list[int]:
    cores = pin(threads, machine.write(root), machine.online() if allowed is None else allowed).cores
    assert cores is not None
    return list(cores)


@pytest.mark.parametrize("counters", [False, True])
@pytest.mark.parametrize(
    ("threads", "cores"),
    [
        (1, [15]),
        (2, [13, 15]),
        # Favoured cores and the others are of one kind, and there are 8 of them.
        (8, [1, 3, 5, 7, 9, 11, 13, 15]),
    ],
)
def test_a_hybrid_processor_gives_a_thread_of_each_performance_core(
    counters: bool, threads: int, cores: list[int], tmp_path: Path
) -> None:
    assert pinned(machines.intel_hybrid(counters=counters), tmp_path, threads) == cores


@pytest.mark.parametrize("counters", [False, True])
def test_a_hybrid_processor_has_no_cluster_of_nine(counters: bool, tmp_path: Path) -> None:
    machine = machines.intel_hybrid(counters=counters)
    with pytest.raises(InputError, match=r"9 threads would need as many physical cores of one kind, .* may use 8$"):
        pin(9, machine.write(tmp_path), machine.online())


def test_efficiency_cores_are_used_where_nothing_else_is_allowed_and_in_one_cluster(tmp_path: Path) -> None:
    machine = machines.intel_hybrid()
    assert pinned(machine, tmp_path, 4, list(range(16, 32))) == [28, 29, 30, 31]
    assert pinned(machine, tmp_path, 3, [16, 17, 18, 28, 29]) == [16, 17, 18]


def test_counters_tell_kinds_apart_that_clocks_do_not(tmp_path: Path) -> None:
    cpus = {cpu: Cpu(core=cpu, max_khz=4_000_000) for cpu in range(4)}
    files = {"sys/devices/cpu_core/cpus": "0-1", "sys/devices/cpu_atom/cpus": "2-3"}
    assert pinned(Machine(cpus, files=files), tmp_path, 1) == [1]


@pytest.mark.parametrize(
    ("slow", "cores"),
    [(4_600_000, [3]), (4_599_999, [1])],
)
def test_two_clocks_are_of_one_kind_down_to_92_percent(slow: int, cores: list[int], tmp_path: Path) -> None:
    cpus = {cpu: Cpu(core=cpu, max_khz=5_000_000 if cpu < 2 else slow) for cpu in range(4)}
    assert pinned(Machine(cpus), tmp_path, 1) == cores


def test_chiplets_with_siblings_far_apart_in_number(tmp_path: Path) -> None:
    machine = machines.two_ccds()
    found = pin(2, machine.write(tmp_path), machine.online())
    assert (found.cores, found.siblings) == ((30, 31), (14, 15))
    assert pinned(machine, tmp_path, 16) == list(range(16, 32))
    with pytest.raises(InputError, match="17 threads"):
        pin(17, tmp_path, machine.online())


def test_threads_stay_on_one_socket(tmp_path: Path) -> None:
    machine = machines.two_sockets()
    assert pinned(machine, tmp_path, 4) == [4, 5, 6, 7]
    assert pinned(machine, tmp_path, 3, [0, 1, 2, 5, 6]) == [0, 1, 2]
    with pytest.raises(InputError, match=r"may use 4$"):
        pin(5, tmp_path, machine.online())


@pytest.mark.parametrize(("threads", "cores"), [(1, [7]), (2, [5, 6]), (3, [4, 5, 6]), (4, [0, 1, 2, 3])])
def test_a_phone_gives_the_fastest_cluster_that_is_large_enough(
    threads: int, cores: list[int], tmp_path: Path
) -> None:
    assert pinned(machines.phone(), tmp_path, threads) == cores


def test_clusters_that_the_system_names_are_kept(tmp_path: Path) -> None:
    machine = machines.server_with_clusters()
    assert pinned(machine, tmp_path, 2, [0, 1, 2, 7, 8]) == [1, 2]
    with pytest.raises(InputError, match=r"may use 4$"):
        pin(5, tmp_path, machine.online())


def test_virtual_cores(tmp_path: Path) -> None:
    assert pinned(machines.small_vm(), tmp_path / "small", 1) == [1]
    assert pinned(machines.small_vm(), tmp_path / "small", 2) == [0, 1]
    assert pinned(machines.bare_vm(), tmp_path / "bare", 3) == [1, 2, 3]
    assert pin(2, tmp_path / "nothing", [0, 1, 2]).cores == (1, 2)


def test_cores_that_are_offline_are_not_used(tmp_path: Path) -> None:
    machine = replace(machines.intel_hybrid(), offline=frozenset({14, 15, 13}))
    found = pin(2, machine.write(tmp_path), range(32))
    assert (found.cores, found.siblings) == ((11, 12), (10,))
    assert (found.online, len(found.allowed)) == (29, 29)


def test_a_cpuset_with_a_single_thread_of_some_cores_is_kept_to_and_told(tmp_path: Path) -> None:
    machine = machines.intel_hybrid()
    found = pin(2, machine.write(tmp_path), [0, 1, 2, 16])
    assert (found.cores, found.siblings, found.allowed) == ((1, 2), (0, 3), (0, 1, 2, 16))
    assert str(found) == "pinned to cores 1-2 (siblings 0,3); this process may use 4 of 32 cores"
    assert found.conditions()["cpuset"] == [0, 1, 2, 16]
    with pytest.raises(InputError, match=r"3 threads would need .* may use 2$") as raised:
        pin(3, tmp_path, [0, 1, 2, 16])
    assert raised.value.remedy == "fewer-threads"


def test_older_systems_name_siblings_otherwise(tmp_path: Path) -> None:
    root = machines.intel_hybrid().write(tmp_path)
    for path in root.rglob("core_cpus_list"):
        path.rename(path.with_name("thread_siblings_list"))
    assert pin(1, root, range(32)).siblings == (14,)


QUOTAS = {
    "v2": {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"},
    "v2 nested, limited above": {
        "proc/self/cgroup": "0::/user.slice/job/step",
        "sys/fs/cgroup/user.slice/job/step/cpu.max": "max 100000",
        "sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000",
        "sys/fs/cgroup/user.slice/cpu.max": "800000 100000",
    },
    "v2 with the path of the host": {"proc/self/cgroup": "0::/../pod/x", "sys/fs/cgroup/cpu.max": "75000 50000"},
    "v1": {
        "proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/job\n0::/job",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    },
    "v1 with the path of the host": {
        "proc/self/cgroup": "4:cpu:/docker/8f2a",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    },
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_quota_of_one_core_and_a_half_allows_one_thread(name: str, tmp_path: Path) -> None:
    root = replace(machines.bare_vm(), files=QUOTAS[name]).write(tmp_path)
    found = pin(1, root, range(4))
    assert found.conditions() == {"pinned": [3], "siblings": [], "cpuset": None, "cpu_quota": 1.5}
    assert str(found) == "pinned to core 3; CPU quota 1.5"
    with pytest.raises(InputError, match=r"quota of 1\.5 cores, and 2 threads would be stopped halfway$") as raised:
        pin(2, root, range(4))
    assert raised.value.remedy == "fewer-threads"


def test_a_quota_of_half_a_core_allows_nothing(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}
    with pytest.raises(InputError, match=r"quota of 0\.5 cores, and 1 thread would .*; raise the quota$") as raised:
        pin(1, replace(machines.bare_vm(), files=files).write(tmp_path), range(4))
    assert raised.value.remedy is None


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/"},
        {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "max 100000"},
        {
            "proc/self/cgroup": "1:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        # The limit of another group.
        {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/other/cpu.max": "50000 100000"},
    ],
)
def test_no_quota_is_none(files: dict[str, str], tmp_path: Path) -> None:
    assert pin(4, replace(machines.bare_vm(), files=files).write(tmp_path), range(4)).quota is None


MACHINES = (
    machines.intel_hybrid(),
    machines.intel_hybrid(counters=True),
    machines.two_ccds(),
    machines.two_sockets(),
    machines.phone(),
    machines.server_with_clusters(),
    machines.small_vm(),
    machines.bare_vm(),
)


@st.composite
def machine_and_allowed(draw: st.DrawFn) -> tuple[Machine, list[int]]:
    """A machine of those above or any other, some threads offline, and what a process may use of it."""
    count = draw(st.integers(1, 16))
    ways = draw(st.sampled_from([1, 2]))
    kinds = draw(st.lists(st.sampled_from([400, 700, 950, 1024]), min_size=count, max_size=count))
    drawn = Machine(
        {
            cpu: Cpu(core=cpu // ways, package=cpu // 8, capacity=kinds[cpu // ways], cluster=cpu // 4)
            for cpu in range(count)
        }
    )
    machine = draw(st.sampled_from([*MACHINES, drawn]))
    everything = sorted(machine.cpus)
    offline = draw(st.frozensets(st.sampled_from(everything), max_size=len(everything) - 1))
    machine = replace(machine, offline=offline)
    return machine, draw(st.lists(st.sampled_from(machine.online()), min_size=1, unique=True))


@settings(deadline=None, max_examples=amount(25, 1000))
@given(machine_and_allowed(), st.integers(1, 9))
def test_never_two_siblings_nor_two_clusters_nor_a_core_that_is_not_allowed(
    drawn: tuple[Machine, list[int]], threads: int
) -> None:
    machine, allowed = drawn
    with TemporaryDirectory() as folder:
        root = machine.write(Path(folder))
        cores = read_cores(root, allowed)
        clusters = {core.cluster: 0 for core in cores}
        for core in cores:
            clusters[core.cluster] += not set(core.threads).isdisjoint(allowed)
        try:
            found = pin(threads, root, allowed)
        except InputError:
            assert max(clusters.values()) < threads
            return
    assert found.cores is not None
    assert len(set(found.cores)) == len(found.cores) == threads
    assert set(found.cores) <= set(allowed) <= set(machine.online())
    cpus = [machine.cpus[core] for core in found.cores]
    assert len({cpu.core for cpu in cpus}) == threads
    assert len({cpu.package for cpu in cpus}) == 1
    speeds = [cpu.capacity or cpu.max_khz or 1 for cpu in cpus]
    # Clocks of one kind can differ step by step; those of the drawn machines do by 8% at most.
    assert min(speeds) >= 0.88 * max(speeds)
    # The true siblings, of those that are online.
    true = {cpu for cpu in machine.online() if machine.cpus[cpu].core in {cpu.core for cpu in cpus}}
    assert machine.described is False or set(found.siblings) == true - set(found.cores)
    # No faster cluster had as many free cores.
    (cluster,) = {core.cluster for core in cores if not set(core.threads).isdisjoint(found.cores)}
    assert not [other for other, free in clusters.items() if other[0] < cluster[0] and free >= threads]


def test_a_system_that_cannot_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert pin(64) == Pinning(None)
    conditions = OrtDevice(64).conditions()
    assert (conditions["pinned"], conditions["cpuset"]) == ("not possible here", None)
    assert "cannot be pinned here" in next(status.detail for status in available() if status.name == "ort")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_the_affinity_of_this_process_is_kept_to() -> None:
    code = (
        "import json, os\nfrom cars_hw.devices import OrtDevice, available\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(json.dumps([OrtDevice().conditions(), [one.detail for one in available() if one.name == 'ort']]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    conditions, (detail,) = json.loads(done.stdout)
    first = min(os.sched_getaffinity(0))
    assert conditions["pinned"] == [first]
    assert f"pinned to core {first}" in detail
    if len(os.sched_getaffinity(0)) > 1:
        assert conditions["cpuset"] == [first]
        assert "may use 1 of " in detail


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_too_many_threads_are_refused_when_the_device_is_opened() -> None:
    with pytest.raises(InputError, match="100000 threads would need as many physical cores of one kind"):
        OrtDevice(100_000)
