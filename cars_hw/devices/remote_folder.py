"""The folder of cars-hw on a remote machine: one process at a time uses it, and the next one removes what is left.

The folder has a lock (``lock/owner``, ``lock/seen``, ``lock/boot``, ``lock/pid``), a folder of files for the
process that holds it, and what has to outlive both, such as a record of settings. Files with other names stay,
because somebody may have a folder of this name on a board. The holder renews its lock at every contact and at every
session. The lock of a process that is gone can be taken over: at once if the process ran on this computer, or if
the machine was started again since, otherwise after :data:`LEASE_S`. A lock appears and disappears as a whole, so
that one without a holder is what was left of a broken one. Where a lock does not tell when it was renewed, its time
begins with the first contact that finds it. The shell text is in :mod:`cars_hw.devices.remote_lock`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import socket
import weakref
from pathlib import Path
from typing import Final, NamedTuple

from cars_hw.devices.remote import RemoteShell, last_lines
from cars_hw.devices.remote_lock import BOOT, CLAIM, FUNCTIONS, LEAVE, SAYS, STOP_S
from cars_hw.errors import DeviceError, DeviceStateError
from cars_hw.progress import Log

LEASE_S: Final = 300
"""A lock that was not renewed for so many seconds is that of a process that is gone."""

_AGAIN: Final = "again"
"""What a script says if the machine was started again since a lock was renewed."""


class Holder(NamedTuple):
    """The process that holds a lock: a token, its computer (a digest and a name), its number and its start."""

    token: str
    computer: str
    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads: five words without special characters."""
        return f"{self.token} {self.computer} {self.host} {self.pid} {self.started}"

    @staticmethod
    def parse(text: str) -> Holder | None:
        """Return the holder in ``text``; None if there is none, as in a lock that could not be written."""
        words = text.split()
        if len(words) != 5 or not words[3].isdecimal():
            return None
        return Holder(words[0], words[1], words[2], int(words[3]), words[4])

    @staticmethod
    def new() -> Holder:
        """Return this process as a holder, with a new token."""
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "unknown"
        return Holder(secrets.token_hex(8), _computer(), host, os.getpid(), _started(os.getpid()))

    def is_gone(self) -> bool:
        """Return whether the process is known to have ended; False for one of another computer."""
        if self.computer != _computer():
            return False
        if self.pid == os.getpid() and self.started == _started(self.pid):
            return self.token not in _HERE
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return _started(self.pid) != self.started


