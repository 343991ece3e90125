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
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from long_runs import amount
from phone_stand import WAITS, Stand, standing
from simulated_phone import Phone, System

from cars_hw.cli.signals import ends_in_order
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import remote_folder
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_folder import LEASE_S, Holder
from cars_hw.errors import ConnectionLostError, DeviceError, DeviceStateError
from cars_hw.measurement.schedule import measure

PLAN = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
STAY = "stay_on_while_plugged_in"


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


# Holders of a lock whose process is gone, or not.
class Held(NamedTuple):
    """Who holds the lock, when it was renewed, and what another tool then says; None if it goes on."""

    holder: str
    seen: str
    says: str | None


OTHER = "0123456789abcdef 111111111111 laptop 4242 777"
ROWS = {
    "another computer, now": Held(OTHER, "UPTIME", r"another cars-hw \(process 4242 on laptop\) measures on"),
    "another computer, a while ago": Held(OTHER, f"UPTIME-{LEASE_S - 20}", r"until \d+ s have passed"),
    "another computer, long ago": Held(OTHER, f"UPTIME-{LEASE_S + 20}", None),
    "another computer, before the phone was started again": Held(OTHER, "UPTIME+1000", None),
    "no time, as the storage was full": Held(OTHER, "", r"until (300|29\d) s have passed"),
    "no name, long ago": Held("", f"UPTIME-{LEASE_S + 20}", None),
    # A lock appears as a whole, so that this one is nobody's.
    "no name, now": Held("", "UPTIME", None),
    "garbage": Held("a b c", f"UPTIME-{LEASE_S + 20}", None),
    "garbage, now": Held("a b c", "UPTIME", r"another cars-hw measures on .*until (300|29\d) s have passed"),
    "this computer, a process that has ended": Held("0123456789abcdef HERE host 4194305 1", "UPTIME", None),
    "this computer, another process of that number": Held("0123456789abcdef HERE host PID 1", "UPTIME", None),
    "this process, a device that was dropped": Held("0123456789abcdef HERE host PID STARTED", "UPTIME", None),
    "this computer, a process that runs": Held(
        "0123456789abcdef HERE host PARENT PARENT_STARTED", "UPTIME", "PARENT"
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_lock_of_a_process_that_is_gone_is_taken_over_and_no_other(
    name: str, tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    row = ROWS[name]
    words = {
        "PARENT_STARTED": remote_folder._started(os.getppid()),
        "PARENT": str(os.getppid()),
        "HERE": remote_folder._computer(),
        "PID": str(os.getpid()),
        "STARTED": remote_folder._started(os.getpid()),
    }
    uptime = int(float(Path("/proc/uptime").read_text().split()[0]))

    def filled(text: str) -> str:
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    with standing(tmp_path / "phone", keys, System()) as stand:
        folder = stand.phone.tmp / "cars-hw"
        (folder / "lock").mkdir(parents=True)
        (folder / "lock" / "owner").write_text(f"{filled(row.holder)}\n")
        seen = str(eval(row.seen.replace("UPTIME", str(uptime)))) if row.seen else ""  # noqa: S307 -- our own sums
        (folder / "lock" / "seen").write_text(f"{seen}\n")
        (folder / "0123456789abcdef").mkdir()
        (folder / "0123456789abcdef" / "m-1.tflite").write_text("theirs")
        (folder / "before").write_text("cars-hw-1 2 end\n")
        stand.phone.set(STAY, "7")
        device = stand.device()
        if row.says is None:
            assert len(device.run(models, PLAN, 0)) == 3
            device.release()
            assert stand.phone.setting(STAY) == "2"
            assert not folder.exists()
        else:
            with pytest.raises(DeviceStateError, match=filled(row.says)) as raised:
                device.run(models, PLAN, 0)
            assert raised.value.remedy == "resume"
            device.release()
            # Whoever only looks at the phone changes nothing either.
            device.conditions()
            device.release()
            assert (folder / "0123456789abcdef" / "m-1.tflite").read_text() == "theirs"
            assert stand.phone.setting(STAY) == "7"


@pytest.mark.parametrize(("boot", "is_taken"), [("another", True), ("", False), ("the same", False)])
def test_the_lock_of_a_computer_is_taken_over_at_once_if_the_phone_was_started_again(
    boot: str, is_taken: bool, tmp_path: Path, keys: Path
) -> None:
    """Also where it has run for longer since than it had run when the lock was renewed."""
    with standing(tmp_path / "phone", keys, System()) as stand:
        lock = stand.phone.tmp / "cars-hw" / "lock"
        lock.mkdir(parents=True)
        (lock / "owner").write_text(f"{OTHER}\n")
        (lock / "seen").write_text(f"{int(float(Path('/proc/uptime').read_text().split()[0])) - 5}\n")
        same = Path("/proc/sys/kernel/random/boot_id").read_text()
        (lock / "boot").write_text(same if boot == "the same" else f"{boot}\n")
        (lock.parent / "before").write_text("cars-hw-1 2 end\n")
        stand.phone.set(STAY, "7")
        device = stand.device()
        device.conditions()
        device.release()
        assert stand.phone.setting(STAY) == ("2" if is_taken else "7")
        assert lock.parent.exists() != is_taken


def test_a_second_tool_is_refused_at_once_and_the_first_ends_right(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        first, second = stand.device(), stand.device()
        for _ in range(amount(2, 20)):
            refused: list[str] = []

            def other(done: int, second: AndroidDevice = second, refused: list[str] = refused) -> None:
                if done != 1:
                    return
                began = time.monotonic()
                with pytest.raises(DeviceStateError, match=f"process {os.getpid()} on .* measures on") as raised:
                    second.run(models, PLAN, 0)
                second.release()
                assert time.monotonic() - began < 5
                refused.append(str(raised.value))

            samples = first.run(models, PLAN, 0, other)
            assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200]
            assert len(refused) == 1
            # Also between two blocks, where nothing of the first runs on the phone.
            with pytest.raises(DeviceStateError, match="another cars-hw"):
                second.run(models, PLAN, 0)
            assert len(first.run(models, PLAN, 0)) == 3
            first.release()
            assert len(second.run(models, PLAN, 0)) == 3
            second.release()
            first, second = second, first
        assert not (stand.phone.tmp / "cars-hw").exists()


def test_files_that_another_tool_removed_meanwhile_go_over_again(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    """As after a pause longer than the lease, in which another computer measured."""
    with standing(tmp_path / "phone", keys, System()) as stand:
        device = stand.device()
        device.run(models, PLAN, 0)
        for path in (stand.phone.tmp / "cars-hw").rglob("*"):
            path.unlink() if path.is_file() else None
        for path in sorted((stand.phone.tmp / "cars-hw").rglob("*"), reverse=True):
            path.rmdir()
        assert [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0)] == [1000, 1100, 1200]
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


def test_a_holder_is_written_in_words_that_any_shell_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Ada's laptop; rm -rf /")
    holder = Holder.new()
    assert re.fullmatch(r"[0-9a-f]{16} [0-9a-f]{12} Ada-s-laptop--rm--rf-- \d+ \d+", str(holder))
    assert Holder.parse(str(holder)) == holder


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


RAMP = """\
for flag in "$@"; do case $flag in --warmup_min_secs=*) seconds=${flag#--warmup_min_secs=} ;; esac; done
sum='BEGIN { r = 1 - s / RAMP; if (r < 0) r = 0; printf "%d", us * (1 + 0.8 * r) }'
us=$(PATH=/usr/bin:/bin; awk -v us=$us -v s=$seconds "$sum")
"""


# Ends the warm-up at the limit of the tool, as the tool does. To be followed by RAMP.
CUT = """\
limit() { awk -v a="$1" -v b="$2" 'BEGIN { print (a < b ? a : b) }'; }
for flag in "$@"; do case $flag in --max_secs=*) most=${flag#--max_secs=} ;; esac; done
for flag in "$@"; do
  case $flag in --warmup_min_secs=*)
    flag=--warmup_min_secs=$(PATH=/usr/bin:/bin; limit "${flag#--warmup_min_secs=}" "$most") ;;
  esac
  shift
  set -- "$@" "$flag"
done
"""


@pytest.mark.parametrize("seconds", [0.01, 0.06, 0.3, 1.2])
def test_a_clock_that_rises_is_waited_for(seconds: float, tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """The canned runner is slower as long as its clock rises: of 1000 microseconds, up to 1800."""
    plan = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, patience_seconds=0)
    with standing(tmp_path / "phone", keys, System(), RAMP.replace("RAMP", str(seconds))) as stand:
        device = stand.device()
        samples = device.run(models, plan, 0)
        assert [1e3 * sample.ms for sample in samples] == pytest.approx([1000, 1100, 1200], rel=0.02)
        warmup = device.conditions()["warmup_s"]
        # Not longer than it has to be: twice the time that the clock takes, and the shortest there is.
        assert seconds * 0.97 <= warmup <= max(2 * seconds, 0.1)
        device.release()
        assert stand.said == []


def test_a_quick_plan_before_does_not_shorten_the_warm_up(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """The tool ends its warm-up, too, after --max_secs; and each plan has a warm-up of its own."""
    quick = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, max_seconds=0.5, patience_seconds=0)
    with standing(tmp_path / "phone", keys, System(), CUT + RAMP.replace("RAMP", "1.2")) as stand:
        device = stand.device()
        assert [sample.ms for sample in device.run(models[:1], replace(quick, warmup_seconds=0.0), 0)] == [1.8]
        assert [sample.ms for sample in device.run(models[:1], quick, 0)] == pytest.approx([1.0], rel=0.02)
        assert device.conditions()["warmup_s"] >= 1.2 * 0.97
        device.release()


def test_a_clock_that_never_is_steady_is_told(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    with standing(tmp_path / "phone", keys, System(), RAMP.replace("RAMP", "4")) as stand:
        device = stand.device()
        device.run(models[:1], MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, patience_seconds=0), 0)
        assert "still falls after 3.2 s of warm-up" in stand.said[0]
        device.release()


def test_a_phone_that_is_not_at_its_best_is_measured_and_told(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        device = stand.device()
        conditions = device.conditions()
        assert (conditions["warnings"], conditions["plugged"], conditions["battery_saver"]) == ([], True, None)
        stand.phone.set("low_power", "1")
        stand.phone.battery(usb=False)
        stand.phone.limit_clocks(1200)
        assert len(device.run(models, PLAN, 0)) == 3
        conditions = device.conditions()
        core = conditions["pinned"][0]
        assert conditions["warnings"] == [
            f"the clock of core {core} is limited to 1200 of 2800 MHz",
            "the battery saver is on",
            "the phone runs on its battery: no charger and no powered cable",
        ]
        assert [line.split(": ", 1)[1] for line in stand.said] == [
            f"{text}; latencies are those of this state" for text in conditions["warnings"]
        ]
        device.release()


def test_a_hot_case_counts_also_where_the_thermal_status_stays_zero(
    tmp_path: Path, keys: Path, models: list[Path]
) -> None:
    with standing(tmp_path / "phone", keys, System()) as stand:
        stand.phone.thermal(0, skin=43.5)
        device = stand.device()
        with pytest.raises(
            DeviceStateError, match=r"still is hot .battery 27 C, case 43\.5 C, processor 25\.6 C, "
        ):
            device.run(models, PLAN, 0)
        stand.phone.thermal(0, skin=33.0)
        assert len(device.run(models, PLAN, 0)) == 3
        assert device.conditions()["skin_c"] == 33.0
        device.release()


def test_a_good_state_is_read_again_after_a_while_only(tmp_path: Path, keys: Path, models: list[Path]) -> None:
    """Reading the state takes a part of the time of a block."""
    with standing(tmp_path / "phone", keys, System()) as stand:

        def readings() -> int:
            return stand.phone.log().count("settings get global low_power")

        device = stand.device(replace(WAITS, state=60.0))
        assert len(device.run(models, PLAN, 0)) == 3
        before = readings()
        assert len(device.run(models, PLAN, 0)) == 3
        assert readings() == before
        # The next contact after a lost connection reads it.
        stand.adbd.cut()
        assert len(device.run(models, PLAN, 0)) == 3
        assert readings() > before
        device.release()
        impatient = stand.device()
        impatient.run(models, PLAN, 0)
        before = readings()
        impatient.run(models, PLAN, 0)
        assert readings() > before
        impatient.release()


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
