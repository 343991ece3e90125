"""Android's debug bridge without Android's tools: a shell on a phone, over USB or TCP, on adb-shell.

What the library raises, and what USB raises below it, becomes an error that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cars_hw.devices.remote import Answer, last_lines
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

Log = Callable[[str], None]

CONNECT_S: Final = 10.0
AUTHORISE_S: Final = 60.0
"""How long a phone may take to answer, and a person to tap "Allow" on it."""

KEYS: Final = Path("~/.android")
"""Where Android's own tools keep the key of this computer."""

_STATUS: Final = "@cars-hw status"
_USB_PORT: Final = "usb-"

NO_PHONE: Final = (
    "no phone is attached over USB; plug one in with USB debugging on (Settings, Developer options), or name one "
    "in the network: android:HOST:PORT"
)


class Address(NamedTuple):
    """Where a phone is: in the network, or on the cable by its number or its port; all None is the only one."""

    host: str | None = None
    port: int | None = None
    serial: str | None = None
    usb_port: str | None = None

    @staticmethod
    def parse(text: str) -> Address:
        """Return the address that ``text`` says: nothing, SERIAL, ``usb-BUS-PORT...`` or HOST:PORT.

        Raises:
            InputError: a port that is none.
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
        """Return what :meth:`parse` reads."""
        if self.host is not None:
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return self.serial or (f"{_USB_PORT}{self.usb_port}" if self.usb_port else "")


class UsbPhone(NamedTuple):
    """A phone on the cable: its serial number, where it is plugged in, and the library's transport to it."""

    serial: str
    usb_port: str
    transport: Any


class AdbShell:
    """A shell on the phone at ``address``; see :class:`cars_hw.devices.remote.RemoteShell`.

    ``keys`` is the folder with this computer's key, which is made there if there is none. ``log`` hears what a
    person has to do meanwhile.
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
        self._asked = False

    @property
    def where(self) -> str:
        """How a person calls the phone."""
        return f"the phone at {self._address}" if str(self._address) else "the phone"

    @property
    def address(self) -> Address:
        """Where the phone is; once it was connected to, never "the only one"."""
        return self._address

    def open(self) -> None:
        """Connect, or connect again.

        Raises:
            NoDeviceError: nothing is attached there, or nothing listens.
            SeveralDevicesError: more than one phone answers to the address.
            UnauthorizedError: the phone has not allowed this computer.
            UsbHeldError: another program holds the USB port.
            OfflineError: it does not answer.
        """
        from adb_shell.adb_device import AdbDevice

        self.close()
        self._asked = False
        with self._translated(self._while_connecting):
            # Known before it is connected, so that a failure closes it.
            self._device = AdbDevice(self._transport(), banner="cars-hw")
            self._device.connect(
                rsa_keys=[signer(self._keys)],
                transport_timeout_s=self._connect_s,
                read_timeout_s=self._connect_s,
                auth_timeout_s=self._authorise_s,
                auth_callback=self._ask,
            )

    def close(self) -> None:
        """Disconnect; nothing happens where there is no connection."""
        device, self._device = self._device, None
        if device is not None:
            # It is gone one way or the other.
            with contextlib.suppress(Exception):
                device.close()

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run ``command`` and return what it printed and its exit status; see the protocol."""
        with self._translated(self._while_connected):
            said: str = (
                self._connected()
                .shell(
                    f"( {command}\n) 2>&1; status=$?; echo; echo {_STATUS} $status",
                    transport_timeout_s=limit_s,
                    read_timeout_s=limit_s,
                    timeout_s=limit_s,
                    decode=False,
                )
                .decode(errors="replace")
            )
        output, found, status = said.replace("\r\n", "\n").rpartition(f"\n{_STATUS} ")
        if not found or not status.strip().isdecimal():
            self.close()
            raise ConnectionLostError(f"{self.where} stopped in the middle of an answer: {last_lines(said)}")
        return Answer(output, int(status))

    def lines(self, command: str, idle_s: float) -> Iterator[str]:
        """Run ``command`` and yield its lines as they come; see the protocol."""
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
            # From now on it is this one, also if another is plugged in.
            self._address = Address(serial=phone.serial) if phone.serial else Address(usb_port=phone.usb_port)
        return phone.transport

    def _ask(self, _device: object) -> None:
        self._asked = True
        self._log(
            f'{self.where} asks "Allow USB debugging?" on its screen: unlock it, tick "Always allow from this '
            f'computer" and tap "Allow". Waiting for up to {self._authorise_s:.0f} s.'
        )

    @contextlib.contextmanager
    def _translated(self, fail: Callable[[Exception], DeviceError]) -> Iterator[None]:
        """Turn what the library and the system raise into our errors; after any of them there is no connection."""
        try:
            yield
        except (DeviceError, InputError):
            self.close()
            raise
        # The library, libusb and the sockets raise a dozen unrelated types.
        except Exception as error:
            self.close()
            raise fail(error) from error
        except BaseException:
            # An answer that nobody reads to its end would be taken for that to the next question.
            self.close()
            raise

    def _while_connecting(self, error: Exception) -> DeviceError:
        kind, said = type(error).__name__, f"{type(error).__name__}: {error}"
        if kind.startswith("USBErrorBusy") or "LIBUSB_ERROR_BUSY" in said:
            return UsbHeldError(
                f"{self.where} is held by another program, most likely an adb server; free it with: adb "
                "kill-server (and close Android Studio)"
            )
        if kind.startswith("USBErrorAccess") or "LIBUSB_ERROR_ACCESS" in said:
            return UsbHeldError(
                f"{self.where} may not be opened by this user; on Linux add the rule of the package "
                "android-sdk-platform-tools-common, or yourself to the group plugdev, and plug it in again"
            )
        if self._asked or kind == "DeviceAuthError":
            return UnauthorizedError(
                f'{self.where} has not allowed this computer; unlock it, tap "Allow" when it asks, and try again. '
                "If it does not ask: Developer options, Revoke USB debugging authorisations, and plug it in again"
            )
        if isinstance(error, ConnectionRefusedError):
            return NoDeviceError(
                f"nothing listens at {self._address}; with the phone on the cable run: adb tcpip "
                f"{self._address.port}"
            )
        return OfflineError(
            f"{self.where} does not answer ({last_lines(said)}); unlock it, turn USB debugging off and on again, "
            "or plug it in again"
        )

    def _while_connected(self, error: Exception) -> DeviceError:
        said = str(error)
        if "No space left" in said or "ENOSPC" in said:
            return DeviceStateError(f"{self.where} has no room left; free some storage and try again")
        kind = type(error).__name__
        if kind in ("PushFailedError", "AdbCommandFailureException"):
            return DeviceError(f"{self.where} refuses a file: {last_lines(said)}")
        if "imeout" in kind or "imed out" in said or "LIBUSB_ERROR_TIMEOUT" in said:
            return NoOutputError(f"{self.where} has been silent for too long")
        return ConnectionLostError(f"the connection to {self.where} broke ({kind})")


