"""Measuring on a remote machine that takes files and runs shell scripts, over any connection.

A block of sessions is one script, which marks the begin and the end of each session. So the latency of the
connection counts once per block. :class:`RemoteShell` is the interface of a connection: over ADB, or over ssh.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cars_hw.errors import ConnectionLostError
from cars_hw.progress import Log, no_log

NOTE: Final = "@cars-hw note "
"""The begin of a line with which a script tells something to the person who measures."""

FACT: Final = "@cars-hw has "
"""The begin of a line with which a script reports what it has changed on the machine."""

LOAD: Final = "/proc/loadavg"

CLOCK_S: Final = 0.1
"""The time between two readings of the clock during a session, in seconds."""

_PART: Final = "@cars-hw part"
_LINKER: Final = "WARNING: linker"

TAIL: Final = 400
"""The number of characters of a failed command's output that an error repeats: the last ones."""


class Answer(NamedTuple):
    """The output of a command, both streams in one, and its exit status."""

    output: str
    status: int


class NoOutputError(ConnectionLostError):
    """There was no output within the time limit: the machine is gone, or its program hangs."""


class BrokenOffError(ConnectionLostError):
    """The last bytes of an answer are missing.

    The kernel of a phone may drop the last bytes that a terminal was given, very rarely, when it is closed.
    """


