"""A shell on a phone by the Android Debug Bridge over USB or TCP, with the library adb-shell.

Exceptions of the library and of USB become errors with one line that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cars_hw.devices.remote import Answer, BrokenOffError, NoOutputError, last_lines
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    OfflineError,
    SeveralDevicesError,
    UnauthorizedError,
    UsbHeldError,
)
from cars_hw.progress import Log

CONNECT_S: Final = 10.0
AUTHORISE_S: Final = 60.0
"""Time limits in seconds: for the answer of a phone, and for the user to tap "Allow" on it."""

KEYS: Final = Path("~/.android")
"""The folder in which Android's own tools keep the key of this computer, unless ANDROID_USER_HOME names another."""

_STATUS: Final = "@cars-hw status"
_USB_PORT: Final = "usb-"

NO_PHONE: Final = (
    "no phone is attached over USB; plug one in with USB debugging on (Settings, Developer options), or name one "
    "in the network: android:HOST:PORT"
)


class Address(NamedTuple):
    """The address of a phone: host and port, or USB serial number or port. All None is the only phone on USB."""

    host: str | None = None
    port: int | None = None
    serial: str | None = None
    usb_port: str | None = None

    @staticmethod
    def parse(text: str) -> Address:
        """Return the address in ``text``: empty, SERIAL, ``usb-BUS-PORT...`` or HOST:PORT.

        Raises:
            InputError: the port is not a number from 1 to 65535.
        """
        if not text:
            return Address()
        host, colon, port = text.rpartition(":")
        if not colon:
            if text.startswith(_USB_PORT):
                return Address(usb_port=text.removeprefix(_USB_PORT))
            return Address(serial=text)
        if not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise InputError(f"'{text}' is not an address: write HOST:PORT, such as 192.168.1.20:5555")
        return Address(host=host.strip("[]"), port=int(port))

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        if self.host is not None:
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return self.serial or (f"{_USB_PORT}{self.usb_port}" if self.usb_port else "")


class UsbPhone(NamedTuple):
    """A phone on USB: its serial number, its USB port, and the transport of the library."""

    serial: str
    usb_port: str
    transport: Any


def wrapped(command: str) -> str:
    """Return ``command`` with both streams in one and its exit status at the end, which ADB does not tell."""
    return f"( {command}\n) 2>&1; status=$?; echo; echo {_STATUS} $status"


def unwrapped(received: str) -> Answer | None:
    """Return the answer to a wrapped command; None if its end is missing."""
    output, found, status = received.replace("\r\n", "\n").rpartition(f"\n{_STATUS} ")
    return Answer(output, int(status)) if found and status.strip().isdecimal() else None


