"""A phone as a device, against the simulated one: figures, care, faults."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from long_runs import amount
from machines import needs_two_cores
from phone_stand import standing
from simulated_phone import Adbd, Phone, System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, available, named_devices, open_device
from cars_hw.devices.android.adb import AdbShell, Address, UsbPhone
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.android.opening import open_android
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    OfflineError,
    RunnerError,
)
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.latency.keys import spec_keys
from cars_hw.latency.models import build_model, build_overhead
from cars_hw.measurement.schedule import measure
from cars_hw.space.network_spec import NETWORKS, NetworkSpec

PLAN = MeasurePlan(sessions=2, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)

# Prints what the tool prints: of a model so many microseconds as its file has bytes, then whatever FAULT does.
CANNED = """\
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(wc -c < "$graph")
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
FAULT
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""


def canned(phone: Phone, fault: str = ":") -> None:
    phone.install(CANNED.replace("FAULT", fault))


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


def test_the_cable_comes_out_and_goes_in_again(
    phone: Phone, keys: Path, models: list[Path], said: list[str]
) -> None:
    """Wherever it is cut: the same figures in the same order, none twice."""
    canned(phone, "sleep 0.01")
    rng = random.Random(0)
    with Adbd(phone) as adbd:
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=2.0)
        device = AndroidDevice(shell, "android:sim", log=said.append, waits=Waits(reconnect=5.0, pause=0.02))
        device.run(models, PLAN, 0)
        device.release()
        whole = adbd.packets
        for _ in range(amount(12, 200)):
            cuts = sorted(rng.sample(range(1, whole), rng.choice([1, 1, 2])))
            adbd.faults.cut_after = [adbd.packets + cut for cut in cuts]
            seen: list[int] = []
            samples = device.run([*models, models[1]], PLAN, 0, seen.append)
            assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200, 1300, 1400, 1100]
            assert seen == [1, 2, 3, 4, 5, 6]
            adbd.faults.cut_after = []
            device.release()
            assert not (phone.tmp / "cars-hw").exists()
    assert any("come back" in line for line in said)
    assert phone.setting("stay_on_while_plugged_in") is None


AWAY = (NoDeviceError, OfflineError, ConnectionLostError)


@pytest.mark.parametrize("number", range(amount(3, 36)))
def test_a_phone_that_is_known_is_waited_for_whatever_a_transport_says_while_it_is_away(
    number: int, device: AndroidDevice, phone: Phone, models: list[Path], said: list[str]
) -> None:
    """An adb server says at any call that there is no such phone, and so does ssh while it connects."""
    canned(phone)
    device.run(models[:1], PLAN, 0)
    device.release()
    error = AWAY[number % len(AWAY)]("away")
    # In the short run: while it connects, while it reads the phone, while files are copied.
    fails_at = number // len(AWAY) if amount(0, 1) else (0, 1, 7)[number]
    calls: list[str] = []

    def flaky(name: str) -> Callable[..., object]:
        usual = getattr(device._shell, name)

        def call(*given: object, **named: object) -> object:
            calls.append(name)
            if len(calls) == fails_at + 1:
                raise error
            return usual(*given, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "call", "push", "lines"):
            patch.setattr(device._shell, name, flaky(name))
        samples = device.run(models, PLAN, 0)
    assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200, 1300, 1400]
    assert any("away; waiting for up to 5 s for it to come back" in line for line in said) == (
        fails_at < len(calls)
    )
    device.release()
    assert not (phone.tmp / "cars-hw").exists()


