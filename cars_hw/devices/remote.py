"""Measuring on a machine that takes files and runs shell scripts: the protocol, whatever the connection.

A block of sessions goes over as one script, which marks where each begins and ends; so the way there is paid once a
block and not once a model. :class:`RemoteShell` is the seam: ADB is one, ssh to a board could be another.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

LOAD: Final = "/proc/loadavg"

TAIL: Final = 400
"""So many characters of what a failed command said are worth repeating."""


class Answer(NamedTuple):
    """What a command printed, both streams together, and its exit status."""

    output: str
    status: int


class RemoteShell(Protocol):
    """A POSIX shell somewhere else. Every call has a limit in seconds, and fails as a :class:`DeviceError`."""

    @property
    def where(self) -> str:
        """How a person calls it."""

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            DeviceError: nothing is there, it does not answer, or does not want to be talked to.
        """

    def close(self) -> None:
        """Disconnect; nothing happens where there is no connection."""

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return what it printed and its exit status.

        Raises:
            ConnectionLostError: the connection broke, or nothing came for ``limit_s``.
        """

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they come.

        Raises:
            ConnectionLostError: the connection broke.
            SilenceError: nothing came for ``idle_s``.
        """

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 120.0) -> None:
        """Copy the file ``source`` to ``target``.

        Raises:
            ConnectionLostError: the connection broke.
            DeviceStateError: there is no room.
        """


class Session(NamedTuple):
    """One session of a block: its number and the command that runs it."""

    number: int
    command: str


class Ran(NamedTuple):
    """How a session ended: its exit status, all that it printed, and what it ran under, None where not told."""

    number: int
    status: int
    output: str
    load: float | None
    clock_mhz: float | None


def script(sessions: Sequence[Session], mark: str, *, before: str, after: str, clock_file: str | None) -> str:
    """Return the script that runs ``sessions`` one after the other.

    ``before`` is run first and ``after`` at the end, also when the script is told to stop or the connection goes.
    Every line that is ours begins with ``mark``, a word that nothing else prints. ``clock_file`` tells the clock in
    kilohertz.
    """
    clock = f"$(cat {shlex.quote(clock_file)} 2>/dev/null)" if clock_file else ""
    lines = [
        "child=",
        "after() {",
        # Whoever is told to stop is told more than once, and what follows must not be left half done.
        "  trap - EXIT",
        "  trap '' HUP INT TERM PIPE",
        '  [ -n "$child" ] && kill -9 $child 2>/dev/null',
        *(f"  {line}" for line in after.splitlines()),
        "}",
        "trap after EXIT",
        # A signal ends the script at once, as it waits for a child in the background.
        "trap 'after; exit 129' HUP INT TERM PIPE",
        before,
        "run() {",
        # Through the shell's own input a runner could read the rest of what is to be run; and what it prints goes
        # over in one piece when it has ended: line by line each would be a packet, and sent while it measures.
        '  "$@" </dev/null >said 2>&1 &',
        "  child=$!",
        "  wait $child",
        "  status=$?",
        "  child=",
        "  cat said",
        "}",
    ]
    for session in sessions:
        lines += [
            f"echo {mark} begin {session.number}",
            f"run {session.command}",
            # What a runner prints need not end in a new line.
            f'echo; echo "{mark} end {session.number} $status / $(cat {LOAD} 2>/dev/null) / {clock}"',
        ]
    return "\n".join([*lines, f"echo {mark} done", ""])


class ScriptEndedError(Exception):
    """The script ended before its last line, with ``said`` as its last words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def ended(lines: Iterable[str], mark: str) -> Iterator[Ran]:
    """Yield the sessions of :func:`script` as they end; what is not between two marks of ours belongs to nobody.

    Raises:
        ScriptEndedError: the lines end before the script's last.
    """
    end = re.compile(rf"{re.escape(mark)} end (\d+) (\d+) / (.*?) /(.*)")
    current: int | None = None
    said: list[str] = []
    done = False
    # To the very end, although nothing of ours comes behind the last mark: the connection serves the next call too.
    for line in lines:
        stripped = line.strip()
        done = done or stripped == f"{mark} done"
        if stripped.startswith(f"{mark} begin "):
            current, said = int(stripped.split()[-1]), []
        elif found := end.fullmatch(stripped):
            number, status, load, clock = found.groups()
            if int(number) == current:
                yield Ran(
                    current, int(status), "\n".join(said), _number(load.split(" ")[0]), _megahertz(clock.strip())
                )
            current, said = None, []
        elif stripped:
            said.append(line.rstrip())
    if not done:
        raise ScriptEndedError(last_lines("\n".join(said)))


def last_lines(output: str) -> str:
    """Return the end of what a command printed, on one line."""
    return " ".join(output.split())[-TAIL:] or "without a word"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _megahertz(text: str) -> float | None:
    return int(text) / 1000 if text.isdecimal() else None
