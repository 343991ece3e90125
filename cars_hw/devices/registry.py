"""From what a user writes to a device, and what can be used here."""

from __future__ import annotations

from typing import Final

from cars_hw.devices.conditions import host_conditions, pin_to
from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.host import HostDevice, LitertDevice, OrtDevice
from cars_hw.devices.protocol import Device, DeviceStatus, ModelFormat
from cars_hw.errors import DeviceError, InputError

_HOST: Final[dict[str, type[HostDevice]]] = {"ort": OrtDevice, "litert": LitertDevice}
_FORMATS: Final[dict[str, ModelFormat]] = {"ort": "onnx", "litert": "tflite", "fake": "onnx", "android": "tflite"}
_USABLE: Final = "ort, litert, fake"
_LATER: Final = {"android": "a phone over ADB"}


def open_device(text: str, threads: int = 1) -> Device:
    """Return the device that ``text`` names: ``ort``, ``litert``, ``fake`` or ``fake:SEED``.

    Raises:
        InputError: an unknown name, a seed that is not a whole number, less than one thread.
        DeviceError: a device that this version does not have yet, or whose runtime is not installed.
    """
    kind, _, rest = text.partition(":")
    if kind in _LATER:
        raise DeviceError(f"device '{kind}' ({_LATER[kind]}) is not in this version; use one of: {_USABLE}")
    if kind == "fake":
        if rest and not rest.isdecimal():
            raise InputError(f"'{text}' is not a device: write fake:SEED with a whole number")
        return FakeDevice(seed=int(rest or 0))
    if text not in _HOST:
        raise InputError(f"unknown device '{text}'; use one of: {_USABLE}")
    _HOST[text].runtime()
    return _HOST[text](threads)


def format_of(name: str) -> ModelFormat | None:
    """Return the format that the device ``name`` of a table runs; None for a name of somebody's own."""
    return _FORMATS.get(name.partition(":")[0])


def available() -> list[DeviceStatus]:
    """Return every device that has a name, the usable ones first."""
    found = [
        *(_host_status(name, device) for name, device in _HOST.items()),
        DeviceStatus("fake", True, "latencies computed from the model file; for trying things out"),
        *(DeviceStatus(name, False, f"{what}: not in this version") for name, what in _LATER.items()),
    ]
    return sorted(found, key=lambda status: not status.usable)


def _host_status(name: str, device: type[HostDevice]) -> DeviceStatus:
    try:
        runtime = device.runtime()
    except DeviceError as error:
        return DeviceStatus(name, False, str(error))
    cores = pin_to(1)
    pinned = "cannot be pinned here" if cores is None else f"pinned to core {cores[0]}"
    return DeviceStatus(name, True, f"{runtime} on {host_conditions()['processor']}, {pinned}")