class RemoteFolder:
    """The folder ``path`` behind ``shell``. ``restore`` is shell text that defines a function of this name.

    The function restores settings from the record ``before``, which stays if that fails. It runs in the folder.
    ``log`` gets what the scripts note, each note once.
    """

    def __init__(self, shell: RemoteShell, path: str, *, restore: str, log: Log, stop_s: int = STOP_S) -> None:
        self.path = path
        self.holder = Holder.new()
        self._shell = shell
        self._restore = restore
        self._log = log
        self._stop_s = stop_s
        self._claimed = False
        self._noted: set[str] = set()

    @property
    def is_claimed(self) -> bool:
        """Whether this process has taken the lock, or may have, and may have left something on the machine."""
        return self._claimed

    @property
    def own(self) -> str:
        """The path of the files of this process."""
        return f"{self.path}/{self.holder.token}"

    @property
    def functions(self) -> str:
        """The shell functions of the lock, and that which restores."""
        return f"{self._filled(FUNCTIONS)}\n{self._restore}"

    def note(self, text: str) -> None:
        """Log what a script notes, once."""
        if text not in self._noted:
            self._noted.add(text)
            self._log(f"{self._shell.where}: {text}")

    def claim(self) -> bool:
        """Take the lock, or renew it; return whether it is new, so that the files of this process are gone.

        What processes that are gone have left is restored and removed.

        Raises:
            DeviceStateError: another process holds it, or the folder cannot be written.
            DeviceError: the connection fails.
        """
        # If an answer is lost, the lock may be there.
        self._hold()
        said = self._call(f"{self._filled(CLAIM)}\nclaim")
        if said[0] == "held":
            self.give_up()
            record, seen, uptime, again = (part.strip() for part in f"{said[1]} / / / ".split("/")[:4])
            if again != _AGAIN:
                self._require_gone(Holder.parse(record), seen, uptime)
            self._hold()
            said = self._call(f"{self._filled(CLAIM)}\ncd {self.path} && seize {shlex.quote(record)}\nclaim")
        kind, text = said
        if kind in ("claimed", "kept"):
            return kind == "claimed"
        self.give_up()
        if kind == "held":
            raise self._in_use(Holder.parse(text.partition("/")[0]), LEASE_S)
        raise DeviceStateError(
            f"{self._shell.where}: {self.path} cannot be written ({text or kind}); free some storage, or remove "
            "that folder",
            remedy="resume",
        )

    def tidy(self) -> None:
        """Restore and remove what processes that are gone have left; nothing if this or another one is at work.

        Raises:
            DeviceError: the connection fails.
        """
        if self._claimed or self._shell.call(f"[ -d {self.path} ]").status != 0:
            return
        try:
            self.claim()
        except DeviceStateError:
            return
        self.leave()

    def leave(self) -> None:
        """Restore the machine, remove the files and release the lock. A failure to restore is logged.

        Raises:
            DeviceError: the connection fails; the next contact does it then.
        """
        if self._claimed:
            self.give_up()
            self._call(self._filled(LEAVE))

    def _hold(self) -> None:
        self._claimed = True
        _HERE[self.holder.token] = self

    def give_up(self) -> None:
        """Leave what is on the machine to the next contact, of whichever process."""
        self._claimed = False
        _HERE.pop(self.holder.token, None)

    def _call(self, command: str) -> tuple[str, str]:
        """Run ``command`` after the functions; return the last word that it says of the lock, and what follows."""
        answer = self._shell.call(f"{self.functions}\n{command}", 30.0 + 2 * self._stop_s)
        said = ("", last_lines(answer.output))
        for line in answer.output.splitlines():
            _, found, text = line.rpartition(f"{SAYS} ")
            kind, _, rest = text.strip().partition(" ")
            if found and kind == "note":
                self.note(rest)
            elif found:
                said = (kind, rest)
        return said

    def _require_gone(self, holder: Holder | None, seen: str, uptime: str) -> None:
        if holder is not None and holder.is_gone():
            return
        if not (seen.isdecimal() and uptime.isdecimal()):
            raise self._in_use(holder, None)
        # A machine that was started again since has a smaller uptime, and runs nothing of before.
        age = int(uptime) - int(seen)
        if 0 <= age < LEASE_S:
            raise self._in_use(holder, LEASE_S - age)

    def _in_use(self, holder: Holder | None, left_s: int | None) -> DeviceError:
        who = "" if holder is None else f" (process {holder.pid} on {holder.host})"
        until = f"{self.path} is removed there" if left_s is None else f"{left_s} s have passed"
        return DeviceStateError(
            f"another cars-hw{who} measures on {self._shell.where}; wait for it to end, or, if it is gone, until "
            f"{until}",
            remedy="resume",
        )

    def _filled(self, text: str) -> str:
        return (
            text.replace("RECORD", str(self.holder))
            .replace("FOLDER", self.path)
            .replace("OWN", self.holder.token)
            .replace("STOP_S", str(self._stop_s))
            .replace("BOOT", BOOT)
        )


_HERE: Final[weakref.WeakValueDictionary[str, RemoteFolder]] = weakref.WeakValueDictionary()
"""The locks that this process holds, by the token of their holder."""


def _computer() -> str:
    """Return a digest of this computer since it was started; containers on one computer differ."""
    parts = [socket.gethostname()]
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            parts.append(Path(path).read_text(encoding="ascii").strip())
        except OSError:
            continue
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("?")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """Return when the process ``pid`` began, so that another one of this number is told from it; 0 if unknown."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError):
        return "0"
