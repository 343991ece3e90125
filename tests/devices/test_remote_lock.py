"""The lock on a remote machine, whose scripts end between any two of their commands.

The scripts run in a shell of this machine: mksh and toybox, if they are here, as on a phone.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from long_runs import amount

from cars_hw.devices import remote_folder, remote_lock
from cars_hw.devices.remote import Answer, BrokenOffError
from cars_hw.devices.remote_folder import LEASE_S, Holder, RemoteFolder
from cars_hw.errors import DeviceError, DeviceStateError

SHELLS = [name for name in ("mksh", "dash", "bash") if shutil.which(name)] or ["sh"]
RESTORE = "restore() { [ -f ../before ] && rm ../before; return 0; }"
OTHER = "0123456789abcdef 111111111111 laptop 4242 777"


@dataclass
class Local:
    """A shell of this machine. ``dies_at`` ends it before a command: the text, and which of its lines."""

    folder: Path
    program: str = SHELLS[0]
    dies_at: tuple[str, int] | None = None
    boot: str = "one"
    where: str = "the machine"
    died: int = 0
    said: list[str] = field(default_factory=list)

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        (self.folder / "boot").write_text(f"{self.boot}\n")
        text = command.replace(remote_lock.BOOT, str(self.folder / "boot")).replace("sleep 1; slept", "slept")
        path = os.environ["PATH"]
        if (self.folder / "bin").exists():
            path = str(self.folder / "bin")
        done = subprocess.run(
            [shutil.which(self.program) or "sh", "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=limit_s,
            env={"PATH": path},
        )
        if done.returncode == -9:
            self.died += 1
            raise BrokenOffError("it died")
        return Answer(done.stdout, done.returncode)

    def remote(self) -> RemoteFolder:
        return RemoteFolder(self, f"{self.folder}/cars-hw", restore=RESTORE, log=self.said.append)  # type: ignore[arg-type]


@pytest.fixture(params=SHELLS[: amount(1, 3)])
def local(tmp_path: Path, request: pytest.FixtureRequest) -> Local:
    toybox = shutil.which("toybox")
    if toybox is not None:
        known = subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split()
        (tmp_path / "bin").mkdir()
        for name in ("cat", "date", "kill", "mkdir", "mv", "rm", "rmdir", "sleep"):
            (tmp_path / "bin" / name).symlink_to(toybox if name in known else shutil.which(name) or "")
    return Local(tmp_path, request.param)


def dying(text: str, line: int) -> str:
    """Return ``text`` that ends itself after so many of its lines."""
    lines = text.splitlines()
    return "\n".join([*lines[:line], "kill -9 $$", *lines[line:]])


def cuts() -> list[tuple[str, int]]:
    """Return each place between two commands of the scripts."""
    return [
        (name, line)
        for name in ("CLAIM", "LEAVE")
        for line in range(1, len(getattr(remote_lock, name).splitlines()))
    ]


def put(folder: Path, owner: str, seen: str, boot: str) -> Path:
    """Make a lock; None of its files is one with nothing in it."""
    lock = folder / "cars-hw" / "lock"
    lock.mkdir(parents=True)
    for name, text in (("owner", owner), ("seen", seen), ("boot", boot)):
        if text:
            (lock / name).write_text(f"{text}\n")
    return lock


def uptime() -> int:
    return int(float(Path("/proc/uptime").read_text().split()[0]))


def ended_at(local: Local, cut: tuple[str, int], monkeypatch: pytest.MonkeyPatch, *, left: str) -> bool:
    """Take and leave the lock with scripts that end at ``cut``; return whether they did.

    ``left`` is what is there before: nothing, or the lock of a process that is gone.
    """
    name, line = cut
    shutil.rmtree(local.folder / "cars-hw", ignore_errors=True)
    if left != "nothing":
        put(local.folder, OTHER if left == "a lock" else "", str(uptime() - 2 * LEASE_S), local.boot)
        (local.folder / "cars-hw" / "0123456789abcdef").mkdir()
    local.died = 0
    with monkeypatch.context() as patch:
        patch.setattr(remote_folder, name, dying(getattr(remote_lock, name), line))
        one = local.remote()
        try:
            one.claim()
            one.leave()
        except DeviceError:
            one.give_up()
    return local.died > 0


@pytest.mark.parametrize("then", ["a restart", "the same computer", "another computer"])
def test_a_lock_is_freed_wherever_its_script_ended(
    then: str, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once after a restart and by its own computer, and after a stated time by another one."""
    every = [(cut, left) for cut in cuts() for left in ("nothing", "a lock", "a lock of nobody")]
    # All of them in one shell: the others differ in a few of the commands.
    chosen = random.Random(then).sample(every, amount(1, len(every) if local.program == SHELLS[0] else 30))
    ended = 0
    for cut, left in chosen:
        ended += ended_at(local, cut, monkeypatch, left=left)
        with monkeypatch.context() as patch:
            if then != "the same computer":
                patch.setattr(remote_folder, "_computer", lambda: "another")
            if then == "a restart":
                local.boot += "+"
            looking = local.remote()
            try:
                looking.claim()
            except DeviceStateError as error:
                assert then == "another computer", (cut, left, error)
                seconds = int(str(error).rpartition("until ")[2].split()[0])
                assert LEASE_S - 5 <= seconds <= LEASE_S, (cut, left, error)
                (local.folder / "cars-hw" / "lock" / "seen").write_text(f"{uptime() - LEASE_S}\n")
                assert looking.claim()
            looking.leave()
        assert not (local.folder / "cars-hw").exists(), (cut, left)
    assert ended or not amount(0, 1)