class AdbShell:
    """A shell on the phone at ``address``; see :class:`cars_hw.devices.remote.RemoteShell`.

    ``keys`` is the folder of this computer's key, which is created if it is missing. ``log`` gets messages that ask
    the user to act.
    """

    def __init__(
        self,
        address: Address,
        *,
        keys: Path = KEYS,
        log: Log | None = None,
        connect_s: float = CONNECT_S,
        authorise_s: float = AUTHORISE_S,
    ) -> None:
        self._address = address
        self._keys = keys.expanduser()
        self._log = log or to_stderr
        self._connect_s = connect_s
        self._authorise_s = authorise_s
        self._device: Any = None
        self._permission_requested = False

    @property
    def where(self) -> str:
        """The phone in messages."""
        return f"the phone at {self._address}" if str(self._address) else "the phone"

    @property
    def address(self) -> Address:
        """The address of the phone. After the first connection it names one phone."""
        return self._address

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            NoDeviceError: there is no phone at the address.
            SeveralDevicesError: the address fits several phones.
            UnauthorizedError: the phone has not allowed this computer.
            UsbHeldError: another program holds the USB port.
            OfflineError: the phone does not answer.
        """
        self.close()
        self._permission_requested = False
        with self._translated(self._while_connecting):
            # Set before the connection, so that a failure closes it.
            self._device = _adb_device(self._transport())
            self._device.connect(
                rsa_keys=[signer(self._keys), *vendor_signers()],
                transport_timeout_s=self._connect_s,
                read_timeout_s=self._connect_s,
                auth_timeout_s=self._authorise_s,
                auth_callback=self._request_permission,
            )

    def close(self) -> None:
        """Disconnect, if there is a connection."""
        device, self._device = self._device, None
        if device is not None:
            # The connection may be broken already.
            with contextlib.suppress(Exception):
                device.close()

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return its output and exit status; see the protocol."""
        with self._translated(self._while_connected):
            received: str = (
                self._connected()
                .shell(
                    wrapped(command),
                    transport_timeout_s=limit_s,
                    read_timeout_s=limit_s,
                    timeout_s=limit_s,
                    decode=False,
                )
                .decode(errors="replace")
            )
        answer = unwrapped(received)
        if answer is None:
            self.close()
            raise BrokenOffError(f"{self.where} stopped in the middle of an answer: {last_lines(received)}")
        return answer

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they arrive; see the protocol."""
        pending = b""
        with self._translated(self._while_connected):
            stream = self._connected().streaming_shell(
                command, transport_timeout_s=idle_s, read_timeout_s=idle_s, decode=False
            )
            for part in stream:
                *whole, pending = (pending + part).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace").rstrip("\r")
        if pending:
            yield pending.decode(errors="replace")

    def push(self, source: Path, target: str, *, executable: bool = False, limit_s: float = 120.0) -> None:
        """Copy the file ``source`` to ``target``; see the protocol."""
        with self._translated(self._while_connected):
            self._connected().push(
                str(source),
                target,
                st_mode=0o100755 if executable else 0o100644,
                transport_timeout_s=limit_s,
                read_timeout_s=limit_s,
            )

    def _connected(self) -> Any:  # noqa: ANN401 -- the library has no types
        if self._device is None:
            raise ConnectionLostError(f"{self.where} is not connected")
        return self._device

    def _transport(self) -> Any:  # noqa: ANN401 -- the library has no types
        address = self._address
        if address.host is not None:
            return _tcp_transport(address.host, address.port)
        found = [
            phone
            for phone in usb_phones()
            if address.serial in (None, phone.serial) and address.usb_port in (None, phone.usb_port)
        ]
        if not found:
            raise NoDeviceError(f"{self.where} is not attached over USB; plug it in" if str(address) else NO_PHONE)
        if len(found) > 1:
            names = ", ".join(usb_names(found))
            raise SeveralDevicesError(f"{len(found)} phones answer to that; name one of: {names}")
        phone = found[0]
        if address == Address():
            # The address now names this phone, also when another one is plugged in.
            self._address = Address(serial=phone.serial) if phone.serial else Address(usb_port=phone.usb_port)
        return phone.transport

    def _request_permission(self, _device: object) -> None:
        self._permission_requested = True
        self._log(
            f'{self.where} asks "Allow USB debugging?" on its screen: unlock it, tick "Always allow from this '
            f'computer" and tap "Allow". Waiting for up to {self._authorise_s:.0f} s.'
        )

    @contextlib.contextmanager
    def _translated(self, fail: Callable[[Exception], DeviceError]) -> Iterator[None]:
        """Turn exceptions of the library and the system into ours, and close the connection after each."""
        try:
            yield
        except (DeviceError, InputError):
            self.close()
            raise
        # The library, libusb and sockets raise many unrelated types.
        except Exception as error:
            self.close()
            raise fail(error) from error
        except BaseException:
            # The rest of an unread answer would be taken for the answer of the next call.
            self.close()
            raise

    def _while_connecting(self, error: Exception) -> DeviceError:
        kind, text = type(error).__name__, f"{type(error).__name__}: {error}"
        if kind.startswith("USBErrorBusy") or "LIBUSB_ERROR_BUSY" in text:
            return UsbHeldError(
                f"{self.where} is held by another program, most likely an adb server; free it with: adb "
                "kill-server (and close Android Studio)"
            )
        if kind.startswith("USBErrorAccess") or "LIBUSB_ERROR_ACCESS" in text:
            return UsbHeldError(
                f"{self.where} may not be opened by this user; on Linux add the rule of the package "
                "android-sdk-platform-tools-common, or yourself to the group plugdev, and plug it in again"
            )
        if self._permission_requested or kind == "DeviceAuthError":
            return UnauthorizedError(
                f'{self.where} has not allowed this computer; unlock it, tap "Allow" when it asks, and try again. '
                "If it does not ask: Developer options, Revoke USB debugging authorisations, and plug it in again"
            )
        if kind == "InvalidCommandError" and "STLS" in text:
            return UnauthorizedError(
                f"{self.where} asks for an encrypted connection (wireless debugging), which an adb server makes",
                remedy="pair",
                address=str(self._address),
            )
        if isinstance(error, ConnectionRefusedError):
            return NoDeviceError(
                f"nothing listens at {self._address}; with the phone on the cable run: adb tcpip "
                f"{self._address.port}"
            )
        return OfflineError(
            f"{self.where} does not answer ({last_lines(text)}); unlock it, turn USB debugging off and on again, "
            "or plug it in again"
        )

    def _while_connected(self, error: Exception) -> DeviceError:
        text = str(error)
        if "No space left" in text or "ENOSPC" in text:
            return DeviceStateError(f"{self.where} has no room left; free some storage and try again")
        kind = type(error).__name__
        if kind in ("PushFailedError", "AdbCommandFailureException"):
            return DeviceError(f"{self.where} refuses a file: {last_lines(text)}")
        if "imeout" in kind or "imed out" in text or "LIBUSB_ERROR_TIMEOUT" in text:
            return NoOutputError(f"{self.where} has sent no output for too long")
        return ConnectionLostError(f"the connection to {self.where} broke ({kind})")


def usb_phones() -> list[UsbPhone]:
    """Return the phones on USB, also those that have not allowed this computer.

    Raises:
        NoDeviceError: libusb is not installed.
    """
    try:
        from adb_shell.transport.usb_transport import UsbTransport

        found = list(UsbTransport.find_all_adb_devices())
    except (ImportError, OSError) as error:
        raise NoDeviceError(
            "USB needs libusb, which is not installed; install it (Debian: apt install libusb-1.0-0, macOS: brew "
            "install libusb), or name a phone in the network: android:HOST:PORT"
        ) from error
    phones = []
    for transport in found:
        # The serial number cannot be read if another program holds the phone, or without permission.
        try:
            serial = str(transport.serial_number or "")
        except Exception:  # noqa: BLE001 -- libusb's many
            serial = ""
        phones.append(UsbPhone(serial, "-".join(str(part) for part in transport.port_path), transport))
    return sorted(phones, key=lambda phone: phone.usb_port)


def usb_names(phones: Sequence[UsbPhone]) -> list[str]:
    """Return a unique name for each of ``phones``: by its serial number, or else by its USB port."""
    serials = [phone.serial for phone in phones]
    return [
        f"android:{phone.serial}"
        if phone.serial and serials.count(phone.serial) == 1
        else f"android:{_USB_PORT}{phone.usb_port}"
        for phone in phones
    ]


def keys_folder() -> Path:
    """Return the folder of this computer's key."""
    return Path(os.environ.get("ANDROID_USER_HOME") or KEYS)


