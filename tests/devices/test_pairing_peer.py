"""Pairing and measuring over an encrypted connection: Android's own ``adb`` on one side, BoringSSL on the other."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from phone_stand import CANNED
from simulated_phone import Adbd, Faults, Phone
from simulated_phone.pairing import PairingDialog

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import open_device
from cars_hw.devices.android.adb_server import server_phones
from cars_hw.devices.android.pairing import pair
from cars_hw.errors import UnauthorizedError

ADB = shutil.which("adb")
CODE = "592781"
PLAN = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)


def version() -> int:
    """Return the version of the installed adb; 0 without one."""
    said = subprocess.run([ADB, "version"], capture_output=True, text=True, check=False).stdout if ADB else ""
    found = re.search(r"^Version (\d+)\.", said, re.MULTILINE)
    return int(found[1]) if found else 0


needs_peers = pytest.mark.skipif(
    version() < 30 or not all(map(importlib.util.find_spec, ("OpenSSL", "spake2"))),
    reason="needs adb 30 or newer, and the packages pyOpenSSL and spake2-cffi",
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An adb server of its own, with a key of its own."""
    assert ADB is not None
    monkeypatch.setenv("HOME", str(tmp_path))
    # Keys are written there by a server that has paired, and not created by it.
    (tmp_path / ".android").mkdir()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "15043")
    yield
    subprocess.run([ADB, "kill-server"], capture_output=True, check=False, timeout=30)


def eventually(holds: Callable[[], bool]) -> bool:
    """Return whether ``holds`` within ten seconds: the other side may be a little later."""
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@needs_peers
@pytest.mark.usefixtures("server")
def test_a_phone_is_paired_and_measured_over_an_encrypted_connection(phone: Phone, models: list[Path]) -> None:
    assert ADB is not None
    phone.install(CANNED.replace("FAULT", ":"))
    with PairingDialog(CODE) as dialog:
        where = f"127.0.0.1:{dialog.port}"
        with pytest.raises(UnauthorizedError, match="refuses the code"):
            pair(where, "111111")
        assert eventually(lambda: dialog.refused == 1)
        assert dialog.keys == []
        assert f"Successfully paired to {where} [guid=adb-SIM0001-abcdef]" in pair(where, CODE)
        assert eventually(lambda: len(dialog.keys) == 1)
    with Adbd(phone, faults=Faults(encrypts=True)) as adbd:
        name = f"127.0.0.1:{adbd.port}"
        # Without the server, cars-hw says what to do.
        with pytest.raises(UnauthorizedError, match="asks for an encrypted connection"):
            open_device(f"android:{name}")

        def connected() -> bool:
            # A second try is what a person does, too.
            subprocess.run([ADB, "connect", name], capture_output=True, check=False, timeout=30)
            return server_phones().get(name) == "device"

        assert eventually(connected)
        device = open_device(f"android:{name}")
        assert [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0)] == [1000, 1100, 1200]
        device.release()
        # The first connection is that of cars-hw itself.
        assert 0 < adbd.encrypted < adbd.connections
    assert not (phone.tmp / "cars-hw").exists()
