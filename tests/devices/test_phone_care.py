"""Whatever happens, a phone is left as it was: its settings, its files, and the files of another tool on it.

Each row says what the phone does, what the tool says, and what the measurement gives; combinations of them are
generated. The phone runs mksh and toybox in a terminal where these are installed.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from long_runs import amount
from phone_stand import PLAN, STAY, Stand, standing
from simulated_phone import Phone, System

from cars_hw.cli.signals import ends_in_order
from cars_hw.devices import remote_folder
from cars_hw.errors import ConnectionLostError, DeviceError, DeviceStateError
from cars_hw.measurement.schedule import measure


@pytest.fixture(autouse=True)
def nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# What the system of a phone is like.
SYSTEMS = {
    "a phone of today": System(),
    "no terminal": System(terminal=False),
    "a linker that warns": System(warns=True),
    "an old phone": System(without=("sha256sum", "sha1sum", "md5sum", "fsync", "taskset")),
}

# The value of the setting before, and what is told of it and about changing it.
VALUES = (None, "0", "3", "15")
SETTINGS: dict[str, Callable[[Phone], object]] = {
    "settings that can be changed": lambda _: None,
    "denied settings": lambda phone: phone.deny_settings(),
    "a warning in place of a value": lambda phone: phone.answer_settings("cmd: Can't find service: settings\n"),
    "an empty value": lambda phone: phone.answer_settings("\n"),
    "a number that is no value": lambda phone: phone.answer_settings("4096\n"),
}
LEFT_ALONE = tuple(SETTINGS)[2:]


# What happens in the middle, and with which error the measurement ends, if it does.
ENDS: dict[str, type[BaseException] | None] = {
    "nothing": None,
    "Ctrl-C": KeyboardInterrupt,
    "a cable that stays out": ConnectionLostError,
    "scripts that are killed": None,
    "a full storage": DeviceStateError,
    "a runner that crashes": DeviceError,
}


class Case(NamedTuple):
    """One row: the system, the value before, the settings, and what happens."""

    system: str
    value: str | None
    settings: str
    happens: str


ALL = [Case(*one) for one in itertools.product(SYSTEMS, VALUES, SETTINGS, ENDS)]


def sampled(count: int) -> list[Case]:
    """Return cases that have every system, value, kind of settings and event at least once."""
    shuffled = random.Random(0).sample(ALL, len(ALL))
    chosen: list[Case] = []
    missing = {*SYSTEMS, *VALUES, *SETTINGS, *ENDS}
    for case in shuffled:
        if missing & set(case):
            chosen.append(case)
            missing -= set(case)
    return list(dict.fromkeys([*chosen, *shuffled]))[:count]


@pytest.mark.parametrize("case", sampled(amount(14, len(ALL))), ids=lambda case: ", ".join(map(str, case)))
def test_a_phone_is_left_as_it_was(case: Case, tmp_path: Path, keys: Path, models: list[Path]) -> None:
    fault = "kill -9 $$" if case.happens == "a runner that crashes" else ":"
    with standing(tmp_path / "phone", keys, SYSTEMS[case.system], fault) as stand:
        phone = stand.phone
        phone.set(STAY, case.value)
        SETTINGS[case.settings](phone)
        error, samples = happening(stand, case.happens, models)
        expected = ENDS[case.happens]
        assert (error is None) == (expected is None), error
        if expected is not None:
            assert isinstance(error, expected)
        else:
            assert [round(1e3 * ms) for ms in samples] == [1000, 1100, 1200]
        # The cable goes in again, the storage has room again, and somebody looks at the phone.
        phone.fills_up = False
        phone.storage(4_000_000)
        stand.adbd.faults.refuse_s = stand.adbd._let_in_at = 0.0
        looking = stand.device()
        looking.conditions()
        looking.release()
        assert phone.setting(STAY) == case.value
        fixed = phone.folder / "fixed-mode"
        assert not fixed.exists() or fixed.read_text() == "false\n"
        assert not (phone.tmp / "cars-hw").exists()
        told = " ".join(stand.said)
        changed = "svc power stayon true" in phone.log()
        assert changed == (case.settings not in LEFT_ALONE and case.happens != "a full storage")
        if case.happens not in ("a full storage", "a cable that stays out"):
            assert ("settings are left as they are" in told) == (case.settings in LEFT_ALONE)
        if case.settings == "denied settings" and case.value in (None, "0") and expected is None:
            assert "does not let the screen stay on" in told
        assert not any("\n" in line for line in stand.said)


def happening(stand: Stand, happens: str, models: list[Path]) -> tuple[BaseException | None, list[float]]:
    """Measure ``models`` while ``happens``; return the error, if any, and the latencies in milliseconds."""
    device = stand.device()
    if happens == "a full storage":
        stand.phone.fills_up = True

    def on_session(done: int) -> None:
        if happens == "Ctrl-C" and done == 2:
            raise KeyboardInterrupt
        if happens == "a cable that stays out" and done == 2:
            stand.adbd.faults.refuse_s = 60.0
            stand.adbd.cut()
        if happens == "scripts that are killed" and done == 2:
            stand.phone.kill_shells()

    try:
        return None, [sample.ms for sample in device.run(models, PLAN, 0, on_session)]
    except (DeviceError, KeyboardInterrupt) as error:
        return error, []
    finally:
        device.release()


def test_ctrl_c_says_at_once_what_it_does_and_a_second_one_leaves_it_to_the_next_contact(
    tmp_path: Path, keys: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        device = stand.device()

        def again(command: str, limit_s: float = 0.0) -> None:
            assert stand.said[-1].startswith("Stopping: restoring the settings of the phone at 127.0.0.1")
            raise KeyboardInterrupt

        def stop(_stage: str, done: int, _total: int) -> None:
            if done == 2:
                monkeypatch.setattr(device._shell, "call", again)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure(device, models, PLAN, progress=stop)
        assert (stand.phone.tmp / "cars-hw").exists()
        looking = stand.device()
        looking.conditions()
        assert not (stand.phone.tmp / "cars-hw").exists()
        assert stand.phone.setting(STAY) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_as_exceptions_do(
    number: signal.Signals, tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    # Tests that are run by nohup ignore it, and what is ignored stays so.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with standing(tmp_path / "phone", keys, System()) as stand:
            device = stand.device()

            @ends_in_order
            def command() -> None:
                measure(
                    device,
                    models,
                    PLAN,
                    progress=lambda _stage, done, _total: done == 2 and os.kill(os.getpid(), number),
                )

            with pytest.raises(SystemExit) as raised:
                command()
            assert raised.value.code == 128 + number
            assert signal.getsignal(number) == signal.SIG_DFL
            assert not (stand.phone.tmp / "cars-hw").exists()
            assert stand.phone.setting(STAY) is None
            assert any(line.startswith("Stopping:") for line in stand.said)
    finally:
        signal.signal(number, before)


def test_a_folder_of_root_is_an_error_that_says_so(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """As root does in tests what others cannot, a file stands where the folder would be."""
    with standing(tmp_path / "phone", keys, System()) as stand:
        (stand.phone.tmp / "cars-hw").write_text("")
        device = stand.device()
        with pytest.raises(
            DeviceStateError, match=r"/data/local/tmp/cars-hw cannot be written \(.*remove that folder"
        ):
            device.run(models, PLAN, 0)
        device.release()
        assert "svc power stayon true" not in stand.phone.log()


def test_a_record_that_is_damaged_is_told_and_restores_nothing(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    for text in ("", "cars-hw-1 3", "cars-hw-1 WARNING: end", "cars-hw-2 3 end", "3\n"):
        with standing(tmp_path / "phone", keys, System()) as stand:
            (stand.phone.tmp / "cars-hw").mkdir()
            (stand.phone.tmp / "cars-hw" / "before").write_text(text)
            stand.phone.set(STAY, "7")
            device = stand.device()
            device.conditions()
            assert any("record of its settings is damaged" in line for line in stand.said)
            assert stand.phone.setting(STAY) == "7"
            assert not (stand.phone.tmp / "cars-hw").exists()


def test_settings_that_cannot_be_restored_are_told_and_restored_at_a_later_contact(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System(), "sleep 0.2") as stand:
        stand.phone.set(STAY, "2")
        device = stand.device()
        device.run(models[:2], PLAN, 0, lambda _: stand.phone.deny_settings())
        device.release()
        assert stand.phone.setting(STAY) == "7"
        assert re.search(rf"{STAY} was 2, is 7, and cannot be restored", " ".join(stand.said))
        device.conditions()
        device.release()
        assert (stand.phone.tmp / "cars-hw" / "before").exists()
        stand.phone.deny_settings(False)
        device.conditions()
        assert stand.phone.setting(STAY) == "2"
        assert not (stand.phone.tmp / "cars-hw").exists()


HAPPENS = ("a cut", "a kill", "a restart", "a restart of the phone and another computer")


@pytest.mark.parametrize("seed", range(amount(1, 5)))
def test_random_kills_cuts_and_restarts_leave_nothing_behind(
    seed: int, tmp_path: Path, keys: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that is killed, a cable that is pulled, a phone that restarts, a computer that goes off: at any
    moment, counted in packets."""
    rng = random.Random(seed)
    with standing(tmp_path / "phone", keys, System(), "PATH=/usr/bin:/bin sleep 0.02") as stand:
        phone, adbd = stand.phone, stand.adbd
        for number in range(amount(4, 40)):
            happens, value = HAPPENS[number % len(HAPPENS)], rng.choice([None, "0", "3"])
            phone.set(STAY, value)
            device = stand.device()
            act = {"a cut": lambda: None, "a kill": phone.kill_shells}.get(happens, phone.restart)
            adbd.at(adbd.packets + rng.randrange(1, 60), act, cuts=happens != "a kill")
            with suppress(DeviceError):
                device.run(models, PLAN, 0)
            # The computer goes off: nothing is released.
            device._shell.close()
            del device
            gc.collect()
            adbd.at(None)
            with monkeypatch.context() as patch:
                if happens == HAPPENS[-1]:
                    # It cannot tell whether the process of the lock runs, but that the phone was started again.
                    phone.restart()
                    patch.setattr(remote_folder, "_computer", lambda: "another")
                looking = stand.device()
                looking.conditions()
                looking.release()
            assert phone.setting(STAY) == value, (number, happens)
            fixed = phone.folder / "fixed-mode"
            assert not fixed.exists() or fixed.read_text() == "false\n"
            assert not (phone.tmp / "cars-hw").exists(), (number, happens)


