"""A phone that is away for a while, against the simulated one: waited for, and never taken for another."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from canned_phone import PLAN, canned
from long_runs import amount
from simulated_phone import Adbd, Phone

from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    NoDeviceError,
    OfflineError,
)


@pytest.fixture
def model_count() -> int:
    return 5


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
        for _ in range(amount(7, 200)):
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
