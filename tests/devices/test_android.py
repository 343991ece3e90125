"""A phone as a device, against the simulated one: figures, care, faults."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from canned_phone import CANNED, PLAN, canned
from simulated_phone import Adbd, Phone

from cars_hw.devices import Device, available, named_devices, open_device
from cars_hw.devices.android.adb import AdbShell, Address, UsbPhone
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.android.opening import open_android
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import (
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    RunnerError,
)
from cars_hw.latency.keys import spec_keys
from cars_hw.latency.models import build_model, build_overhead
from cars_hw.measurement.schedule import measure
from cars_hw.space.network_spec import NETWORKS


@pytest.fixture
def model_count() -> int:
    return 5


def test_the_conditions_say_what_phone_it_is(device: AndroidDevice) -> None:
    conditions = device.conditions()
    assert conditions["processor"] == "Simulated One (SIM-9000), SIM0001"
    assert conditions["platform"] == "Android 14 (API 34), arm64-v8a"
    assert conditions["runtime"].startswith("benchmark_model ")
    assert conditions["runtime"].endswith(" on cpu")
    assert (conditions["battery_percent"], conditions["battery_c"], conditions["thermal_status"]) == (80, 27.0, 0)
    assert conditions["pinned"] == [max(int(core) for core in conditions["clocks_mhz"])]
    assert conditions["clock_mhz"] == 2800.0


def test_figures_come_in_order_and_the_phone_is_left_as_it_was(
    device: AndroidDevice, phone: Phone, models: list[Path]
) -> None:
    canned(phone)
    (phone.folder / "setting-global-stay_on_while_plugged_in").write_text("3\n")
    seen: list[int] = []
    samples = device.run([*models, models[0]], PLAN, 0, seen.append)
    assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200, 1300, 1400, 1000]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert samples[0].load is not None
    log = phone.log()
    assert "cmd power set-fixed-performance-mode-enabled true" in log
    assert log.index("svc power stayon true") < len(log) - 1
    assert phone.setting("stay_on_while_plugged_in") == "3"
    assert (phone.folder / "fixed-mode").read_text().strip() == "false"
    device.release()
    assert not (phone.tmp / "cars-hw").exists()
    assert (phone.tmp / "benchmark_model").exists()


def test_sessions_that_are_cut_short_are_told_once(
    device: AndroidDevice, phone: Phone, models: list[Path], said: list[str]
) -> None:
    phone.install(CANNED.replace("FAULT", ":").replace("count=5", "count=3"))
    assert len(device.run(models, PLAN, 0)) == len(models)
    assert [line for line in said if "runs" in line] == [
        f"{device._shell.where}: some sessions have fewer than 5 runs: benchmark_model ends the session of a slow "
        "model after 5 s"
    ]
    device.release()


def test_ctrl_c_in_the_middle_leaves_the_phone_as_it_was(
    device: AndroidDevice, phone: Phone, models: list[Path]
) -> None:
    canned(phone, "sleep 0.1")

    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(device, models, PLAN, progress=interrupt)
    assert "svc power stayon true" in phone.log()
    assert phone.setting("stay_on_while_plugged_in") is None
    assert (phone.folder / "fixed-mode").read_text().strip() == "false"
    assert not (phone.tmp / "cars-hw").exists()
    assert [sample.ms for sample in device.run(models[:1], PLAN, 0)] == [1.0]
    device.release()


def test_it_can_be_run_again_after_it_was_released(device: AndroidDevice, phone: Phone, models: list[Path]) -> None:
    canned(phone)
    first = device.run(models, PLAN, 0)
    device.release()
    assert [sample.ms for sample in device.run(models, PLAN, 0)] == [sample.ms for sample in first]
    device.release()


def test_a_model_goes_over_once(device: AndroidDevice, phone: Phone, adbd: Adbd, models: list[Path]) -> None:
    canned(phone)
    device.run(models, PLAN, 0)
    stamps = {path: path.stat().st_mtime_ns for path in (phone.tmp / "cars-hw").rglob("m-*")}
    assert len(stamps) == len(models)
    device.run(models, PLAN, 0)
    assert {path: path.stat().st_mtime_ns for path in (phone.tmp / "cars-hw").rglob("m-*")} == stamps
    device.release()


def test_the_stored_tool_goes_over_and_away_again(
    shell: AdbShell, phone: Phone, tmp_path: Path, models: list[Path]
) -> None:
    canned(phone)
    tool = (phone.tmp / "benchmark_model").rename(tmp_path / "tool")
    device = AndroidDevice(shell, "android:sim", runner=tool, log=lambda _: None)
    assert len(device.run(models, PLAN, 0)) == len(models)
    assert len([*(phone.tmp / "cars-hw").glob("*/benchmark_model")]) == 1
    device.release()
    assert list(phone.tmp.iterdir()) == []


def test_a_missing_tool_says_where_to_get_it(device: AndroidDevice, phone: Phone, models: list[Path]) -> None:
    (phone.tmp / "benchmark_model").unlink()
    with pytest.raises(RunnerError, match=r"which runs the models$") as raised:
        device.run(models, PLAN, 0)
    assert raised.value.remedy == "get-runner"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("kill -SEGV $$", r"crashed \(signal 11\)"),
        ("echo broken; exit 1", "exit status 1.*broken"),
        ("exit 0", "no measurement"),
        ("echo 'WARNING: Unconsumed cmdline flags: --use_xnnpack=true'; exit 0", "does not know --use_xnnpack"),
        # What it measures without the flag is another number.
        ("echo 'WARNING: Unconsumed cmdline flags: --warmup_min_secs=0.1'", "does not know --warmup_min_secs"),
        ("us=$((us * 2)); echo 'count=1 curr=3'", "measured twice"),
    ],
)
def test_a_runner_that_fails_is_an_error_that_names_the_model(
    fault: str, expected: str, device: AndroidDevice, phone: Phone, models: list[Path]
) -> None:
    canned(phone, f'if [ "$us" = 1200 ]; then {fault}; fi')
    with pytest.raises(RunnerError, match=expected) as raised:
        measure(device, models, PLAN)
    assert "2.tflite" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert phone.setting("stay_on_while_plugged_in") is None
    assert not (phone.tmp / "cars-hw").exists()


def test_noise_around_the_figures_does_not_matter(device: AndroidDevice, phone: Phone, models: list[Path]) -> None:
    canned(phone, "echo 'WARNING: linker: --x=1 is unused'; echo 'I tflite: hello' >&2")
    assert [round(1e3 * sample.ms) for sample in device.run(models[:2], PLAN, 0)] == [1000, 1100]
    device.release()


def test_a_runner_that_hangs_is_ended(shell: AdbShell, phone: Phone, models: list[Path]) -> None:
    canned(phone, 'if [ "$us" = 1200 ]; then sleep 60; fi')
    device = AndroidDevice(shell, "android:sim", log=lambda _: None, waits=Waits(session=1.0))
    began = time.monotonic()
    with pytest.raises(RunnerError, match=r"no end of .*2\.tflite within 1 s"):
        measure(device, models, PLAN)
    assert time.monotonic() - began < 15
    assert not (phone.tmp / "cars-hw").exists()
    assert phone.setting("stay_on_while_plugged_in") is None


def test_a_delegate_that_leaves_work_to_the_processor_is_not_counted(
    shell: AdbShell, phone: Phone, models: list[Path]
) -> None:
    for words, how in (
        ("the model graph will not be executed by the delegate", "does not take"),
        (
            "the model graph will be partially executed by the delegate w/ 2 delegate kernels",
            "takes only a part of",
        ),
        ("hello", "does not report that it takes"),
    ):
        canned(phone, f"echo 'INFO: GPU: {words}.'")
        device = AndroidDevice(shell, "android:sim+gpu", delegate="gpu", log=lambda _: None)
        with pytest.raises(RunnerError, match=f"the gpu delegate {how} .*not counted"):
            device.run(models[:1], PLAN, 0)
        device.release()
    canned(phone, "echo 'the model graph will be completely executed by the delegate.'")
    device = AndroidDevice(shell, "android:sim+gpu", delegate="gpu", log=lambda _: None)
    assert len(device.run(models[:1], PLAN, 0)) == 1
    device.release()


def test_a_hot_phone_is_waited_for_and_one_that_stays_hot_is_an_error(
    device: AndroidDevice, phone: Phone, models: list[Path], said: list[str]
) -> None:
    canned(phone)
    phone.thermal(2)

    def cool_once_it_was_noticed() -> None:
        while not said:
            time.sleep(0.02)
        phone.thermal()

    threading.Thread(target=cool_once_it_was_noticed, daemon=True).start()
    assert len(device.run(models[:1], PLAN, 0)) == 1
    assert "is hot (battery 27 C, processor 25.6 C, thermal status 2)" in said[0]
    phone.battery(tenths=430)
    with pytest.raises(DeviceStateError, match=r"still is hot .battery 43 C.*shade$"):
        device.run(models[:1], PLAN, 0)
    device.release()


def test_a_low_battery_and_a_full_phone_are_errors(device: AndroidDevice, phone: Phone, models: list[Path]) -> None:
    canned(phone)
    phone.battery(level=9)
    with pytest.raises(DeviceStateError, match="9% of its battery left"):
        device.run(models[:1], PLAN, 0)
    phone.battery()
    phone.storage(1)
    with pytest.raises(DeviceStateError, match=r"0 MB left.*free some storage"):
        device.run(models, PLAN, 0)
    phone.storage(100_000)
    assert len(device.run(models, PLAN, 0)) == len(models)
    device.release()


def test_a_phone_without_fixed_performance_mode_measures_too(
    device: AndroidDevice, phone: Phone, models: list[Path]
) -> None:
    canned(phone)
    (phone.folder / "no-fixed-mode").touch()
    assert len(device.run(models[:2], PLAN, 0)) == 2
    device.release()


def test_what_an_earlier_measurement_changed_is_restored_by_the_next(
    device: AndroidDevice, phone: Phone, models: list[Path]
) -> None:
    """As after a computer that went off in the middle: the phone's own value is in a file."""
    canned(phone)
    left = phone.tmp / "cars-hw"
    left.mkdir()
    (left / "before").write_text("cars-hw-1 1 end\n")
    files = left / "0123456789abcdef"
    files.mkdir()
    (files / "m-old.tflite").write_text("old")
    (phone.folder / "setting-global-stay_on_while_plugged_in").write_text("7\n")
    device.run(models[:1], PLAN, 0)
    assert phone.setting("stay_on_while_plugged_in") == "1"
    assert not files.exists()
    device.release()