class NoOutputError(ConnectionLostError):
    """Nothing came for longer than was allowed: the phone is gone, or what it runs hangs."""


def usb_phones() -> list[UsbPhone]:
    """Return the phones on the cable, whether or not they allow this computer.

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
        # A phone that another program holds or that may not be opened does not tell its number.
        try:
            serial = str(transport.serial_number or "")
        except Exception:  # noqa: BLE001 -- libusb's many
            serial = ""
        phones.append(UsbPhone(serial, "-".join(str(part) for part in transport.port_path), transport))
    return sorted(phones, key=lambda phone: phone.usb_port)


def usb_names(phones: Sequence[UsbPhone]) -> list[str]:
    """Return what each of ``phones`` is called so that no other answers: by its number, or else by its port."""
    serials = [phone.serial for phone in phones]
    return [
        f"android:{phone.serial}"
        if phone.serial and serials.count(phone.serial) == 1
        else f"android:{_USB_PORT}{phone.usb_port}"
        for phone in phones
    ]


def signer(folder: Path) -> Any:  # noqa: ANN401 -- the library has no types
    """Return what signs with this computer's key in ``folder``, made there (0600) if there is none.

    Raises:
        InputError: the key cannot be read, or is none.
    """
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

    private, public = folder / "adbkey", folder / "adbkey.pub"
    try:
        if not private.exists():
            make_key(private)
        elif not public.exists():
            _write_public(private, public)
        return PythonRSASigner(public.read_text(encoding="ascii"), private.read_text(encoding="ascii"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"this computer's key {private} cannot be used ({error}); move it away and a new one is made, which "
            "the phone has to allow again"
        ) from error


def make_key(private: Path) -> None:
    """Make an RSA key at ``private``, never readable for others, and the public one beside it."""
    from adb_shell.auth.keygen import keygen

    private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = private.with_name(f".{private.name}.{os.getpid()}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        # It writes into the file that is there, and so keeps its mode.
        keygen(str(temporary))
        public = temporary.with_name(f"{temporary.name}.pub")
        public.replace(private.with_name(f"{private.name}.pub"))
        temporary.replace(private)
    finally:
        temporary.unlink(missing_ok=True)


def _write_public(private: Path, public: Path) -> None:
    from adb_shell.auth.keygen import write_public_keyfile

    write_public_keyfile(str(private), str(public))


def _tcp_transport(host: str, port: int | None) -> Any:  # noqa: ANN401 -- the library has no types
    from adb_shell.transport.tcp_transport import TcpTransport

    class Transport(TcpTransport):  # type: ignore[misc]  # the library has no types
        """The library's, but that a closed connection is an error at once and a large packet goes out whole.

        And small ones go at once: waiting to send more takes 40 ms a packet, as each waits for its answer.
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
