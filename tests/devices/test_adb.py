"""Our side of ADB against a device side that knows nothing of it: keys, errors, shell, files."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from long_runs import amount
from simulated_phone import Adbd, Faults, Phone
from simulated_phone.adbd import verifies

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import named_devices
from cars_hw.devices.android import adb
from cars_hw.devices.android.adb import AdbShell, Address, UsbPhone, make_key, signer
from cars_hw.devices.android.adb_server import AdbServerShell, server_phones
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.android.opening import open_android
from cars_hw.devices.remote import NoOutputError
from cars_hw.devices.remote_machine import Waits
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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address()),
        ("R58M123", Address(serial="R58M123")),
        ("usb-1-4-2", Address(usb_port="1-4-2")),
        ("10.0.0.2:5555", Address("10.0.0.2", 5555)),
        ("[::1]:5557", Address("::1", 5557)),
    ],
)
def test_addresses_are_read_as_they_are_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", [":5555", "host:", "host:x", "host:0", "host:65536"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        Address.parse(text)


def test_a_key_is_made_for_its_owner_only_and_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "android"
    first = signer(folder)
    private, public = folder / "adbkey", folder / "adbkey.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["adbkey", "adbkey.pub"]
    token = os.urandom(20)
    assert verifies(public.read_text(), token, first.Sign(token))
    assert not verifies(public.read_text(), os.urandom(20), first.Sign(token))
    before = private.read_bytes()
    public.unlink()
    again = signer(folder)
    assert private.read_bytes() == before
    assert verifies(public.read_text(), token, again.Sign(token))


def test_a_damaged_key_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    make_key(tmp_path / "adbkey")
    (tmp_path / "adbkey").write_text("nothing")
    with pytest.raises(InputError, match="move it away"):
        signer(tmp_path)


def test_a_key_of_openssl_is_read_and_vendor_keys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives import serialization

    make_key(tmp_path / "adbkey")
    loaded = serialization.load_pem_private_key((tmp_path / "adbkey").read_bytes(), None)
    # As OpenSSL and older tools write it.
    form = serialization.PrivateFormat.TraditionalOpenSSL
    old = loaded.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert b"BEGIN RSA PRIVATE KEY" in old
    (tmp_path / "adbkey").write_bytes(old)
    public, token = (tmp_path / "adbkey.pub").read_text(), os.urandom(20)
    assert verifies(public, token, signer(tmp_path).Sign(token))
    vendors = tmp_path / "vendors"
    vendors.mkdir()
    (vendors / "one.adb_key").write_bytes(old)
    (vendors / "notes.txt").write_text("no key")
    for text in (str(vendors), f"{tmp_path / 'adbkey'}{os.pathsep}", str(vendors / "one.adb_key")):
        monkeypatch.setenv("ADB_VENDOR_KEYS", text)
        assert [verifies(public, token, one.Sign(token)) for one in adb.vendor_signers()] == [True]
    monkeypatch.setenv("ADB_VENDOR_KEYS", str(vendors / "notes.txt"))
    with pytest.raises(InputError, match=r"notes\.txt of ADB_VENDOR_KEYS cannot be used"):
        adb.vendor_signers()
    monkeypatch.setenv("ANDROID_USER_HOME", str(vendors))
    assert adb.keys_folder() == vendors


def test_a_phone_that_knows_a_vendor_key_lets_in_without_asking(
    phone: Phone, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "adbkey")
    with Adbd(phone, keys=[(keys / "adbkey.pub").read_text()]) as adbd:
        monkeypatch.setenv("ADB_VENDOR_KEYS", str(keys / "adbkey"))
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=tmp_path, authorise_s=0.2)
        shell.open()
        assert shell.call("echo on").output == "on\n"
        shell.close()
        assert adbd.asked == 0


def test_commands_give_their_output_and_their_exit_status(shell: AdbShell) -> None:
    shell.open()
    assert shell.call("echo one; echo two >&2; false") == ("one\ntwo\n", 1)
    assert shell.call("printf no-newline") == ("no-newline", 0)
    assert shell.call("exit 3", 5.0) == ("", 3)


def test_lines_come_while_the_command_runs(shell: AdbShell) -> None:
    shell.open()
    began = time.monotonic()
    times = [time.monotonic() - began for _ in shell.lines("echo a; sleep 0.6; echo b", 5.0)]
    assert len(times) == 2
    assert times[1] - times[0] > 0.4
    assert shell.call("echo on").output == "on\n"


def test_files_arrive_whole_and_executable(shell: AdbShell, phone: Phone, tmp_path: Path) -> None:
    shell.open()
    source = tmp_path / "file"
    source.write_bytes(os.urandom(700_001))
    shell.push(source, "/data/local/tmp/a/b", executable=True)
    arrived = phone.tmp / "a" / "b"
    assert arrived.read_bytes() == source.read_bytes()
    assert os.access(arrived, os.X_OK)


def test_no_room_is_an_error_that_says_so(shell: AdbShell, adbd: Adbd, phone: Phone, tmp_path: Path) -> None:
    phone.storage(1)
    for size in (5000, 12_000_000):
        shell.open()
        (tmp_path / "file").write_bytes(bytes(size))
        before = adbd.packets
        with pytest.raises(DeviceStateError, match="no room"):
            shell.push(tmp_path / "file", "/data/local/tmp/file")
        # The phone says it in the middle of the large file, whose rest is not sent: it has about 100 packets.
        assert adbd.packets - before < 20


def test_a_new_computer_is_asked_for_and_then_known(phone: Phone, keys: Path) -> None:
    said: list[str] = []
    with Adbd(phone, taps=True) as adbd:
        for _ in range(2):
            shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, log=said.append)
            shell.open()
            shell.close()
        assert adbd.asked == 1
    assert len(said) == 1
    assert "Allow USB debugging" in said[0]


def test_a_phone_that_nobody_taps_on_is_unauthorised(phone: Phone, keys: Path) -> None:
    with Adbd(phone, keys=[]) as adbd:
        shell = AdbShell(
            Address("127.0.0.1", adbd.port), keys=keys, log=lambda _: None, connect_s=2.0, authorise_s=0.2
        )
        with pytest.raises(UnauthorizedError, match='tap "Allow"'):
            shell.open()


def test_nobody_there_and_nobody_answering_are_told_apart(adbd: Adbd, keys: Path) -> None:
    adbd.faults.silent = True
    with pytest.raises(OfflineError, match="does not answer"):
        AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=0.3).open()
    closed = adbd.port
    adbd.__exit__()
    with pytest.raises(NoDeviceError, match="adb tcpip"):
        AdbShell(Address("127.0.0.1", closed), keys=keys, connect_s=0.3).open()


def test_a_cut_and_a_silence_are_told_apart(shell: AdbShell, adbd: Adbd) -> None:
    shell.open()
    threading.Timer(0.3, adbd.cut).start()
    with pytest.raises(ConnectionLostError, match="broke") as raised:
        list(shell.lines("echo a; sleep 5", 4.0))
    assert not isinstance(raised.value, NoOutputError)
    with pytest.raises(ConnectionLostError, match="not connected"):
        shell.call("echo")
    shell.open()
    with pytest.raises(NoOutputError):
        list(shell.lines("echo a; sleep 5", 0.3))
    with pytest.raises(DeviceError, match="no output"):
        shell.open()
        shell.call("sleep 5", 0.3)


def test_a_cut_at_any_packet_is_an_error_and_nothing_else(phone: Phone, keys: Path) -> None:
    for packet in range(1, 14):
        with Adbd(phone, taps=True, faults=Faults(cut_after=[packet])) as adbd:
            shell = AdbShell(
                Address("127.0.0.1", adbd.port), keys=keys, log=lambda _: None, connect_s=1.0, authorise_s=1.0
            )
            try:
                shell.open()
                answer = shell.call("echo hello", 1.0)
            except DeviceError:
                continue
            finally:
                shell.close()
            assert answer == ("hello\n", 0)


@pytest.fixture
def cable(monkeypatch: pytest.MonkeyPatch) -> list[UsbPhone]:
    plugged: list[UsbPhone] = []
    monkeypatch.setattr(adb, "usb_phones", lambda: plugged)
    return plugged


def transport(error: Exception) -> Any:  # noqa: ANN401
    from adb_shell.transport.base_transport import BaseTransport

    class Broken(BaseTransport):  # type: ignore[misc]
        def connect(self, transport_timeout_s: float | None = None) -> None:
            raise error

        def close(self) -> None: ...

        def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
            raise error

        def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
            raise error

    return Broken()


def test_the_only_phone_on_the_cable_needs_no_name_and_keeps_it(cable: list[UsbPhone], keys: Path) -> None:
    shell = AdbShell(Address(), keys=keys)
    with pytest.raises(NoDeviceError, match="USB debugging on"):
        shell.open()
    cable.append(UsbPhone("AAA", "1-1", transport(OSError("gone"))))
    with pytest.raises(OfflineError):
        shell.open()
    assert shell.address == Address(serial="AAA")
    with pytest.raises(NoDeviceError, match="BBB is not attached"):
        AdbShell(Address(serial="BBB"), keys=keys).open()


def test_several_phones_have_to_be_named_and_alike_ones_by_their_port(cable: list[UsbPhone], keys: Path) -> None:
    cable += [UsbPhone("AAA", "1-1", transport(OSError())), UsbPhone("BBB", "1-2", transport(OSError()))]
    with pytest.raises(SeveralDevicesError, match="android:AAA, android:BBB"):
        AdbShell(Address(), keys=keys).open()
    cable[:] = [UsbPhone("0123", port, transport(OSError())) for port in ("1-1", "1-2")]
    with pytest.raises(SeveralDevicesError, match="android:usb-1-1, android:usb-1-2"):
        AdbShell(Address(serial="0123"), keys=keys).open()
    with pytest.raises(OfflineError):
        AdbShell(Address(usb_port="1-2"), keys=keys).open()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("USBErrorBusy", "adb kill-server"), ("USBErrorAccess", "plugdev")],
)
def test_a_held_port_says_how_to_free_it(name: str, expected: str, cable: list[UsbPhone], keys: Path) -> None:
    error = type(name, (Exception,), {})("LIBUSB_ERROR")
    cable.append(UsbPhone("AAA", "1-1", transport(error)))
    with pytest.raises(UsbHeldError, match=expected):
        AdbShell(Address(), keys=keys).open()


ADB = shutil.which("adb")

# Prints what the tool prints: of a model so many microseconds as its file has bytes.
CANNED = """\
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(wc -c < "$graph")
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of an adb server of its own, with a key of its own."""
    assert ADB is not None
    environment = {**os.environ, "HOME": str(tmp_path), "ANDROID_ADB_SERVER_PORT": "15037"}
    yield environment
    subprocess.run([ADB, "kill-server"], env=environment, capture_output=True, check=False, timeout=30)


@pytest.mark.skipif(ADB is None, reason="needs Debian's adb")
def test_debians_adb_finds_in_the_simulated_phone_what_it_finds_in_others(
    phone: Phone, server: dict[str, str], tmp_path: Path
) -> None:
    assert ADB is not None

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [ADB, *arguments], env=server, capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout + done.stderr

    with Adbd(phone, taps=True) as adbd:
        where = f"127.0.0.1:{adbd.port}"
        # It says "failed to authenticate" as long as the phone has not been tapped on.
        run("connect", where)
        deadline = time.monotonic() + 10
        while f"{where}\tdevice" not in run("devices") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert adbd.asked == 1
        assert run("-s", where, "shell", "getprop").count("ro.product.model") == 1
        source = tmp_path / "pushed"
        source.write_bytes(os.urandom(300_000))
        assert "1 file pushed" in run("-s", where, "push", str(source), "/data/local/tmp/pushed")
        assert (phone.tmp / "pushed").read_bytes() == source.read_bytes()
        assert "1 file pulled" in run("-s", where, "pull", "/data/local/tmp/pushed", str(tmp_path / "pulled"))
        assert (tmp_path / "pulled").read_bytes() == source.read_bytes()
        phone.storage(1)
        assert "No space left" in run("-s", where, "push", str(source), "/data/local/tmp/again")


@pytest.mark.skipif(ADB is None, reason="needs Debian's adb")
def test_a_phone_is_measured_through_debians_adb_server(
    phone: Phone, server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ADB is not None
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", server["ANDROID_ADB_SERVER_PORT"])
    assert server_phones() == {}
    phone.install(CANNED)
    with Adbd(phone) as adbd:
        where = f"127.0.0.1:{adbd.port}"
        subprocess.run([ADB, "connect", where], env=server, capture_output=True, check=True, timeout=30)
        assert server_phones() == {where: "device"}
        assert named_devices(["android:*"]) == [f"android:{where}"]
        shell = AdbServerShell(where)
        with pytest.raises(ConnectionLostError, match="not connected"):
            shell.call("echo")
        shell.open()
        assert shell.call("echo one; echo two >&2; false") == ("one\ntwo\n", 1)
        began = time.monotonic()
        times = [time.monotonic() - began for _ in shell.lines("echo a; sleep 0.6; echo b", 5.0)]
        assert len(times) == 2
        assert times[1] - times[0] > 0.4
        source = tmp_path / "file"
        source.write_bytes(os.urandom(700_001))
        shell.push(source, "/data/local/tmp/file", executable=True)
        assert (phone.tmp / "file").read_bytes() == source.read_bytes()
        assert os.access(phone.tmp / "file", os.X_OK)
        phone.storage(1)
        with pytest.raises(DeviceStateError, match="no room"):
            shell.push(source, "/data/local/tmp/again")
        phone.storage(100_000)
        # The server may connect again after a refused file.
        deadline = time.monotonic() + 20
        while server_phones().get(where) != "device" and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(NoOutputError):
            shell.call("sleep 3", 0.3)
        # The only phone needs no name, and ANDROID_SERIAL names one.
        for text, serial in (("", ""), ("", where), (where, "other")):
            monkeypatch.setenv("ANDROID_SERIAL", serial)
            device = open_android(text)
            assert device.name == f"android:{where}"
            assert isinstance(device._shell, AdbServerShell)
            device.release()
        model = tmp_path / "m.tflite"
        model.write_bytes(bytes(1200))
        plan = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_seconds=0.0, patience_seconds=0)
        assert [sample.ms for sample in device.run([model, model], plan, 0)] == [1.2, 1.2]
        device.release()
        assert not (phone.tmp / "cars-hw").exists()
    subprocess.run([ADB, "disconnect", where], env=server, capture_output=True, check=False, timeout=30)
    with pytest.raises(NoDeviceError, match="does not know"):
        shell.open()
    subprocess.run([ADB, "kill-server"], env=server, capture_output=True, check=False, timeout=30)
    with pytest.raises(NoDeviceError, match="adb start-server"):
        AdbServerShell(where).open()


@pytest.mark.skipif(ADB is None, reason="needs Debian's adb")
@pytest.mark.skipif(not amount(0, 1), reason="takes some seconds: pytest --long")
def test_an_adb_server_that_is_stopped_or_loses_its_phone_in_the_middle_is_waited_for(
    phone: Phone, server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ADB is not None
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", server["ANDROID_ADB_SERVER_PORT"])
    phone.install(CANNED)
    models = []
    for number in range(4):
        models.append(tmp_path / f"{number}.tflite")
        models[-1].write_bytes(bytes(1000 + 100 * number))
    plan = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_seconds=0.0, patience_seconds=0)
    with Adbd(phone) as adbd:
        where = f"127.0.0.1:{adbd.port}"

        def adb(*words: str) -> None:
            subprocess.run([ADB, *words], env=server, capture_output=True, check=False, timeout=30)

        adb("connect", where)
        said: list[str] = []
        device = AndroidDevice(
            AdbServerShell(where), "android:sim", log=said.append, waits=Waits(reconnect=30.0, pause=0.1)
        )
        device.conditions()
        for words, cause in (
            (("disconnect", where), "know|closed|ended|broke"),
            (("kill-server",), "gone|ended|broke"),
        ):
            for moment in (0, 2):
                said.clear()

                def cut(done: int, moment: int = moment, words: tuple[str, ...] = words) -> None:
                    if done == moment and not said:
                        adb(*words)

                def back(line: str) -> None:
                    said.append(line)
                    adb("connect", where)

                device._log = back
                cut(0)
                samples = device.run(models, plan, 0, cut)
                assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200, 1300]
                assert re.search(cause, said[0])
                device.release()
                assert not (phone.tmp / "cars-hw").exists()