def test_two_measurements_on_one_phone_do_not_mix(
    device: AndroidDevice, phone: Phone, adbd: Adbd, keys: Path, models: list[Path]
) -> None:
    canned(phone, "sleep 0.5")
    other = AndroidDevice(
        AdbShell(Address("127.0.0.1", adbd.port), keys=keys),
        "android:sim",
        log=lambda _: None,
        waits=Waits(old_script=1),
    )
    errors: list[Exception] = []

    def run_other() -> None:
        try:
            other.run(models, PLAN, 0)
        except DeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=run_other)
    timer = threading.Timer(0.8, thread.start)
    timer.start()
    samples = device.run(models, PLAN, 0)
    timer.join()
    thread.join()
    assert len(samples) == len(models)
    assert len(errors) == 1
    assert "another cars-hw (process" in str(errors[0])
    device.release()
    other._shell.close()


def test_names_open_phones_and_tables_can_name_them_again(
    adbd: Adbd, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cars_hw.devices.android.adb.KEYS", keys)
    where = f"android:127.0.0.1:{adbd.port}"
    device = open_device(where)
    assert isinstance(device, AndroidDevice)
    assert device.name == where
    device._shell.close()
    gpu = open_android(f"127.0.0.1:{adbd.port}+gpu")
    assert gpu.name == f"{where}+gpu"
    assert gpu.conditions()["runtime"].endswith(" on gpu")
    gpu._shell.close()
    with pytest.raises(InputError, match=r"\+tpu"):
        open_device(f"{where}+tpu")


def test_every_phone_on_the_cable_and_its_state_are_listed(
    adbd: Adbd, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cars_hw.devices.android.adb import _tcp_transport

    phones = [UsbPhone("AAA", "1-1", None), UsbPhone("0123", "1-2", None), UsbPhone("0123", "1-3", None)]
    monkeypatch.setattr("cars_hw.devices.android.adb.KEYS", keys)
    monkeypatch.setattr("cars_hw.devices.android.adb.usb_phones", lambda: phones)
    assert named_devices(["ort", "android:*"]) == ["ort", "android:AAA", "android:usb-1-2", "android:usb-1-3"]
    with pytest.raises(InputError, match="named twice"):
        named_devices(["android:AAA", "android:*"])
    # What the cable leads to is the simulated phone.
    phones[:] = [UsbPhone("AAA", "1-1", _tcp_transport("127.0.0.1", adbd.port))]
    (found,) = [status for status in available() if status.name.startswith("android")]
    assert found.usable
    assert "Simulated One (SIM-9000), SIM0001, Android 14 (API 34), arm64-v8a" in found.detail
    assert "battery 80%" in found.detail
    (adbd.phone.tmp / "benchmark_model").unlink()
    phones[:] = [UsbPhone("AAA", "1-1", _tcp_transport("127.0.0.1", adbd.port))]
    (found,) = [status for status in available() if status.name.startswith("android")]
    assert not found.usable
    assert found.remedy == "get-runner"
    phones.clear()
    with pytest.raises(NoDeviceError):
        named_devices(["android:*"])


def test_the_real_runner_tells_a_large_operation_from_a_small_one(
    device: Device, phone: Phone, tmp_path: Path
) -> None:
    small, large = tmp_path / "small.tflite", tmp_path / "large.tflite"
    build_overhead(small, "tflite")
    build_model(
        next(key for key in spec_keys(NETWORKS["cifar"]) if str(key) == "sep_conv_5x5/c36/32x32/s1"),
        large,
        "tflite",
    )
    # The fastest session of each: other processes may slow down any one of them.
    slow, fast = (min(sample.ms for sample in one.samples) for one in measure(device, [large, small], PLAN).models)
    assert slow > 5 * fast > 0
