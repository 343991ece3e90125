"""A phone with a clock of its own, and the device that measures on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from simulated_phone import Adbd, Phone, Throttling

from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits


class Stand(NamedTuple):
    """A phone with a clock of its own, and the device that measures on it."""

    phone: Phone
    throttling: Throttling
    device: AndroidDevice


@contextmanager
def throttling_phone(folder: Path, keys: Path, ramp_s: float = 0.0) -> Iterator[Stand]:
    """Yield a phone in ``folder`` whose sessions take no real time; samples have the time of its own clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        phone = Phone(folder / "phone")
        throttling = Throttling(phone, ramp_s=ramp_s)
        patch.setattr("cars_hw.devices.scripted.now", throttling.now)
        waits = Waits(cool_down=0.3, reconnect=0.3, session=20.0, pause=0.02, old_script=3)
        with Adbd(phone) as adbd:
            shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=2.0)
            yield Stand(phone, throttling, AndroidDevice(shell, "android:sim", log=lambda _: None, waits=waits))
            shell.close()