@pytest.mark.parametrize("kind", AWAY)
def test_the_conditions_of_a_phone_that_is_away_for_a_moment_are_waited_for_and_never_those_of_an_unknown_one(
    kind: type[DeviceError], device: AndroidDevice, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    usual = device._shell.open

    def open_later() -> None:
        calls.append("open")
        if len(calls) % 2:
            raise kind("away")
        usual()

    monkeypatch.setattr(device._shell, "open", open_later)
    with pytest.raises(kind, match=r"^away$"):
        device.conditions()
    known = device.conditions()["processor"]
    device._disconnect()
    assert device.conditions()["processor"] == known
    assert len(calls) == 4


def test_files_are_removed_also_if_the_connection_died_meanwhile_without_a_word(
    device: AndroidDevice, adbd: Adbd, phone: Phone, models: list[Path], said: list[str]
) -> None:
    """As that of a phone in the network whose computer trains for an hour."""
    canned(phone)
    device.run(models[:1], PLAN, 0)
    adbd.cut()
    device.release()
    assert said == []
    assert not (phone.tmp / "cars-hw").exists()


def test_a_session_whose_end_was_lost_is_run_again_and_nobody_gets_anothers_figure(
    adbd: Adbd, phone: Phone, keys: Path, models: list[Path]
) -> None:
    canned(phone)
    lost: list[str] = []

    class Losing(AdbShell):
        def lines(self, command: str, idle_s: float) -> Iterator[str]:
            for line in super().lines(command, idle_s):
                if " end 2 " in line and not lost:
                    lost.append(line)
                else:
                    yield line

    shell = Losing(Address("127.0.0.1", adbd.port), keys=keys)
    device = AndroidDevice(shell, "android:sim", log=lambda _: None, waits=Waits(pause=0.02))
    assert [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0)] == [1000, 1100, 1200, 1300, 1400]
    assert len(lost) == 1
    device.release()


def test_a_phone_that_does_not_come_back_is_an_error_and_another_one_is_not_taken_for_it(
    phone: Phone, keys: Path, models: list[Path], tmp_path: Path
) -> None:
    canned(phone, "sleep 0.05")
    with Adbd(phone) as adbd:
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=0.5)
        device = AndroidDevice(shell, "android:sim", log=lambda _: None, waits=Waits(reconnect=0.3, pause=0.02))
        device.conditions()
        adbd.faults.refuse_s = 60.0
        threading.Timer(0.3, adbd.cut).start()
        with pytest.raises(ConnectionLostError, match=r"plug it in again \(it did not come back within 0 s\)$"):
            device.run(models * 4, PLAN, 0)
        adbd._let_in_at = 0.0
        adbd.phone = Phone(tmp_path / "other", serial="OTHER")
        with pytest.raises(DeviceError, match=r"another machine \(OTHER\).*SIM0001"):
            device.run(models, PLAN, 0)
        adbd.phone.close()
        adbd.phone = phone
        assert len(device.run(models, PLAN, 0)) == len(models)
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


def test_threads_are_pinned_to_as_many_of_the_fastest_cores(
    shell: AdbShell, phone: Phone, models: list[Path]
) -> None:
    canned(phone, 'taskset -p $$ >> "$PHONE/affinity"')
    device = AndroidDevice(shell, "android:sim", log=lambda _: None)
    device.run(models[:1], PLAN, 0)
    device.release()
    mask = int((phone.folder / "affinity").read_text().split()[-1], 16)
    conditions = AndroidDevice(shell, "android:sim", log=lambda _: None).conditions()
    assert [1 << core for core in conditions["pinned"]] == [mask]
    with pytest.raises(DeviceError, match="cores, not 99"):
        AndroidDevice(shell, "android:sim", 99, log=lambda _: None).conditions()


@needs_two_cores
def test_a_core_that_went_away_is_a_message_and_its_session_does_not_count(
    device: AndroidDevice, phone: Phone, models: list[Path], said: list[str]
) -> None:
    canned(phone, "sleep 0.3")
    *others, fastest = sorted(os.sched_getaffinity(0))
    assert device.conditions()["pinned"] == [fastest]

    def switch_off(done: int) -> None:
        if done == 2:
            phone.switch_on(others)

    with pytest.raises(DeviceStateError, match=f"switched off core {fastest}, on which") as raised:
        device.run(models, PLAN, 0, switch_off)
    assert raised.value.remedy == "resume"
    # While it is away the phone is waited for, and never measured on other cores.
    with pytest.raises(DeviceStateError, match=f"still has core {fastest} switched off.*unlock it"):
        device.run(models, PLAN, 0)
    phone.switch_on([*others, fastest])
    assert len(device.run(models, PLAN, 0)) == len(models)
    device.release()


