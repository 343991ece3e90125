"""A shell on a Linux machine by the ``ssh`` of this computer, with its keys, configuration and known hosts."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cars_hw.devices.remote import Answer, NoOutputError, last_lines
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    OfflineError,
    UnauthorizedError,
)

CONNECT_S: Final = 15
"""Time limit in seconds for a connection."""

_LOST: Final = 255
"""The exit status of ssh if the connection fails; the status of the command otherwise."""

_READY: Final = "@cars-hw ready"

_DESTINATION: Final = re.compile(r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9A-Fa-f:.%\w]+\])(?::(\d+))?")


class SshShell:
    """A shell at ``destination``, ``[USER@]HOST[:PORT]``; see :class:`cars_hw.devices.remote.RemoteShell`.

    All calls share one connection, which ssh keeps open. ``options`` are further options of ssh. Nothing is ever
    asked: keys have to be without a passphrase or in an agent, and the host has to be known.

    Raises:
        InputError: ``destination`` is none.
    """

    def __init__(self, destination: str, *, options: Sequence[str] = ()) -> None:
        match = _DESTINATION.fullmatch(destination)
        if match is None or destination.startswith("-"):
            raise InputError(f"'{destination}' is no destination of ssh: write USER@HOST or USER@HOST:PORT")
        port = match[1]
        self.where = f"the board at {destination}"
        self._host = (
            (destination if port is None else destination.rpartition(":")[0]).replace("[", "").replace("]", "")
        )
        self._port = ["-p", port] if port else []
        self._options = [*options, *self._port]
        self._folder: Path | None = None
        self._connection: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            NoDeviceError: there is no ssh here, or no such machine.
            UnauthorizedError: the machine refuses the keys, or is not the known one.
            OfflineError: it does not answer.
        """
        self.close()
        if shutil.which("ssh") is None:
            raise NoDeviceError("there is no program ssh on this computer; install it (Debian: openssh-client)")
        # A socket has a path of at most about 100 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="cars-hw-", dir="/tmp" if Path("/tmp").is_dir() else None))
        # The connection ends with its input, also when this process is killed. Ctrl-C in a terminal is not for it:
        # it is needed to remove what is on the board.
        self._connection = subprocess.Popen(
            self._command(["-M", "--", _shell(f"echo {_READY}; exec cat > /dev/null")]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        output, errors = self._connection.stdout, self._connection.stderr
        assert output is not None
        assert errors is not None
        if not _answers(output.fileno()):
            self._connection.kill()
            said = errors.read().decode(errors="replace")
            self.close()
            raise self._refused(said)

    def close(self) -> None:
        """Disconnect, if there is a connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            for stream in (connection.stdin, connection.stdout, connection.stderr):
                if stream is not None:
                    stream.close()
            try:
                connection.wait(timeout=5)
            except subprocess.TimeoutExpired:
                connection.kill()
                connection.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return its output and exit status; see the protocol."""
        done = self._run(["--", _shell(f"( {command}\n) 2>&1")], limit_s)
        if done.returncode == _LOST:
            raise self._broken(done.stderr)
        return Answer(done.stdout.decode(errors="replace"), done.returncode)

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they arrive; see the protocol."""
        process = subprocess.Popen(
            self._command(["--", _shell(f"( {command}\n) 2>&1")]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        pending = b""
        try:
            with selectors.DefaultSelector() as ready:
                ready.register(process.stdout, selectors.EVENT_READ)
                while True:
                    if not ready.select(idle_s):
                        raise NoOutputError(f"{self.where} has sent no output for too long")
                    part = os.read(process.stdout.fileno(), 65536)
                    if not part:
                        break
                    *whole, pending = (pending + part).split(b"\n")
                    for line in whole:
                        yield line.decode(errors="replace").rstrip("\r")
            if pending:
                yield pending.decode(errors="replace")
            errors = process.stderr.read()
            if process.wait(timeout=10) == _LOST:
                raise self._broken(errors)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 120.0) -> None:
        """Copy the file ``source`` to ``target``; see the protocol."""
        quoted, part = shlex.quote(target), shlex.quote(f"{target}.part")
        mode = "755" if executable else "644"
        copy = f"cat > {part} && [ $(wc -c < {part}) = {source.stat().st_size} ] && chmod {mode} {part}"
        with source.open("rb") as opened:
            done = self._run(["--", _shell(f"( {copy} && mv {part} {quoted} ) 2>&1")], limit_s, opened.fileno())
        said = done.stdout.decode(errors="replace")
        if done.returncode == _LOST:
            raise self._broken(done.stderr)
        if "No space left" in said or "quota" in said:
            raise DeviceStateError(f"{self.where} has no room left; free some storage and try again")
        if done.returncode != 0:
            raise DeviceError(f"{self.where} refuses a file: {last_lines(said)}")

    def _command(self, words: Sequence[str]) -> list[str]:
        if self._folder is None:
            raise ConnectionLostError(f"{self.where} is not connected")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlPath": str(self._folder / "s"),
            # The user's own configuration may keep connections, and this one would outlive the measurement.
            "ControlPersist": "no",
            "LogLevel": "ERROR",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        place = words.index("--")
        return ["ssh", *given, *self._options, *words[:place], self._host, *words[place + 1 :]]

    def _run(
        self, words: Sequence[str], limit_s: float, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                self._command(words), stdin=stdin, capture_output=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired as error:
            raise NoOutputError(f"{self.where} has sent no output for too long") from error

    def _broken(self, errors: bytes) -> ConnectionLostError:
        said = last_lines(errors.decode(errors="replace"))
        self.close()
        return ConnectionLostError(f"the connection to {self.where} broke ({said})")

    def _refused(self, said: str) -> DeviceError:
        text, place = last_lines(said), shlex.join([*self._port, self._host])
        if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
            return UnauthorizedError(
                f"{self.where} is not known to this computer, or is another than before ({text}); connect once by "
                f"hand: ssh {place}"
            )
        if "Permission denied" in said:
            return UnauthorizedError(
                f"{self.where} refuses the keys of this computer ({text}); copy one with ssh-copy-id {place}, "
                "and load it with ssh-add if it has a passphrase"
            )
        if "Could not resolve" in said or "refused" in said or "No route" in said:
            return NoDeviceError(f"{self.where} is not there ({text}); switch it on, or check its name and port")
        return OfflineError(f"{self.where} does not answer ({text})")


def _answers(output: int) -> bool:
    """Return whether the other side says that it is ready; its login shell may say something before."""
    deadline, said = time.monotonic() + CONNECT_S + 5, b""
    with selectors.DefaultSelector() as ready:
        ready.register(output, selectors.EVENT_READ)
        while _READY.encode() not in said.split(b"\n")[:-1]:
            if not ready.select(max(deadline - time.monotonic(), 0)):
                return False
            part = os.read(output, 65536)
            if not part:
                return False
            said += part.replace(b"\r", b"")
    return True


def _shell(command: str) -> str:
    """Return ``command`` for the login shell of the other side, which may be any: run by the POSIX shell."""
    return f"exec sh -c {shlex.quote(command)}"