@pytest.mark.parametrize("part", range(amount(1, 4)))
def test_a_storage_that_becomes_full_at_any_moment_is_said_and_leaves_nothing_behind(
    part: int, tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    """Also in the middle of a push, of a script, of a session, and before the settings are restored."""
    rng = random.Random(part)
    outcomes: set[str] = set()
    with standing(tmp_path / "phone", keys, System(), "PATH=/usr/bin:/bin sleep 0.02") as stand:
        phone, adbd = stand.phone, stand.adbd
        for number in range(part, amount(4, 100), amount(1, 4)):
            value = rng.choice([None, "0", "3"])
            phone.set(STAY, value)
            device = stand.device()
            adbd.at(adbd.packets + 1 + number * 60 // amount(4, 100), lambda: phone.storage(0))
            try:
                taken = [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0)]
                outcomes.add("measured")
                assert taken == [1000, 1100, 1200]
            except DeviceStateError as error:
                outcomes.add("refused")
                assert re.search(r"no room left|MB left|cannot be written", str(error)), error
                assert "\n" not in str(error)
            device.release()
            assert phone.setting(STAY) == value, number
            adbd.at(None)
            phone.storage(4_000_000)
            looking = stand.device()
            looking.conditions()
            looking.release()
            assert phone.setting(STAY) == value, number
            assert not (phone.tmp / "cars-hw").exists(), number
    assert "refused" in outcomes


def test_a_storage_that_becomes_full_under_load_is_said(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        stand.phone.fills_up = True
        device = stand.device()
        with pytest.raises(DeviceStateError, match=r"no room left|MB left"):
            device.load(models[0], 1, 0.01, rested=True)
        stand.phone.storage(4_000_000)
        device.release()
        assert not (stand.phone.tmp / "cars-hw").exists()


def test_the_record_of_the_settings_is_on_the_storage_before_one_is_changed(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        device = stand.device()
        device.run(models[:1], PLAN, 0)
        device.release()
        log = [line for line in stand.phone.log() if re.match(r"f?sync|svc", line)]
        folder = stand.phone.tmp / "cars-hw"
        if (stand.phone.folder / "bin" / "fsync").exists():
            assert log == [f"fsync {folder}/before.new", f"fsync {folder}", "svc power stayon true"]
        else:
            assert log == ["sync ", "sync ", "svc power stayon true"]


def test_files_that_are_not_those_of_the_tool_stay(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        folder = stand.phone.tmp / "cars-hw"
        (folder / "results").mkdir(parents=True)
        (folder / "results" / "front.json").write_text("mine")
        (folder / "README.md").write_text("mine, too")
        (folder / "0123456789abcdef").mkdir()
        device = stand.device()
        assert len(device.run(models, PLAN, 0)) == 3
        device.release()
        assert (folder / "results" / "front.json").read_text() == "mine"
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "results"]