def vendor_signers() -> list[Any]:
    """Return signers with the keys that ADB_VENDOR_KEYS names: files, or folders of files ``*.adb_key``.

    Raises:
        InputError: a key cannot be read.
    """
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

    files: list[Path] = []
    for text in filter(None, os.environ.get("ADB_VENDOR_KEYS", "").split(os.pathsep)):
        path = Path(text).expanduser()
        files += sorted(path.glob("*.adb_key")) if path.is_dir() else [path]
    found = []
    for path in files:
        try:
            found.append(PythonRSASigner(None, _pkcs8(path.read_bytes())))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"the key {path} of ADB_VENDOR_KEYS cannot be used ({error})") from error
    return found


def _pkcs8(private: bytes) -> str:
    """Return a private key in the form that the library reads; OpenSSL and older tools write another."""
    from cryptography.hazmat.primitives import serialization

    if b"BEGIN RSA PRIVATE KEY" not in private:
        return private.decode("ascii")
    return (
        serialization.load_pem_private_key(private, None)
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode("ascii")
    )


def signer(folder: Path) -> Any:  # noqa: ANN401 -- the library has no types
    """Return a signer with this computer's key in ``folder``, which is created (mode 0600) if it is missing.

    Raises:
        InputError: the key cannot be read, or is invalid.
    """
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

    private, public = folder / "adbkey", folder / "adbkey.pub"
    try:
        if not private.exists():
            make_key(private)
        elif not public.exists():
            _write_public(private, public)
        return PythonRSASigner(public.read_text(encoding="ascii"), _pkcs8(private.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"this computer's key {private} cannot be used ({error}); move it away and a new one is made, which "
            "the phone has to allow again"
        ) from error


def make_key(private: Path) -> None:
    """Make an RSA key at ``private``, readable only by its owner, and the public key beside it."""
    from adb_shell.auth.keygen import keygen

    private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = private.with_name(f".{private.name}.{os.getpid()}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        # The library writes into the existing file, which keeps its mode.
        keygen(str(temporary))
        public = temporary.with_name(f"{temporary.name}.pub")
        public.replace(private.with_name(f"{private.name}.pub"))
        temporary.replace(private)
    finally:
        temporary.unlink(missing_ok=True)


def _write_public(private: Path, public: Path) -> None:
    from adb_shell.auth.keygen import write_public_keyfile

    write_public_keyfile(str(private), str(public))


def _adb_device(transport: Any) -> Any:  # noqa: ANN401 -- the library has no types
    from adb_shell.adb_device import AdbDevice
    from adb_shell.adb_message import AdbMessage
    from adb_shell.constants import CLSE, OKAY, WRTE
    from adb_shell.exceptions import PushFailedError

    class Device(AdbDevice):  # type: ignore[misc]  # the library has no types
        """The device of the library, which notices at once that a file is refused.

        A phone without room answers in the middle of a file. The library drops that answer, sends the rest, and
        waits for another one until its time limit.
        """

        def _filesync_flush(self, adb_info: Any, filesync_info: Any) -> None:  # noqa: ANN401 -- as above
            data = filesync_info.send_buffer[: filesync_info.send_idx]
            self._io_manager.send(AdbMessage(WRTE, adb_info.local_id, adb_info.remote_id, data), adb_info)
            filesync_info.send_idx = 0
            while True:
                command, answer = self._read_until([OKAY, WRTE, CLSE], adb_info)
                if command == OKAY:
                    return
                filesync_info.recv_buffer += answer
                if command == CLSE or filesync_info.recv_buffer.startswith(b"FAIL"):
                    # The word, the length of four bytes, and the reason.
                    reason = bytes(filesync_info.recv_buffer[8:]).decode(errors="replace")
                    raise PushFailedError(reason or "the phone ended the transfer")

    return Device(transport, banner="cars-hw")


def _tcp_transport(host: str, port: int | None) -> Any:  # noqa: ANN401 -- the library has no types
    from adb_shell.transport.tcp_transport import TcpTransport

    class Transport(TcpTransport):  # type: ignore[misc]  # the library has no types
        """The transport of the library with three changes.

        A closed connection is an error at once. A large packet is sent as a whole. Small packets are sent at once:
        Nagle's algorithm would delay each by 40 ms, because every packet waits for its answer.
        """

        def connect(self, transport_timeout_s: float | None) -> None:
            super().connect(transport_timeout_s)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
            received: bytes = super().bulk_read(numbytes, transport_timeout_s)
            if not received:
                raise ConnectionResetError("closed by the other side")
            return received

        def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
            sent = 0
            while sent < len(data):
                sent += super().bulk_write(data[sent:], transport_timeout_s)
            return sent

    return Transport(host, port)


def to_stderr(line: str) -> None:
    """Print ``line`` where a person sees it and no program reads it."""
    print(line, file=sys.stderr, flush=True)