@needs_two_cores
def test_a_core_that_is_closed_in_the_middle_is_a_message_also_where_the_other_one_stays_open(
    shell: AdbShell, phone: Phone, models: list[Path]
) -> None:
    """Linux runs a process silently on those of its cores that are open, and refuses it only if none is."""
    canned(phone, "sleep 0.3")
    first, *_, last = cores = sorted(os.sched_getaffinity(0))
    phone.open_cores(cores)
    for threads, lost in ((2, last), (2, first), (1, last))[: amount(1, 3)]:
        device = AndroidDevice(shell, "android:sim", threads, log=lambda _: None, waits=Waits(cool_down=0.1))
        assert lost in device.conditions()["pinned"]

        def close(done: int, lost: int = lost) -> None:
            if done == 2:
                phone.open_cores([core for core in cores if core != lost])

        with pytest.raises(DeviceStateError, match=f"switched off core {lost}, .* or closed it to the shell"):
            device.run(models, PLAN, 0, close)
        with pytest.raises(DeviceStateError, match=f"still has core {lost} closed to the shell by a cpuset"):
            device.run(models, PLAN, 0)
        device.release()
        phone.open_cores(cores)


@needs_two_cores
def test_without_taskset_the_clock_is_that_of_the_core_that_the_tool_ran_on(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    slow, *_, fast = sorted(os.sched_getaffinity(0))
    pins = f"/usr/bin/taskset -cp {slow} $$ >/dev/null; PATH=/usr/bin:/bin sleep 0.5"
    with standing(tmp_path / "old", keys, System(without=("taskset",)), pins) as stand:
        stand.phone.runs_at(1400, slow)
        stand.phone.runs_at(2750, fast)
        device = stand.device()
        conditions = device.conditions()
        assert (conditions["pinned"], conditions["clock_mhz"], conditions["core_kind"]) == (
            "not possible here",
            None,
            None,
        )
        assert [sample.clock_mhz for sample in device.run(models[:1], PLAN, 0)] == [1400.0]
        assert device.warnings == ()
        stand.phone.switch_on([slow])
        device.run(models[:1], PLAN, 0)
        device.release()
        assert device.warnings == (f"core {fast} was switched off while models ran, which are not pinned",)


@needs_two_cores
def test_an_interrupted_profile_resumes_at_another_address_and_on_the_same_kind_of_core(
    phone: Phone, keys: Path, tmp_path: Path, said: list[str]
) -> None:
    canned(phone)
    spec, plan = NetworkSpec(4, 3, (8, 8), 1, classes=3), MeasurePlan(sessions=1, patience_seconds=0, block=40)
    out = tmp_path / "phone.json"
    *others, fastest = sorted(os.sched_getaffinity(0))

    def resume(stop_at: int | None = None) -> LatencyTable:
        def stop(stage: str, done: int, _total: int) -> None:
            if stage == "operations: measuring" and stop_at is not None and done >= stop_at:
                raise KeyboardInterrupt

        with Adbd(phone) as adbd:
            shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys)
            device = AndroidDevice(shell, f"android:127.0.0.1:{adbd.port}", log=said.append)
            try:
                return profile_device(device, spec, calibration=4, plan=plan, out=out, resume=True, progress=stop)
            finally:
                device.release()

    with pytest.raises(KeyboardInterrupt):
        resume(stop_at=45)
    kept = (tmp_path / "phone.json.partial").read_bytes()
    phone.switch_on(others)
    with pytest.raises(DeviceStateError, match=r"measured on 1 x 1800 MHz, and the profile began on 1 x 2800 MHz"):
        resume()
    assert f"core {fastest} of {len(others) + 1} cannot be used now" in said[-1]
    assert (tmp_path / "phone.json.partial").read_bytes() == kept
    phone.switch_on([*others, fastest])
    # What is noticed in the middle of a profile is a warning of its table, which --strict refuses.
    phone.battery(usb=False)
    table = resume()
    warning = "the phone runs on its battery: no charger and no powered cable"
    assert table.conditions["warnings"] == [warning]
    assert warning in table.quality_warnings()
    assert table.conditions["core_kind"] == "1 x 2800 MHz"
    assert table.device != table.conditions["device_identity"] == "android:SIM0001"


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
