"""What phones say of themselves: the formats of several makers and versions, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cars_hw.devices.android.cores import Core
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
ALL = frozenset(range(8))
CORES = "".join(
    f"cpu{core} {'?' if core == 0 else 1} {capacity} {clock} {clock}\n"
    for core, (capacity, clock) in enumerate([(124, 1803000)] * 4 + [(427, 2348000)] * 2 + [(1024, 2850000)] * 2)
)
BATTERY = "Current Battery Service state:\n  present: true\n  level: 57\n  scale: 100\n  temperature: 312\n"
THERMAL = "IsStatusOverride: false\nThermal Status: 1\nCurrent temperatures from HAL:\n"
FULL = {
    "props": PROPS,
    "cores": CORES,
    "online": "0-7\n",
    "status": "Name:\tcat\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n",
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
    assert phone.cores[0] == Core(0, capacity=124, max_mhz=1803.0, limit_mhz=1803.0)
    assert phone.memory_mb == 7554
    assert phone.can_pin
    assert phone.governor == "sched_pixel"
    assert phone.load == [7.31, 6.90, 6.52]
    assert state == PhoneState(
        battery_percent=57, battery_c=31.2, thermal_status=1, free_mb=51200.0, online=ALL, allowed=ALL
    )
    assert read_state(Scripted(FULL)) == state


def test_what_a_phone_does_not_tell_is_not_known() -> None:
    bare = dict.fromkeys(FULL, "") | {"props": "[ro.build.version.sdk]: [21]\n", "cores": "cpu0 ? ? ? ?\n"}
    phone, state = read_phone(Scripted(bare))
    assert (phone.memory_mb, phone.can_pin, phone.governor, phone.load) == (None, False, None, None)
    assert phone.cores == (Core(0),)
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


SAMSUNG = BATTERY.replace("  level: 57\n", "  level: 57\n  mBatteryMaxTemp: 421\n") + (
    "Battery Statistics:\n  level: 3\n  temperature: 990\nLED state:\n  present: false\n"
)
STOPPED = BATTERY.replace("state:", "state: (UPDATES STOPPED -- use 'reset' to restart)")
BEFORE = "SamsungBatteryService state:\n  level: 1\n  scale: 5\n\n" + BATTERY


@pytest.mark.parametrize("battery", [SAMSUNG, STOPPED, BEFORE, BATTERY.replace("\n", "\r\n")])
def test_other_sections_around_that_of_the_battery_do_not_matter(battery: str) -> None:
    state = read_state(Scripted(FULL | {"battery": battery}))
    assert (state.battery_percent, state.battery_c) == (57, 31.2)


def test_warnings_of_the_linker_between_the_lines_do_not_matter() -> None:
    warning = 'WARNING: linker: Warning: unable to normalize "$ORIGIN/../lib" (ignoring)\n'
    warned = {name: warning + text.replace("\n", "\r\n") for name, text in FULL.items()}
    assert read_phone(Scripted(warned)) == read_phone(Scripted(FULL))


def test_cores_that_cannot_be_used_are_told_apart() -> None:
    parts = FULL | {"online": "0-5,7\n", "status": "Cpus_allowed_list:\t0-6\n"}
    phone, state = read_phone(Scripted(parts))
    assert [core.number for core in phone.cores if not core.is_online] == [6]
    assert [core.number for core in phone.cores if not core.is_allowed] == [7]
    assert state.missing([5]) is None
    assert state.missing([5, 6]) == "core 6 switched off"
    assert state.missing([7]) == "core 7 closed to the shell by a cpuset"
    assert PhoneState(None, None, None, None).missing([7]) is None


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
