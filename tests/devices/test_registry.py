from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from machines import needs_two_cores

from cars_hw.devices import FakeDevice, LitertDevice, OrtDevice, available, open_device
from cars_hw.errors import DeviceError, InputError, NoDeviceError


def test_names_open_devices() -> None:
    assert isinstance(open_device("ort"), OrtDevice)
    assert isinstance(open_device("litert"), LitertDevice)
    assert isinstance(open_device("fake"), FakeDevice)
    assert "seed 7" in open_device("fake:7").conditions()["runtime"]


@needs_two_cores
def test_a_device_is_opened_with_the_threads_that_are_asked_for() -> None:
    assert open_device("ort", threads=2).conditions()["threads"] == 2


@pytest.fixture(autouse=True)
def no_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on the cable of a machine that tests run on, whatever is."""
    monkeypatch.setattr("cars_hw.devices.android.adb.usb_phones", list)


@pytest.mark.parametrize("text", ["android", "android:R58M", "android+gpu", "android:usb-1-2"])
def test_a_phone_that_is_not_there_is_missed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.devices.android.adb.KEYS", tmp_path)
    with pytest.raises(NoDeviceError, match="plug"):
        open_device(text)


def test_the_simulated_device_refuses_threads_that_it_would_ignore() -> None:
    with pytest.raises(InputError, match="the simulated device 'fake:7' has one thread, not 64"):
        open_device("fake:7", 64)


@pytest.mark.parametrize("text", ["", "cpu", "ORT", "ort:1", "fake:x", "fake:-1"])
def test_an_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        open_device(text)


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads"):
        open_device("ort", threads=0)


def test_every_device_that_is_said_to_be_usable_opens_and_no_other() -> None:
    statuses = available()
    assert {status.name for status in statuses} == {"ort", "fake", "litert", "android"}
    for status in statuses:
        assert status.detail
        if status.usable:
            open_device(status.name)
        else:
            with pytest.raises(DeviceError):
                open_device(status.name)


@pytest.mark.parametrize(
    "package",
    ["cars_hw.devices", "cars_hw.latency", "cars_hw.devices.host.ort_worker", "cars_hw.devices.host.litert_worker"],
)
def test_importing_loads_no_runtime_and_no_training_framework(package: str) -> None:
    heavy = "{'torch', 'onnxruntime', 'onnx', 'ai_edge_litert', 'sklearn', 'scipy'}"
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
