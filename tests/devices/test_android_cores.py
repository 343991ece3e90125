"""The cores of a phone: those that threads are pinned to, and what happens when one goes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from canned_phone import PLAN, canned
from long_runs import amount
from machines import needs_two_cores
from phone_stand import standing
from simulated_phone import Adbd, Phone, System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import (
    DeviceError,
    DeviceStateError,
)
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.space.network_spec import NetworkSpec


@pytest.fixture
def model_count() -> int:
    return 5


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
        waits = Waits(cool_down=0.1, pause=0.02)
        device = AndroidDevice(shell, "android:sim", threads, log=lambda _: None, waits=waits)
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
