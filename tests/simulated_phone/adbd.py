"""The device side of the ADB protocol over TCP: authentication, shell and sync; and what can go wrong."""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import secrets
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from simulated_phone.pairing import certificate

if TYPE_CHECKING:
    from simulated_phone.phone import Phone

VERSION = 0x01000000
MAX_DATA = 256 * 1024
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
TLS_RECORD = b"\x16\x03"
"""The begin of the first bytes of TLS."""


@dataclass
class Faults:
    """What goes wrong.

    ``cut_after`` closes the connection after so many packets, once for each of its numbers, counted over all
    connections; ``refuse_s`` is how long nobody is let in after a cut; ``silent`` stops all answers; ``encrypts``
    is whether connections have to be encrypted, as those of wireless debugging.
    """

    cut_after: list[int] = field(default_factory=list)
    refuse_s: float = 0.0
    silent: bool = False
    encrypts: bool = False


class CutError(Exception):
    """The cable is out."""


class Adbd:
    """Serves ``phone`` at a port of this machine while the ``with`` block lasts.

    ``keys`` are public keys (as ADB writes them) that are allowed; ``taps`` is whether a person allows new ones;
    None of both lets everybody in.
    """

    def __init__(
        self, phone: Phone, *, keys: list[str] | None = None, taps: bool = False, faults: Faults | None = None
    ) -> None:
        self.phone = phone
        self.faults = faults or Faults()
        self.asked = 0
        self.connections = 0
        self.encrypted = 0
        self.packets = 0
        self.keys = None if keys is None and not taps else list(keys or [])
        self._taps = taps
        self._let_in_at = 0.0
        self._act: tuple[int, Callable[[], object], bool] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[_Connection] = []
        self._closing = False

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Adbd:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            connection.cut()
        self.phone.close()

    def cut(self) -> None:
        """Pull the cable."""
        self._let_in_at = time.monotonic() + self.faults.refuse_s
        for connection in list(self._open):
            connection.cut()

    def at(self, packet: int | None, act: Callable[[], object] = lambda: None, *, cuts: bool = False) -> None:
        """Do ``act`` at the packet of this number, and pull the cable if it ``cuts``; None is never."""
        self._act = None if packet is None else (packet, act, cuts)

    def count(self) -> None:
        """Note a packet, and pull the cable if it was the last."""
        self.packets += 1
        if self._act is not None and self.packets >= self._act[0]:
            _, act, cuts = self._act
            self._act = None
            act()
            if cuts:
                self.cut()
                raise CutError
        if self.faults.cut_after and self.packets >= self.faults.cut_after[0]:
            self.faults.cut_after.pop(0)
            self.cut()
            raise CutError

    def _accept(self) -> None:
        while not self._closing:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._let_in_at:
                connected.close()
                continue
            self.connections += 1
            connection = _Connection(self, connected)
            self._open.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def ended(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)


