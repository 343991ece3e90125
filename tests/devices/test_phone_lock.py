"""The lock of a phone: of two tools on it one measures, and one that is gone holds nobody up."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from long_runs import amount
from phone_stand import PLAN, STAY, standing
from simulated_phone import System

from cars_hw.devices import remote_folder
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_folder import LEASE_S, Holder
from cars_hw.errors import DeviceStateError


@pytest.fixture(autouse=True)
def nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def test_a_holder_is_written_in_words_that_any_shell_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Ada's laptop; rm -rf /")
    holder = Holder.new()
    assert re.fullmatch(r"[0-9a-f]{16} [0-9a-f]{12} Ada-s-laptop--rm--rf-- \d+ \d+", str(holder))
    assert Holder.parse(str(holder)) == holder
