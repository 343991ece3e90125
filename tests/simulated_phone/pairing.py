"""The phone's side of pairing for wireless debugging, for Android's own ``adb`` on the other side.

TLS 1.3 with certificates that nobody has to know; SPAKE2, by BoringSSL's code, with the code and the key material
of that connection as password; then both sides send who they are, encrypted with the key of that exchange. Needs
the packages pyOpenSSL and spake2-cffi.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

VERSION, SPAKE2_MESSAGE, PEER_INFO = 1, 0, 1
PUBLIC_KEY, GUID = 0, 1
INFO_SIZE = 8192


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a key and a certificate that signs itself into ``folder``; return both paths."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Adb")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private, public = folder / "key.pem", folder / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return private, public


class PairingDialog:
    """The dialog of a phone with its ``code``, open while the ``with`` block lasts.

    ``keys`` has the public keys of the computers that have paired; ``refused`` counts those with another code.
    """

    def __init__(self, code: str, guid: str = "adb-SIM0001-abcdef") -> None:
        self.code, self.guid = code, guid
        self.keys: list[str] = []
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> PairingDialog:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        from OpenSSL import SSL

        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        with tempfile.TemporaryDirectory() as folder:
            private, public = certificate(Path(folder))
            context.use_privatekey_file(str(private))
            context.use_certificate_file(str(public))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            connection = SSL.Connection(context, connected)
            connection.set_accept_state()
            try:
                connection.do_handshake()
                self._pair(connection)
            except (SSL.Error, EOFError, OSError):
                pass
            finally:
                connected.close()

    def _pair(self, connection: Any) -> None:  # noqa: ANN401 -- the library has no types
        from cryptography.exceptions import InvalidTag
        from spake2 import Spake2_Bob

        material = connection.export_keying_material(b"adb-label\0", 64)
        bob = Spake2_Bob(b"adb pair server", b"adb pair client")
        own = bob.generate_msg(self.code.encode() + material)
        _send(connection, SPAKE2_MESSAGE, own)
        secret = bob.process_msg(_receive(connection, SPAKE2_MESSAGE))
        derived = HKDF(hashes.SHA256(), 16, None, b"adb pairing_auth aes-128-gcm key").derive(secret)
        cipher, first = AESGCM(derived), bytes(12)
        info = bytes([GUID]) + self.guid.encode()
        _send(connection, PEER_INFO, cipher.encrypt(first, info.ljust(INFO_SIZE, b"\0"), None))
        try:
            theirs = cipher.decrypt(first, _receive(connection, PEER_INFO), None)
        except InvalidTag:
            self.refused += 1
            return
        assert theirs[0] == PUBLIC_KEY
        self.keys.append(theirs[1:].rstrip(b"\0").decode())


def _send(connection: Any, kind: int, data: bytes) -> None:  # noqa: ANN401 -- the library has no types
    connection.sendall(struct.pack(">BBI", VERSION, kind, len(data)) + data)


def _receive(connection: Any, kind: int) -> bytes:  # noqa: ANN401 -- the library has no types
    version, found, length = struct.unpack(">BBI", _exactly(connection, 6))
    assert (version, found) == (VERSION, kind)
    return _exactly(connection, length)


def _exactly(connection: Any, length: int) -> bytes:  # noqa: ANN401 -- the library has no types
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data
