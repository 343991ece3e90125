"""Pairing for wireless debugging: when it is needed, and what adb says of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_phone import Adbd, Faults, Phone

from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.pairing import pair
from cars_hw.errors import DeviceError, InputError, OfflineError, UnauthorizedError

WHERE, CODE = "192.168.1.20:37099", "123456"
PAIRED = f"Successfully paired to {WHERE} [guid=adb-SIM0001-abcdef]"
ADB = shutil.which("adb")


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands for adb: it keeps its arguments, and prints the text of the file ``says``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "adb"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\ncat {folder}/says\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (folder / "says").write_text(f"{PAIRED}\n")
    return folder


def test_a_phone_that_asks_for_encryption_is_an_error_that_says_how(phone: Phone, keys: Path) -> None:
    with Adbd(phone, faults=Faults(encrypts=True)) as adbd:
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=2.0)
        with pytest.raises(UnauthorizedError, match=r"asks for an encrypted connection \(wireless deb") as raised:
            shell.open()
        assert raised.value.about == {"address": f"127.0.0.1:{adbd.port}"}
    assert raised.value.remedy == "pair"


def test_adb_pairs_with_the_address_and_the_code_of_the_dialog(adb: Path) -> None:
    assert pair(WHERE, CODE) == PAIRED
    assert (adb / "asked").read_text() == f"pair {WHERE} {CODE}\n"


@pytest.mark.parametrize(
    ("says", "kind", "told"),
    [
        (
            "Failed: Wrong password or connection was dropped.",
            UnauthorizedError,
            "refuses the code .*open it again",
        ),
        ("Failed: Unable to start pairing client.", OfflineError, "does not pair .* leave the dialog open"),
        ("error: protocol fault", OfflineError, "does not pair"),
        ("adb: unknown command pair", DeviceError, "too old to pair, which needs version 30"),
    ],
)
def test_what_adb_says_is_told(says: str, kind: type[DeviceError], told: str, adb: Path) -> None:
    (adb / "says").write_text(f"{says}\n")
    with pytest.raises(kind, match=told):
        pair(WHERE, CODE)


def test_a_text_of_adb_that_says_nothing_is_told_apart_by_whether_somebody_listens(adb: Path) -> None:
    (adb / "says").write_text("error: protocol fault (couldn't read status message): Success\n")
    with socket.create_server(("127.0.0.1", 0)) as dialog:
        where = f"127.0.0.1:{dialog.getsockname()[1]}"
        with pytest.raises(UnauthorizedError, match="refuses the code"):
            pair(where, CODE)
    with pytest.raises(OfflineError, match="does not pair"):
        pair(where, CODE)


def test_what_cannot_be_an_address_or_a_code_is_refused(adb: Path) -> None:
    for where, code in (("192.168.1.20", CODE), (":5", CODE), ("", CODE), (WHERE, "12345"), (WHERE, "12345x")):
        with pytest.raises(InputError, match=r"is not an address|is not a pairing code"):
            pair(where, code)
    assert not (adb / "asked").exists()


def test_without_adb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="needs the program adb") as raised:
        pair(WHERE, CODE)
    assert raised.value.remedy == "get-adb"


@pytest.fixture
def server_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port for the server that adb starts in order to pair, which is ended."""
    assert ADB is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    yield port
    subprocess.run([ADB, "kill-server"], capture_output=True, check=False, timeout=30)


@pytest.mark.skipif(ADB is None, reason="needs Debian's adb")
@pytest.mark.usefixtures("server_port")
def test_an_installed_adb_is_too_old_or_does_not_reach_anybody() -> None:
    """Port 9 of this machine has no pairing dialog. The adb of Debian 12 is version 29."""
    assert ADB is not None
    version = subprocess.run([ADB, "version"], capture_output=True, text=True, check=True).stdout
    old = "Version 2" in version
    with pytest.raises(DeviceError, match="too old to pair" if old else "does not pair|refuses the code"):
        pair("127.0.0.1:9", CODE)