class RemoteShell(Protocol):
    """A remote POSIX shell. Every call has a time limit in seconds, and fails with a :class:`DeviceError`."""

    @property
    def where(self) -> str:
        """The name of the remote machine in messages."""

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            DeviceError: there is no machine, or it does not answer or refuses the connection.
        """

    def close(self) -> None:
        """Disconnect, if there is a connection."""

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return its output and exit status.

        Raises:
            ConnectionLostError: the connection broke, or there was no output for ``limit_s``.
            BrokenOffError: the end of the answer is missing.
        """

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they arrive.

        Raises:
            ConnectionLostError: the connection broke.
            NoOutputError: there was no output for ``idle_s``.
        """

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 120.0) -> None:
        """Copy the file ``source`` to ``target``.

        Raises:
            ConnectionLostError: the connection broke.
            DeviceStateError: the storage is full.
        """


def ask(shell: RemoteShell, commands: Mapping[str, str]) -> dict[str, str]:
    """Return the output of each of ``commands``, in one call: a call costs more than its commands.

    They change nothing, so that they are asked once more if the answer breaks off. Warnings of a linker, which some
    phones put before the output of any program, are left out.

    Raises:
        DeviceError: the connection fails.
    """
    text = "; ".join(f"echo; echo {_PART} {name}; {command} 2>/dev/null" for name, command in commands.items())
    try:
        answer = shell.call(text)
    except BrokenOffError:
        shell.open()
        answer = shell.call(text)
    lines = (line.rstrip("\r") for line in answer.output.split("\n"))
    output = "\n".join(line for line in lines if not line.startswith(_LINKER))
    found = re.split(rf"^{_PART} (\w+)\s*$", output, flags=re.MULTILINE)
    return dict.fromkeys(commands, "") | dict(zip(found[1::2], found[2::2], strict=True))


class Session(NamedTuple):
    """One session of a block: its number and the command that runs it."""

    number: int
    command: str


class SessionResult(NamedTuple):
    """The result of a session: number, exit status, output, conditions. A condition not reported is None.

    ``cores`` is the list of cores that were switched on at its end, and ``allowed`` that of the cores on which a
    process of the script may run, as Linux writes them; both are empty if not reported.
    """

    number: int
    status: int
    output: str
    load: float | None
    clock_mhz: float | None
    cores: str = ""
    allowed: str = ""


CORE: Final = "$core"
"""In a path of :func:`script`: the number of the core that the program of the session runs on."""

CORE_OF: Final = r"""
core_of() {
  stat= core=
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null
  [ -n "$stat" ] || return 0
  # The name of the program before the bracket may have spaces; behind it, this is the 37th word.
  set -- ${stat##*\)}
  core=${37}
}""".strip()
"""A shell function that sets ``core`` to the number of the core that the process ``$1`` ran on last."""


def script(
    sessions: Sequence[Session],
    mark: str,
    *,
    before: str,
    after: str,
    clock_file: str | None,
    each: str = ":",
    cores_file: str | None = None,
) -> str:
    """Return the script that runs ``sessions`` one after the other.

    ``before`` runs first, ``each`` before every session. ``after`` runs at the end, also when the script is stopped
    or the connection breaks. ``mark`` is a unique word at the begin of the lines that the script itself prints.
    ``clock_file`` has the clock in kilohertz, ``cores_file`` the list of cores that are switched on. With
    :data:`CORE` in its path, ``clock_file`` is that of the core that the session runs on.
    """
    clock, cores = f'"{clock_file or "/dev/null"}"', shlex.quote(cores_file or "/dev/null")
    follows = clock_file is not None and CORE in clock_file
    lines = [
        "child=",
        "watch=",
        "after() {",
        # A script may be stopped by several signals, and the commands below must be completed.
        "  trap - EXIT",
        "  trap '' HUP INT TERM PIPE",
        '  [ -n "$child$watch" ] && kill -9 $child $watch 2>/dev/null',
        *(f"  {line}" for line in after.splitlines()),
        "}",
        "trap after EXIT",
        # A signal ends the script at once, because it waits for a child in the background.
        "trap 'after; exit 129' HUP INT TERM PIPE",
        before,
        # The shell itself reads, which costs no process: a linker may put a warning before the output of a program.
        "first_of() {",
        "  first=",
        '  { read -r first < "$1"; } 2>/dev/null',
        "}",
        # The clock is read while the model runs: afterwards it may have fallen already.
        # The system may close cores to this process at any time.
        "allowed_cores() {",
        "  allowed=",
        "  { while read -r name value; do",
        '    [ "$name" = Cpus_allowed_list: ] && { allowed=$value; break; }',
        "  done < /proc/self/status; } 2>/dev/null",
        "}",
        *(CORE_OF.splitlines() if follows else ()),
        "watch_clock() {",
        f"  while sleep {CLOCK_S:g}; do",
        *(("    core_of $child",) if follows else ()),
        f"    first_of {clock}",
        '    [ -n "$first" ] && echo "$first" > clock_seen',
        "  done",
        "}",
        "run() {",
        # Without its own input a runner could read the rest of the script. Its output is sent when it has ended:
        # otherwise every line would be a packet, sent during the measurement.
        '  "$@" </dev/null >said 2>&1 &',
        "  child=$!",
        f"  if {'true' if follows else f'[ -r {clock} ]'}; then",
        "    watch_clock </dev/null >/dev/null 2>&1 &",
        "    watch=$!",
        "  fi",
        "  wait $child",
        "  status=$?",
        "  child=",
        # By the signal that cannot be handled: a shell that has just been forked may lose any other.
        '  if [ -n "$watch" ]; then',
        "    kill -9 $watch 2>/dev/null",
        "    wait $watch 2>/dev/null",
        "    watch=",
        "  fi",
        "  cat said",
        "}",
    ]
    for session in sessions:
        lines += [
            each,
            f"echo {mark} begin {session.number}",
            "first=" if follows else f"first_of {clock}",
            'echo "$first" > clock_seen',
            f"run {session.command}",
            f"first_of {LOAD}",
            "load=$first",
            "first_of clock_seen",
            "clock=$first",
            f"first_of {cores}",
            "allowed_cores",
            # The output of a runner may lack the last line break.
            f'echo; echo "{mark} end {session.number} $status / $load / $clock / $first / $allowed"',
        ]
    return "\n".join([*lines, f"echo {mark} done", ""])


class ScriptEndedError(Exception):
    """The script ended before its last line; ``output`` is the end of its output."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def session_results(
    lines: Iterable[str], mark: str, on_note: Log = no_log, on_fact: Log = no_log
) -> Iterator[SessionResult]:
    """Yield the result of each session of :func:`script` as it ends. Lines outside of sessions are ignored, except
    for those that begin with :data:`NOTE` or :data:`FACT`: ``on_note`` or ``on_fact`` is called with the rest.

    Raises:
        ScriptEndedError: the lines end before the last line of the script.
    """
    end = re.compile(rf"{re.escape(mark)} end (\d+) (\d+) / (.*?) /([^/]*)(?:/([^/]*))?(?:/([^/]*))?")
    current: int | None = None
    output: list[str] = []
    done = False
    # All lines are read, also after the last mark: the connection is used for the next call.
    for line in lines:
        stripped = line.strip()
        done = done or stripped == f"{mark} done"
        if stripped.startswith(f"{mark} begin "):
            current, output = int(stripped.split()[-1]), []
        elif found := end.fullmatch(stripped):
            number, status, load, clock, cores, allowed = found.groups()
            if int(number) == current:
                yield SessionResult(
                    current,
                    int(status),
                    "\n".join(output),
                    _number(load.split(" ")[0]),
                    _megahertz(clock.strip()),
                    (cores or "").strip(),
                    (allowed or "").strip(),
                )
            current, output = None, []
        elif current is None and stripped.startswith(NOTE):
            on_note(stripped.removeprefix(NOTE).strip())
        elif current is None and stripped.startswith(FACT):
            on_fact(stripped.removeprefix(FACT).strip())
        elif stripped:
            output.append(line.rstrip())
    if not done:
        raise ScriptEndedError(last_lines("\n".join(output)))


def last_lines(output: str) -> str:
    """Return the end of a command's output in one line."""
    return " ".join(output.split())[-TAIL:] or "no output"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _megahertz(text: str) -> float | None:
    return int(text) / 1000 if text.isdecimal() else None
