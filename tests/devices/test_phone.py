"""What phones say of themselves: the formats of several makers and versions, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cars_hw.devices.android.cores import Core, fastest_cores
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


class Model(NamedTuple):
    """A model in the form in which it tells of itself, and what follows for a measurement.

    ``kinds`` has for each kind of cores their number, capacity and largest clock in kilohertz.
    """

    props: dict[str, str]
    kinds: tuple[tuple[int, int | str, int | str], ...]
    online: str
    thermal: str
    name: str
    one: list[int]
    four: list[int] | str


NO_SERVICE = "Can't find service: thermalservice\n"
MODELS = {
    "Pixel 7": Model(
        {"manufacturer": "Google", "model": "Pixel 7", "soc.model": "GS201", "release": "14", "sdk": "34"},
        ((4, 124, 1803000), (2, 427, 2348000), (2, 1024, 2850000)),
        "0-7",
        THERMAL,
        "Google Pixel 7 (GS201), Android 14 (API 34), arm64-v8a",
        [7],
        [4, 5, 6, 7],
    ),
    "Galaxy S21": Model(
        {
            "manufacturer": "samsung",
            "model": "SM-G991B",
            "board.platform": "exynos2100",
            "release": "13",
            "sdk": "33",
        },
        ((4, 279, 2210000), (3, 827, 2808000), (1, 1024, 2912000)),
        "0-7",
        THERMAL,
        "samsung SM-G991B (exynos2100), Android 13 (API 33), arm64-v8a",
        [7],
        [4, 5, 6, 7],
    ),
    # No service of temperatures before Android 10, no capacities.
    "Redmi Note 8": Model(
        {
            "manufacturer": "Xiaomi",
            "model": "Redmi Note 8",
            "board.platform": "trinket",
            "release": "9",
            "sdk": "28",
        },
        ((4, "?", 1804800), (4, "?", 2016000)),
        "0-7",
        NO_SERVICE,
        "Xiaomi Redmi Note 8 (trinket), Android 9 (API 28), arm64-v8a",
        [7],
        [4, 5, 6, 7],
    ),
    "P30 Pro": Model(
        {"manufacturer": "HUAWEI", "model": "VOG-L29", "hardware": "kirin980", "release": "10", "sdk": "29"},
        ((4, "?", 1805000), (2, "?", 1920000), (2, "?", 2600000)),
        "0-7",
        THERMAL.replace("Status: 1", "Status: 0"),
        "HUAWEI VOG-L29 (kirin980), Android 10 (API 29), arm64-v8a",
        [7],
        [4, 5, 6, 7],
    ),
    # Its kernel switches cores off that nobody needs, and their clocks are not told then.
    "Go phone": Model(
        {
            "manufacturer": "HMD Global",
            "model": "Nokia 1",
            "board.platform": "mt6737m",
            "release": "8.1.0",
            "sdk": "27",
            "product.cpu.abi": "armeabi-v7a",
        },
        ((2, "?", 1105000), (2, "?", "?")),
        "0-1",
        NO_SERVICE,
        "HMD Global Nokia 1 (mt6737m), Android 8.1.0 (API 27), armeabi-v7a",
        [1],
        "4 cores, of which 2, 3 cannot be used now, not 4",
    ),
    "Android 6": Model(
        {"manufacturer": "LGE", "model": "Nexus 5", "board.platform": "msm8974", "release": "6.0.1", "sdk": "23"},
        ((4, "?", 2265600),),
        "0-3",
        NO_SERVICE,
        "LGE Nexus 5 (msm8974), Android 6.0.1 (API 23), arm64-v8a",
        [3],
        [0, 1, 2, 3],
    ),
}
PLACES = {"manufacturer": "product", "model": "product", "release": "build.version", "sdk": "build.version"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_models_of_several_makers_and_years_are_understood(name: str, line_end: str) -> None:
    model = MODELS[name]
    props = {"product.cpu.abi": "arm64-v8a", "serialno": "X1"} | {
        f"{PLACES[short]}.{short}" if short in PLACES else short: value for short, value in model.props.items()
    }
    each = [(capacity, clock) for count, capacity, clock in model.kinds for _ in range(count)]
    parts = FULL | {
        "props": "".join(f"[ro.{name}]: [{value}]\n" for name, value in props.items()),
        "cores": "".join(
            f"cpu{core} ? {capacity} {clock} {clock}\n" for core, (capacity, clock) in enumerate(each)
        ),
        "online": f"{model.online}\n",
        "thermal": model.thermal,
    }
    phone, state = read_phone(Scripted({part: text.replace("\n", line_end) for part, text in parts.items()}))
    assert f"{phone.name}, {phone.android}, {phone.abi}" == model.name
    assert phone.serial == "X1"
    assert fastest_cores(phone.cores, 1, phone.name) == model.one
    if isinstance(model.four, str):
        with pytest.raises(DeviceError, match=model.four):
            fastest_cores(phone.cores, 4, phone.name)
    else:
        assert fastest_cores(phone.cores, 4, phone.name) == model.four
    assert state.battery_percent == 57
    assert state.thermal_status == (
        None if model.thermal is NO_SERVICE else int(model.thermal.split("Status: ")[1][0])
    )
