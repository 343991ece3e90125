"""The energy counters of a processor: files with numbers whose joules are computed by hand, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cars_hw.devices import OrtDevice
from cars_hw.devices.energy import PowerWindow, Reading, power_of
from cars_hw.devices.host import rapl
from cars_hw.devices.host.rapl import Rapl, Sampler
from cars_hw.errors import DeviceError
from cars_hw.testing import write_conv

RANGE = 262_143_328_850


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def zone(root: Path, name: str, called: str, microjoules: int, most: int = RANGE) -> Path:
    """Write one counter, as Linux shows it, and return its file."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{called}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_joules_of_a_package_and_its_memory_by_hand(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 70_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 1)
    zone(tmp_path, "intel-rapl:1:0", "dram", 1)
    zone(tmp_path, "intel-rapl:2", "psys", 1)
    clock = Time()
    counters = Rapl(0, tmp_path, clock)
    assert counters.describe() == "RAPL, package-0 + dram"
    assert counters.read() == Reading(0.0, 0.0)
    package.write_text("17000000\n")
    memory.write_text("73500000\n")
    clock.now = 2.0
    # 12 J of the package and 3.5 J of the memory.
    assert counters.read() == Reading(2.0, pytest.approx(15.5))


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 262_140_000_000)
    clock = Time()
    counters = Rapl(0, tmp_path, clock)
    counters.read()
    clock.now = 1.0
    counter.write_text("2000000\n")
    # 3.32885 J up to its end, and 2 J from its beginning.
    assert counters.read().joules == pytest.approx(5.32885)
    clock.now = 2.0
    counter.write_text("4000000\n")
    assert counters.read().joules == pytest.approx(7.32885)


def test_what_a_counter_cannot_tell_is_refused(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0, most=1_000_000_000)
    clock = Time()
    counters = Rapl(0, tmp_path, clock)
    counters.read()
    clock.now = 0.1
    counter.write_text("900000000\n")
    with pytest.raises(DeviceError, match=r"moved by 900 J in 0\.1 s, more than any processor takes"):
        counters.read()
    clock.now = 60.0
    with pytest.raises(DeviceError, match=r"was not read for 60 s, in which it may have begun anew more than once"):
        counters.read()


def test_machines_without_a_counter_or_a_range_say_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"has no counter of package-0\. Virtual machines hide it"):
        Rapl(0, tmp_path)
    zone(tmp_path, "intel-rapl:0", "package-0", 0, most=0)
    with pytest.raises(DeviceError, match="does not tell where it begins anew"):
        Rapl(0, tmp_path)


def test_a_counter_that_only_root_reads_says_how_to_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read = Path.read_text

    # Tests may run as root, for whom no file is closed.
    def closed(path: Path, encoding: str | None = None) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(DeviceError, match="must not be read: Linux keeps the energy counters for root") as told:
        Rapl(0, tmp_path)
    assert (told.value.remedy, told.value.about) == ("read-rapl", {"path": f"{tmp_path}/intel-rapl:*/energy_uj"})


def test_the_power_is_that_between_two_steps() -> None:
    # Steps of 6 J at 2, 5 and 8 s: 12 J in 6 s. What is outside of the time does not count.
    taken = [0, 0, 6, 6, 6, 12, 12, 12, 18, 18, 90]
    readings = [Reading(float(second), float(joules)) for second, joules in enumerate(taken)]
    assert power_of(readings, 0.0, 9.5) == PowerWindow(2.0, 0.5, 6.0)
    assert power_of(readings, 2.5, 8.5) == PowerWindow(2.0, 1.0, 3.0)
    assert power_of(readings, 2.5, 7.5).resolution == float("inf")


def test_a_failure_of_the_counter_ends_the_window(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    sampler = Sampler(Rapl(0, tmp_path))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("nothing\n")
    with sampler:
        pass
    with pytest.raises(DeviceError, match="cannot be read"):
        sampler.taken()


class Steady:
    """Counters that count 40 W of a clock, whatever runs."""

    def read(self) -> Reading:
        second = time.monotonic()
        return Reading(second, 40.0 * second)


def test_a_host_reads_its_counter_while_a_model_runs_and_at_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "EVERY_S", 0.01)
    monkeypatch.setattr(OrtDevice, "_rapl", lambda _device: Steady())
    device, model = OrtDevice(), write_conv(tmp_path / "conv.onnx", 4)
    busy, rest = device.spend(model, 0.3), device.spend(None, 0.2)
    assert busy.watts == pytest.approx(40.0)
    assert rest.watts == pytest.approx(40.0)
    assert busy.runs * busy.run_seconds >= 0.3
    assert (rest.runs, rest.run_seconds) == (0, 0.0)
    assert busy.seconds > 0
    with pytest.raises(DeviceError, match="no model file"):
        device.spend(tmp_path / "gone.onnx", 0.1)
