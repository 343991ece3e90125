"""What phones say of themselves: the formats of several makers and versions, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cars_hw.devices.android.phone import PhoneState, read_phone, read_state
from cars_hw.devices.remote import Answer
from cars_hw.errors import DeviceError, DeviceStateError

PROPS = """\
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 7]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.soc.model]: [GS201]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.serialno]: [28161FDH2000AB]
"""
CPUS = "/sys/devices/system/cpu"
CLOCKS = "".join(
    f"{CPUS}/cpu{core}/cpufreq/cpuinfo_max_freq {clock}\n"
    for core, clock in enumerate([1803000] * 4 + [2348000] * 2 + [2850000] * 2)
)
BATTERY = "Current Battery Service state:\n  present: true\n  level: 57\n  scale: 100\n  temperature: 312\n"
THERMAL = "IsStatusOverride: false\nThermal Status: 1\nCurrent temperatures from HAL:\n"
FULL = {
    "props": PROPS,
    "clocks": CLOCKS,
    "cores": "".join(f"{CPUS}/cpu{core}\n" for core in range(8)),
    "online": "0-7\n",
    "governor": "sched_pixel\n",
    "memory": "MemTotal:        7735296 kB\nMemFree: 1 kB\n",
    "storage": "Filesystem      1K-blocks     Used Available Use% Mounted on\n/dev/block/dm-41 114316652 1 "
    "52428800 1% /data\n",
    "load": "7.31 6.90 6.52 3/1800 12345\n",
    "taskset": "/system/bin/taskset\n",
    "battery": BATTERY,
    "thermal": THERMAL,
}


class Scripted:
    """A shell that answers what it was told to."""

    where = "the phone"

    def __init__(self, parts: dict[str, str]) -> None:
        self.parts = parts

    def open(self) -> None: ...

    def close(self) -> None: ...

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        asked = [word for word in self.parts if f"@cars-hw part {word};" in command]
        return Answer("".join(f"\n@cars-hw part {word}\n{self.parts[word]}" for word in asked), 0)

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        raise NotImplementedError

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 1.0) -> None:
        raise NotImplementedError


def test_a_phone_says_what_it_is_and_how_it_is() -> None:
    phone, state = read_phone(Scripted(FULL))
    assert phone.serial == "28161FDH2000AB"
    assert phone.name == "Google Pixel 7 (GS201)"
    assert phone.android == "Android 14 (API 34)"
    assert phone.abi == "arm64-v8a"
    assert phone.clocks_mhz[0] == 1803.0
    assert phone.fastest(1) == [7]
    assert phone.fastest(3) == [5, 6, 7]
    assert phone.memory_mb == 7554
    assert phone.can_pin
    assert phone.governor == "sched_pixel"
    assert phone.load == [7.31, 6.90, 6.52]
    assert state == PhoneState(battery_percent=57, battery_c=31.2, thermal_status=1, free_mb=51200.0)
    assert read_state(Scripted(FULL)) == state


def test_more_threads_than_cores_are_refused() -> None:
    phone, _ = read_phone(Scripted(FULL))
    with pytest.raises(DeviceError, match="8 cores, not 9"):
        phone.fastest(9)


def test_a_core_that_is_switched_off_is_not_counted() -> None:
    phone, _ = read_phone(Scripted(FULL | {"online": "0-3,5\n"}))
    assert sorted(phone.clocks_mhz) == [0, 1, 2, 3, 5]
    assert phone.fastest(1) == [5]


def test_what_a_phone_does_not_tell_is_not_known() -> None:
    bare = dict.fromkeys(FULL, "") | {"props": "[ro.build.version.sdk]: [21]\n", "cores": f"{CPUS}/cpu0\n"}
    phone, state = read_phone(Scripted(bare))
    assert (phone.memory_mb, phone.can_pin, phone.governor, phone.load) == (None, False, None, None)
    assert phone.clocks_mhz == {0: None}
    assert phone.fastest(1) == [0]
    assert state == PhoneState(None, None, None, None)
    assert not state.is_hot
    state.require_charge("the phone")


def test_what_is_no_phone_is_said() -> None:
    with pytest.raises(DeviceError, match="is it an Android phone"):
        read_phone(Scripted(dict.fromkeys(FULL, "sh: not found\n")))


@pytest.mark.parametrize(
    ("battery", "percent", "celsius"),
    [
        (BATTERY.replace("scale: 100", "scale: 200"), 28, 31.2),
        (BATTERY.replace("temperature: 312", "temperature: 0"), 57, None),
        (BATTERY.replace("temperature: 312", "temperature: -999"), 57, None),
        (BATTERY.replace("temperature: 312", "temperature: -51"), 57, -5.1),
        (BATTERY.replace("present: true", "present: false"), None, None),
    ],
)
def test_batteries_of_all_kinds(battery: str, percent: int | None, celsius: float | None) -> None:
    state = read_state(Scripted(FULL | {"battery": battery}))
    assert (state.battery_percent, state.battery_c) == (percent, celsius)


def test_hot_is_a_thermal_status_or_a_battery_of_forty_degrees() -> None:
    assert PhoneState(50, 30.0, 1, None).is_hot
    assert PhoneState(50, 40.0, 0, None).is_hot
    assert not PhoneState(50, 39.9, 0, None).is_hot
    assert not PhoneState(None, None, None, None).is_hot


def test_too_little_battery_is_an_error() -> None:
    PhoneState(15, None, None, None).require_charge("the phone")
    with pytest.raises(DeviceStateError, match=r"14% of its battery left.*charge it to 15%"):
        PhoneState(14, None, None, None).require_charge("the phone")


def test_a_long_name_of_a_file_system_breaks_the_line_but_not_the_figure() -> None:
    storage = "Filesystem 1K-blocks Used Available Use% Mounted on\n/a/very/long/name\n   100 50 2048 98% /data\n"
    assert read_state(Scripted(FULL | {"storage": storage})).free_mb == 2.0
