"""A shell on a phone through an adb server that runs on this computer, so that it need not be stopped.

The server holds the USB ports, and knows phones that were paired with ``adb pair`` (wireless debugging). The
protocol of its socket: https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/SERVICES.TXT
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cars_hw.devices.android.adb import Address, unwrapped, wrapped
from cars_hw.devices.remote import Answer, BrokenOffError, NoOutputError, last_lines
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    NoDeviceError,
    OfflineError,
    UnauthorizedError,
)

PORT: Final = 5037
"""The port of the server, unless ANDROID_ADB_SERVER_PORT names another."""

ANSWER_S: Final = 5.0
"""Time limit in seconds for an answer of the server itself."""

_CHUNK: Final = 64 * 1024


def server_port() -> int:
    """Return the port at which an adb server is looked for."""
    text = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    return int(text) if text.isdecimal() else PORT


def server_phones(port: int | None = None) -> dict[str, str]:
    """Return the state of each phone that the server knows, by serial or HOST:PORT; nothing without a server.

    The state is ``device`` for a phone that can be used, otherwise ``unauthorized``, ``offline`` or another word.
    """
    try:
        with _Connection(port or server_port()) as connection:
            connection.request("host:devices")
            listed = connection.text()
    except (OSError, DeviceError, _RefusedError, ValueError):
        # Something else listens at the port.
        return {}
    rows = (line.split("\t") for line in listed.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


class AdbServerShell:
    """A shell on the phone that the server at ``port`` calls ``serial``; see the protocol of remote shells."""

    def __init__(self, serial: str, *, port: int | None = None) -> None:
        self._serial = serial
        self._port = port or server_port()
        self._is_open = False

    @property
    def where(self) -> str:
        """The phone in messages."""
        return f"the phone at {self._serial}"

    @property
    def address(self) -> Address:
        """The address of the phone."""
        return Address.parse(self._serial)

    def open(self) -> None:
        """Find the phone.

        Raises:
            NoDeviceError: the server does not know the phone, or is gone.
            UnauthorizedError: the phone has not allowed this computer.
            OfflineError: the phone does not answer.
        """
        self._is_open = True
        try:
            self._service("host:features").close()
        except ConnectionLostError as error:
            self._is_open = False
            raise NoDeviceError(
                f"the adb server at port {self._port} is gone; start it with: adb start-server"
            ) from error
        except BaseException:
            self._is_open = False
            raise

    def close(self) -> None:
        """Forget the phone: every call has a connection of its own to the server."""
        self._is_open = False

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return its output and exit status; see the protocol."""
        with self._service(f"shell:{wrapped(command)}") as connection:
            received = b"".join(connection.parts(limit_s)).decode(errors="replace")
        return self._answer(received)

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they arrive; see the protocol."""
        pending = b""
        with self._service(f"shell:{command}") as connection:
            for part in connection.parts(idle_s):
                *whole, pending = (pending + part).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace").rstrip("\r")
        if pending:
            yield pending.decode(errors="replace")

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 120.0) -> None:
        """Copy the file ``source`` to ``target``; see the protocol."""
        name = f"{target},{0o100755 if executable else 0o100644}".encode()
        with self._service("sync:") as connection, source.open("rb") as opened:
            connection.send(b"SEND" + struct.pack("<I", len(name)) + name)
            while data := opened.read(_CHUNK):
                if connection.has_answer():
                    break
                connection.send(b"DATA" + struct.pack("<I", len(data)) + data)
            else:
                connection.send(b"DONE" + struct.pack("<I", int(source.stat().st_mtime)))
            word, length = struct.unpack("<4sI", connection.exactly(8, limit_s))
            reason = connection.exactly(length, limit_s).decode(errors="replace")
        if word == b"OKAY":
            return
        if "No space left" in reason:
            raise DeviceStateError(f"{self.where} has no room left; free some storage and try again")
        raise DeviceError(f"{self.where} refuses a file: {last_lines(reason)}")

    def _answer(self, received: str) -> Answer:
        answer = unwrapped(received)
        if answer is None:
            raise BrokenOffError(f"{self.where} stopped in the middle of an answer: {last_lines(received)}")
        return answer

    def _service(self, service: str) -> _Connection:
        """Return a connection to ``service`` on the phone."""
        if not self._is_open:
            raise ConnectionLostError(f"{self.where} is not connected")
        try:
            connection = _Connection(self._port)
        except OSError as error:
            raise ConnectionLostError(f"the adb server at port {self._port} does not answer ({error})") from error
        try:
            if service.startswith("host:"):
                connection.request(f"host-serial:{self._serial}:{service.removeprefix('host:')}")
            else:
                connection.request(f"host:transport:{self._serial}")
                connection.request(service)
        except _RefusedError as error:
            connection.close()
            raise self._refused(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _refused(self, reason: str) -> DeviceError:
        if "unauthorized" in reason:
            return UnauthorizedError(f'{self.where} has not allowed this computer; unlock it and tap "Allow"')
        if "not found" in reason:
            return NoDeviceError(f"the adb server does not know {self.where} any more; plug it in")
        if "offline" in reason or "closed" in reason:
            return OfflineError(f"{self.where} does not answer ({reason}); plug it in again")
        return ConnectionLostError(f"the adb server refuses {self.where}: {last_lines(reason)}")


class _RefusedError(Exception):
    """The server answered FAIL."""


class _Connection:
    """A connection to the server. Its errors are those of a remote shell."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, service: str) -> None:
        """Ask for ``service``."""
        data = service.encode()
        self.send(f"{len(data):04x}".encode() + data)
        if self.exactly(4, ANSWER_S) != b"OKAY":
            raise _RefusedError(self.text())

    def text(self) -> str:
        """Return a text with its length before it."""
        return self.exactly(int(self.exactly(4, ANSWER_S), 16), ANSWER_S).decode(errors="replace")

    def send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(60.0)
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionLostError(f"the connection to the adb server broke ({error})") from error

    def has_answer(self) -> bool:
        """Return whether something has arrived."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def exactly(self, length: int, limit_s: float) -> bytes:
        data = b""
        while len(data) < length:
            part = self._receive(length - len(data), limit_s)
            if not part:
                raise ConnectionLostError("the adb server closed the connection")
            data += part
        return data

    def parts(self, idle_s: float) -> Iterator[bytes]:
        """Yield what arrives until the other side closes."""
        while part := self._receive(_CHUNK, idle_s):
            yield part

    def _receive(self, length: int, limit_s: float) -> bytes:
        try:
            self._socket.settimeout(limit_s)
            return self._socket.recv(length)
        except TimeoutError as error:
            raise NoOutputError("the phone has sent no output for too long") from error
        except OSError as error:
            raise ConnectionLostError(f"the connection to the adb server broke ({error})") from error