class _Connection:
    def __init__(self, adbd: Adbd, connected: socket.socket) -> None:
        self._adbd = adbd
        self._socket = connected
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writing = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._is_encrypted = False

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for stream in list(self._streams.values()):
            stream.cut()

    def serve(self) -> None:
        try:
            for command, first, second, data in self._packets():
                self._adbd.count()
                if self._adbd.faults.silent:
                    continue
                self._handle(command, first, second, data)
        except (OSError, CutError, EOFError):
            pass
        finally:
            self.cut()
            self._socket.close()
            self._adbd.ended(self)

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        if self._adbd.faults.silent:
            return
        number = int.from_bytes(command, "little")
        header = struct.pack("<6I", number, first, second, len(data), sum(data), number ^ 0xFFFFFFFF)
        with self._writing:
            self._adbd.count()
            self._socket.sendall(header + data)

    def _packets(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        while True:
            header = self._exactly(24)
            number, first, second, length, check, magic = struct.unpack("<6I", header)
            if header[:2] == TLS_RECORD and self._adbd.faults.encrypts:
                # The server of adb 36 sometimes begins TLS without its own STLS, and a phone then hangs up.
                raise CutError
            assert magic == number ^ 0xFFFFFFFF, "not a packet"
            data = self._exactly(length)
            command = number.to_bytes(4, "little")
            # The version that we speak has checksums.
            assert command == b"CNXN" or check == sum(data) & 0xFFFFFFFF, "a damaged packet"
            yield command, first, second, data

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            if self._adbd.faults.encrypts and not self._is_encrypted:
                self.send(b"STLS", VERSION, 0)
            elif self._is_encrypted or self._adbd.keys is None:
                self._welcome()
            else:
                self._challenge()
        elif command == b"STLS":
            self._encrypt()
        elif command == b"AUTH":
            self._authenticate(first, data)
        elif command == b"OPEN":
            self._open(first, data.rstrip(b"\0").decode())
        elif second in self._streams:
            self._streams[second].hear(command, data)

    def _encrypt(self) -> None:
        """Go on in TLS 1.3. The computer sends no other CNXN, and is welcomed at once."""
        with tempfile.TemporaryDirectory() as folder:
            private, public = certificate(Path(folder))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(public, private)
        self._socket = context.wrap_socket(self._socket, server_side=True)
        self._is_encrypted = True
        self._adbd.encrypted += 1
        self._welcome()

    def _challenge(self) -> None:
        self._token = secrets.token_bytes(20)
        self.send(b"AUTH", TOKEN, 0, self._token)

    def _authenticate(self, kind: int, data: bytes) -> None:
        assert self._adbd.keys is not None
        if kind == SIGNATURE:
            if any(verifies(key, self._token, data) for key in self._adbd.keys):
                self._welcome()
            else:
                self._challenge()
        elif kind == PUBLIC_KEY:
            self._adbd.asked += 1
            if self._adbd._taps:
                self._adbd.keys.append(data.rstrip(b"\0").decode())
                self._welcome()

    def _welcome(self) -> None:
        props = self._adbd.phone.props
        banner = (
            f"device::ro.product.name={props['ro.product.model']};ro.product.model={props['ro.product.model']};"
            f"ro.product.device={props['ro.product.model']};"
        )
        self.send(b"CNXN", VERSION, MAX_DATA, banner.encode())

    def _open(self, remote: int, service: str) -> None:
        kind, _, rest = service.partition(":")
        own = self._next
        self._next += 1
        serve: Callable[[_Stream], None]
        if kind == "shell" or kind.startswith("shell,"):
            serve = lambda stream: self._adbd.phone.shell(rest, stream)  # noqa: E731
        elif kind == "sync":
            serve = lambda stream: _sync(self._adbd.phone, stream)  # noqa: E731
        else:
            self.send(b"CLSE", 0, remote)
            return
        stream = _Stream(self, own, remote)
        self._streams[own] = stream
        self.send(b"OKAY", own, remote)
        threading.Thread(target=self._run, args=(stream, serve), daemon=True).start()

    def _run(self, stream: _Stream, serve: Callable[[_Stream], None]) -> None:
        try:
            serve(stream)
            self.send(b"CLSE", stream.own, stream.remote)
        except (OSError, CutError, EOFError):
            self.cut()
        finally:
            self._streams.pop(stream.own, None)


class _Stream:
    """Bytes in both directions; each packet waits for its acknowledgement."""

    def __init__(self, connection: _Connection, own: int, remote: int) -> None:
        self.own, self.remote = own, remote
        self.closed = threading.Event()
        self._connection = connection
        self._acknowledged = 0
        self._changed = threading.Condition()
        self._received: queue.Queue[bytes] = queue.Queue()
        self._pending = b""

    def hear(self, command: bytes, data: bytes) -> None:
        if command == b"OKAY":
            with self._changed:
                self._acknowledged += 1
                self._changed.notify()
        elif command == b"WRTE":
            # In this order, as a phone does: adb-shell drops an answer that comes before the acknowledgement.
            self._connection.send(b"OKAY", self.own, self.remote)
            self._received.put(data)
        elif command == b"CLSE":
            self.cut()

    def cut(self) -> None:
        self.closed.set()
        self._received.put(b"")
        with self._changed:
            self._changed.notify()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            self._connection.send(b"WRTE", self.own, self.remote, data[start : start + MAX_DATA])
            with self._changed:
                self._changed.wait_for(lambda: self._acknowledged or self.closed.is_set())
                if not self._acknowledged:
                    raise EOFError
                self._acknowledged -= 1

    def read(self, length: int) -> bytes:
        while len(self._pending) < length:
            part = self._received.get()
            if self.closed.is_set() and not part:
                raise EOFError
            self._pending += part
        data, self._pending = self._pending[:length], self._pending[length:]
        return data


def _sync(phone: Phone, stream: _Stream) -> None:
    """Serve files: STAT, LIST, SEND, RECV, until QUIT."""
    while True:
        try:
            command, length = struct.unpack("<4sI", stream.read(8))
        except EOFError:
            return
        if command == b"QUIT":
            return
        name = stream.read(length).decode()
        if command == b"STAT":
            path = phone.local(name)
            status = path.stat() if path.exists() else None
            told = (status.st_mode, status.st_size, int(status.st_mtime)) if status else (0, 0, 0)
            stream.write(b"STAT" + struct.pack("<3I", *(value & 0xFFFFFFFF for value in told)))
        elif command == b"LIST":
            for path in sorted(phone.local(name).iterdir()):
                status, called = path.stat(), path.name.encode()
                told = (status.st_mode, status.st_size, int(status.st_mtime), len(called))
                stream.write(b"DENT" + struct.pack("<4I", *told) + called)
            stream.write(b"DONE" + bytes(16))
        elif command == b"RECV":
            data = phone.local(name).read_bytes()
            for start in range(0, len(data), 65536):
                part = data[start : start + 65536]
                stream.write(b"DATA" + struct.pack("<I", len(part)) + part)
            stream.write(b"DONE" + bytes(4))
        elif command == b"SEND":
            _receive(phone, stream, name)
        else:
            raise AssertionError(f"unknown sync command {command!r}")


def _receive(phone: Phone, stream: _Stream, name: str) -> None:
    """Take a file. What is wrong is told at once, as by a phone, and the rest of the file is read all the same."""
    target, _, mode = name.rpartition(",")
    data, failed = b"", False
    while True:
        command, length = struct.unpack("<4sI", stream.read(8))
        if command == b"DONE":
            break
        assert command == b"DATA", command
        data += stream.read(length)
        if not failed and len(data) > phone.room():
            failed = True
            _fail(stream, "write failed: No space left on device")
    if failed:
        return
    problem = phone.store(target, data, int(mode))
    if problem:
        _fail(stream, problem)
    else:
        stream.write(b"OKAY" + bytes(4))


def _fail(stream: _Stream, reason: str) -> None:
    said = reason.encode()
    stream.write(b"FAIL" + struct.pack("<I", len(said)) + said)


def verifies(key: str, token: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` of ``token`` is by the owner of ``key``, an RSA key in ADB's own form."""
    blob = base64.b64decode(key.split(maxsplit=1)[0])
    words, _, modulus, _, exponent = struct.unpack("<II256s256sI", blob)
    assert words == 64
    public = rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "little")).public_key()
    try:
        public.verify(signature, token, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))
    except InvalidSignature:
        return False
    return True


def hangup(process_group: int) -> None:
    """Tell the processes of a shell that nobody listens any more."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process_group, 1)
