"""Phones by the names that users give them."""

from __future__ import annotations

import os

from cars_hw.devices.android.adb import AdbShell, Address, keys_folder, to_stderr
from cars_hw.devices.android.adb_server import AdbServerShell, server_phones
from cars_hw.devices.android.app import AppDevice
from cars_hw.devices.android.benchmark_model import Delegate
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.scripted import DELEGATES
from cars_hw.errors import InputError, SeveralDevicesError
from cars_hw.progress import Log


def _shell(address: Address, log: Log) -> AdbShell | AdbServerShell:
    """Return a shell at ``address``: through an adb server that runs and knows the phone, or else by ADB itself."""
    known = server_phones()
    if str(address) in known:
        return AdbServerShell(str(address))
    if not str(address) and len(known) == 1:
        return AdbServerShell(*known)
    if not str(address) and known:
        names = ", ".join(f"android:{serial}" for serial in known)
        raise SeveralDevicesError(f"{len(known)} phones answer to that; name one of: {names}")
    return AdbShell(address, keys=keys_folder(), log=log)


def open_android(where: str, threads: int = 1, *, log: Log | None = None) -> AndroidDevice:
    """Return the phone that ``where`` names, ``[ADDRESS][+app][+gpu|+nnapi]``, connected.

    Raises:
        InputError: an invalid address, or an unknown delegate.
        DeviceError: the phone is not attached, or has not allowed this computer.
    """
    text, *parts = where.split("+")
    as_app = "app" in parts
    delegates = [part for part in parts if part != "app"]
    if len(delegates) > 1 or parts.count("app") > 1 or not set(delegates) <= set(DELEGATES):
        known = ", ".join(f"+{one}" for one in (*DELEGATES, "app"))
        raise InputError(f"'+{'+'.join(parts)}' is no delegate; write one of: {known}")
    delegate: Delegate = delegates[0] if delegates else "cpu"  # type: ignore[assignment]
    shell = _shell(Address.parse(text or os.environ.get("ANDROID_SERIAL", "")), log or to_stderr)
    shell.open()
    name = f"android:{shell.address}{'+app' if as_app else ''}" + (f"+{delegate}" if delegate != "cpu" else "")
    if as_app:
        return AppDevice(shell, name, threads, delegate=delegate, log=log or to_stderr)
    return AndroidDevice(shell, name, threads, delegate=delegate, log=log or to_stderr)
