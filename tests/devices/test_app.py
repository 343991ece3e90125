"""Models that run in an app in the foreground: the APK of benchmark_model, started and heard over the log."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import needs_two_cores
from phone_stand import CANNED, WAITS, Stand, standing
from simulated_phone import Phone, System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android import opening as android
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.app import AppDevice
from cars_hw.devices.remote import SessionResult
from cars_hw.errors import DeviceStateError, InputError, RunnerError

PLAN = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
PACKAGE = "org.tensorflow.lite.benchmark"
APP = CANNED.replace("FAULT", "sleep 0.1")
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def model_count() -> int:
    return 2


@pytest.fixture
def stand(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A phone with the app, which is looked at more often; its linker warns, and its shell runs in a terminal."""
    functions = AppDevice.functions.replace("pause() { sleep 0.1 ", "pause() { sleep 0.03 ")
    assert functions != AppDevice.functions
    monkeypatch.setattr(AppDevice, "functions", functions)
    with standing(tmp_path / "phone", keys, System(warns=True)) as made:
        made.phone.install_app(APP)
        yield made


@pytest.fixture
def device(stand: Stand) -> AppDevice:
    shell = AdbShell(Address("127.0.0.1", stand.adbd.port), keys=stand.keys, connect_s=2.0)
    stand.shells.append(shell)
    return AppDevice(shell, "android:sim+app", log=stand.said.append, waits=WAITS)


def log_readers(phone: Phone) -> list[str]:
    """Return the numbers of the programs that read the log of ``phone``."""
    readers = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0] == "tail" and str(phone.folder / "logcat") in words:
                readers.append(process.name)
    return readers


def left(phone: Phone) -> list[str]:
    """Return what of the phone is not as it was: files, the app, and programs that read the log."""
    deadline = time.monotonic() + 5
    # A program that was told to end may need a moment for it.
    while (readers := log_readers(phone)) and time.monotonic() < deadline:
        time.sleep(0.05)
    files = [str(phone.tmp / "cars-hw")] if (phone.tmp / "cars-hw").exists() else []
    return [*files, *readers, *([] if phone.app_pid() is None else ["the app"])]


def test_models_run_in_the_app_and_the_conditions_say_so(
    stand: Stand, device: AppDevice, models: list[Path]
) -> None:
    # A run of before is in the log: of the same model, with a mark of its own.
    stand.phone._write("logcat", "01-01 00:00:00.000 5 5 I tflite  : Inference timings in us: Inference (avg): 3\n")
    samples = device.run([*models, models[0]], PLAN, 0)
    assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1000]
    found = device.conditions()
    assert (found["runs_as"], found["scheduling_group"]) == ("an app in the foreground", "/top-app")
    assert found["pinned"] == "the system chooses the cores of an app"
    assert re.fullmatch("the app of benchmark_model [0-9a-f]{12} on cpu", found["runtime"])
    assert found["device_identity"].endswith("+app")
    # As for any app, the clocks are not held.
    assert found["fixed_performance"] is False
    log = stand.phone.log()
    assert not [line for line in log if "fixed-performance-mode-enabled true" in line]
    starts = [line for line in log if line.startswith("am start")]
    assert len(starts) == 3
    assert starts[0].startswith(f"am start -S -n {PACKAGE}/.BenchmarkModelActivity --es args --graph=/")
    assert f"{stand.phone.tmp}/cars-hw/" in starts[0]
    device.release()
    assert left(stand.phone) == []
    assert stand.said == []


def test_a_process_of_the_shell_says_what_it_is(stand: Stand) -> None:
    device = stand.device()
    found = device.conditions()
    assert (found["runs_as"], found["scheduling_group"]) == ("a process of the adb shell", "/foreground")
    device.release()


