"""Which cores of a phone are measured on: clusters by capacity or clock, threads, and cores that cannot be used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cars_hw.devices.android.cores import (
    CPUS,
    READ_CORES,
    Core,
    clusters,
    core_list,
    describe,
    fastest_cores,
    parse_cores,
)
from cars_hw.errors import DeviceError


def made(*kinds: tuple[int, int | None, float | None]) -> list[Core]:
    """Return cores of kinds, each with its number of cores, capacity and clock in MHz."""
    each = [(capacity, clock) for count, capacity, clock in kinds for _ in range(count)]
    return [Core(number, capacity=capacity, max_mhz=clock) for number, (capacity, clock) in enumerate(each)]


PIXEL_7 = made((4, 124, 1803.0), (2, 427, 2348.0), (2, 1024, 2850.0))
# Snapdragon 8: one fastest core, and a cluster whose cores have the lower numbers.
SNAPDRAGON = made((4, 250, 1804.8), (3, 800, 2419.2), (1, 1024, 2841.6))
# Huawei P30 Pro: no capacities.
P30_PRO = made((4, None, 1805.0), (2, None, 1920.0), (2, None, 2600.0))
# The same clock for cores that differ.
EQUAL_CLOCKS = made((4, 1024, 2000.0), (4, 400, 2000.0))
GO_PHONE = made((4, None, None))


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [
        (PIXEL_7, 1, [7]),
        (PIXEL_7, 2, [6, 7]),
        (PIXEL_7, 3, [5, 6, 7]),
        (PIXEL_7, 4, [4, 5, 6, 7]),
        (PIXEL_7, 8, list(range(8))),
        (SNAPDRAGON, 1, [7]),
        # The fastest core would wait for the others: all come from the cluster that has so many.
        (SNAPDRAGON, 2, [5, 6]),
        (SNAPDRAGON, 3, [4, 5, 6]),
        (SNAPDRAGON, 4, [4, 5, 6, 7]),
        (P30_PRO, 1, [7]),
        (P30_PRO, 2, [6, 7]),
        (P30_PRO, 4, [4, 5, 6, 7]),
        (EQUAL_CLOCKS, 1, [3]),
        (EQUAL_CLOCKS, 4, [0, 1, 2, 3]),
        (GO_PHONE, 1, [3]),
        (GO_PHONE, 4, [0, 1, 2, 3]),
    ],
)
def test_the_fastest_cores_come_from_one_cluster_where_that_has_so_many(
    cores: list[Core], count: int, expected: list[int]
) -> None:
    assert fastest_cores(cores, count, "the phone") == expected


def test_a_core_that_is_off_or_closed_is_not_measured_on() -> None:
    cores = [core._replace(is_online=core.number != 7, is_allowed=core.number != 6) for core in PIXEL_7]
    assert fastest_cores(cores, 1, "the phone") == [5]
    with pytest.raises(DeviceError, match=r"Pixel has 8 cores, of which 6, 7 cannot be used now, not 7") as raised:
        fastest_cores(cores, 7, "Pixel")
    assert raised.value.remedy == "fewer-threads"
    with pytest.raises(DeviceError, match=r"Pixel has 8 cores, not 9$"):
        fastest_cores(PIXEL_7, 9, "Pixel")


def test_clusters_are_by_capacity_or_else_by_clock() -> None:
    assert [[core.number for core in cluster] for cluster in clusters(EQUAL_CLOCKS)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [[core.number for core in cluster] for cluster in clusters(P30_PRO)] == [[6, 7], [4, 5], [0, 1, 2, 3]]
    assert len(clusters(GO_PHONE)) == 1
    # One capacity that is missing makes those of the others useless: the clocks count.
    mixed = [PIXEL_7[0]._replace(capacity=None), *PIXEL_7[1:]]
    assert [len(cluster) for cluster in clusters(mixed)] == [2, 2, 4]


def test_what_linux_tells_of_cores_is_read_and_what_it_does_not_tell_is_unknown() -> None:
    said = "cpu0 ? 124 1803000 1803000\r\ncpu10 0 ? ? ?\r\ncpu2 1 1024 2850000 1500000\r\nnothing\r\n"
    cores = parse_cores(said, "sh: no such file", "")
    assert cores == (
        Core(0, capacity=124, max_mhz=1803.0, limit_mhz=1803.0),
        Core(2, capacity=1024, max_mhz=2850.0, limit_mhz=1500.0),
        Core(10, is_online=False),
    )
    assert [core.is_online for core in parse_cores(said, "0,10", "")] == [True, False, True]
    assert [core.is_allowed for core in parse_cores(said, "", "Cpus_allowed_list:\t0-2\n")] == [True, True, False]
    assert core_list("0-2,5") == {0, 1, 2, 5}
    assert core_list("0-2,") is None
    assert describe(cores, [0, 2, 10]) == "1 x 1803 MHz, 1 x 2850 MHz, 1 x a core"


def test_the_command_prints_one_core_a_line_whatever_the_files(tmp_path: Path) -> None:
    for name, text in (("cpu0/cpufreq/cpuinfo_max_freq", "1800000\n"), ("cpu1/online", "0\n"), ("cpuidle/x", "1")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["sh", "-c", READ_CORES.replace(CPUS, str(tmp_path))], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("cpu0 ? ? 1800000 ?\ncpu1 0 ? ? ?\n", "")