def test_what_ended_is_done_again_by_the_same_process(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a cable that came out: it takes its own lock again, and its files are whole or gone."""
    for cut in random.Random(0).sample(cuts(), amount(2, len(cuts()))):
        shutil.rmtree(local.folder / "cars-hw", ignore_errors=True)
        one = local.remote()
        name, line = cut
        with monkeypatch.context() as patch:
            patch.setattr(remote_folder, name, dying(getattr(remote_lock, name), line))
            try:
                one.claim()
                (Path(one.own) / "file").write_text("mine")
                one.leave()
            except DeviceError:
                pass
        is_new = one.claim()
        assert Path(one.own).is_dir(), cut
        assert is_new or (Path(one.own) / "file").exists() or name == "CLAIM", cut
        one.leave()
        assert not (local.folder / "cars-hw").exists(), cut


@pytest.mark.parametrize(
    ("owner", "seen", "boot", "then"),
    [
        # What the storage has after a phone has lost its power: names without content.
        ("", "", "", "free"),
        ("", "NOW", "one", "free"),
        (OTHER, "", "", "held, and free after a restart"),
        (OTHER, "NOW", "", "held, and free after a restart"),
        (OTHER, "7 7", "one", "held, and free after a restart"),
        (OTHER, "NOW", "zero", "free"),
    ][:: amount(2, 1)],
)
def test_a_lock_that_is_damaged_is_freed_at_once_or_after_a_stated_time(
    owner: str, seen: str, boot: str, then: str, local: Local
) -> None:
    lock = put(local.folder, owner, seen.replace("NOW", str(uptime())), boot)
    one = local.remote()
    if then == "free":
        assert one.claim()
    else:
        for _ in range(2):
            with pytest.raises(DeviceStateError, match=r"process 4242 on laptop.* until (300|29\d) s have passed$"):
                one.claim()
        assert (lock / "boot").read_text() == "one\n"
        local.boot = "two"
        assert one.claim()
    one.leave()
    assert list(local.folder.glob("cars-hw")) == []


def test_a_storage_without_room_takes_nothing_from_a_lock(local: Local) -> None:
    """A lock that was emptied would be nobody's, or one that never ends."""
    one = local.remote()
    assert one.claim()
    lock = local.folder / "cars-hw" / "lock"
    (lock / "seen").write_text("1\n")
    usual: Callable[..., Answer] = local.call
    local.call = lambda command, limit_s=30.0: usual(f"trap '' XFSZ; ulimit -f 0\n{command}", limit_s)  # type: ignore[method-assign]
    assert not one.claim()
    assert (lock / "seen").read_text() == "1\n"
    assert (lock / "boot").read_text() == "one\n"
    assert Holder.parse((lock / "owner").read_text()) == one.holder
    one.leave()
    with pytest.raises(DeviceStateError, match="no space left"):
        one.claim()
    assert not any(path.name.startswith("lock") for path in (local.folder / "cars-hw").iterdir())