FAULTS: dict[str, tuple[Callable[[Phone], object], type[Exception], str]] = {
    "behind the lock screen": (
        lambda phone: phone._write("app-cpuset", "/background\n"),
        DeviceStateError,
        "the app ran in the group /background of the scheduler, not in top-app: .* unlock the phone",
    ),
    "it does not begin": (
        lambda phone: phone._switch("app-stays-out", True),
        DeviceStateError,
        "the app has not begun within 10 s; unlock the phone",
    ),
    "it is killed": (
        lambda phone: phone._switch("app-is-killed", True),
        DeviceStateError,
        "the app was closed while it ran",
    ),
    "it may not start": (
        lambda phone: (phone.folder / "app" / "may-start").unlink(),
        DeviceStateError,
        r"the phone does not start the app: .*does not exist\.",
    ),
    "the log is off": (
        lambda phone: phone._switch("log-off", True),
        DeviceStateError,
        "the log of the phone cannot be read, or is switched off",
    ),
    "the log overflows": (
        lambda phone: phone._switch("log-overflows", True),
        DeviceStateError,
        "the log of the phone cannot be read",
    ),
    "it cannot run the model": (
        lambda phone: phone.install_app("echo Failed to load graph; exit 1"),
        RunnerError,
        r"the app of benchmark_model cannot run .*0\.tflite: exit status 1: .*Failed to load graph",
    ),
    "half of its lines are missing": (
        lambda phone: phone.install_app("echo 'Inference timings in us: Inference (avg): 3'"),
        RunnerError,
        "there is no measurement in its output",
    ),
    "it is not installed": (
        lambda phone: (phone.folder / "app").rename(phone.folder / "no-app"),
        RunnerError,
        f"does not have the app {PACKAGE}$",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_said_and_nothing_is_left(
    fault: str, stand: Stand, device: AppDevice, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, kind, told = FAULTS[fault]
    # What does not come is given up sooner: the app, further lines after an error, and the log where it is off.
    functions = AppDevice.functions.replace("-gt 100 ]", "-gt 5 ]").replace("-gt 20 ]", "-gt 4 ]")
    if fault == "the log is off":
        functions = functions.replace("-gt 30 ]", "-gt 3 ]")
    assert functions.count("-gt 4 ]") == 1
    monkeypatch.setattr(AppDevice, "functions", functions)
    if fault == "the log overflows":
        stand.phone.install_app(APP.replace("sleep 0.1", "sleep 3"))
    change(stand.phone)
    with pytest.raises(kind, match=told):
        device.run(models, PLAN, 0)
    device.release()
    assert left(stand.phone) == []


def test_ctrl_c_ends_the_app_and_what_reads_the_log(stand: Stand, device: AppDevice, models: list[Path]) -> None:
    stand.phone.install_app(CANNED.replace("FAULT", "sleep 1"))

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run([*models, *models], PLAN, 0, stop)
    device.release()
    assert left(stand.phone) == []


def test_a_script_that_is_killed_leaves_nothing_after_the_next_contact(
    stand: Stand, device: AppDevice, models: list[Path]
) -> None:
    device.run([*models, *models], PLAN, 0, lambda done: stand.phone.kill_shells() if done == 1 else None)
    # The number is that of another program since, which is left alone.
    with subprocess.Popen(["sleep", "60"]) as other:
        (stand.phone.tmp / "cars-hw" / "ear").write_text(f"{other.pid}\n")
        device._shell.close()
        device._folder.give_up()
        looking = stand.device()
        looking.conditions()
        looking.release()
        assert other.poll() is None
        other.kill()
    assert left(stand.phone) == []


def test_a_device_says_by_its_name_that_models_run_in_an_app(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android, "_shell", lambda *_: stand.device()._shell)
    opened = android.open_android("127.0.0.1:1+app+gpu", log=stand.said.append)
    assert type(opened) is AppDevice
    assert re.fullmatch(r"android:127\.0\.0\.1:\d+\+app\+gpu", opened.name)
    for wrong in ("127.0.0.1:1+apk", "127.0.0.1:1+app+app", "127.0.0.1:1+gpu+nnapi"):
        with pytest.raises(InputError, match="is no delegate; write one of"):
            android.open_android(wrong)


def test_an_app_whose_group_is_not_told_is_a_warning(stand: Stand, device: AppDevice) -> None:
    device._placed(SessionResult(0, 0, "@app group /top-app", None, None))
    assert device.conditions()["warnings"] == []
    device._placed(SessionResult(0, 0, "", None, None))
    assert device.conditions()["warnings"] == ["it does not tell whether the app ran in the foreground"]
    assert "it does not tell whether the app ran in the foreground" in stand.said[-1]


@needs_two_cores
def test_clock_and_cores_are_those_of_the_app_and_not_of_the_shell(
    stand: Stand, device: AppDevice, models: list[Path]
) -> None:
    slow, fast = CORES[0], CORES[-1]
    stand.phone.runs_at(1400, slow)
    stand.phone.runs_at(2750, fast)
    stand.phone._write("app-core", f"{slow}\n")
    before = device.conditions()
    # Nobody knows on which core it will run.
    assert (before["clock_mhz"], before["core_kind"], before["app_cores"]) == (None, None, [])
    assert [sample.clock_mhz for sample in device.run(models, PLAN, 0)] == [1400.0, 1400.0]
    found = device.conditions()
    assert (found["app_cores"], found["clock_reached_mhz"]) == ([slow], 1400.0)
    stand.phone._write("app-core", f"{fast}\n")
    assert [sample.clock_mhz for sample in device.run(models, PLAN, 0)] == [2750.0, 2750.0]
    assert device.conditions()["app_cores"] == sorted({slow, fast})
    device.release()


def test_an_app_whose_core_is_not_told_has_no_clock(stand: Stand, device: AppDevice) -> None:
    told = "@app group /top-app"
    shell_clock = SessionResult(0, 0, told, None, 2800.0)
    assert device._placed(shell_clock).clock_mhz is None
    assert device._placed(shell_clock._replace(output=f"{told}\n@app ran 3 ? of 2 3")).clock_mhz is None
    assert device.learnt()["app_cores"] == [2, 3]
    assert device._placed(shell_clock._replace(output=f"@app ran 3 1804800 of 3\n{told}")).clock_mhz == 1804.8
