"""From what a user writes to a device, and what can be used here."""

from __future__ import annotations

from importlib import metadata, util
from typing import Final

from cars_hw.devices.conditions import host_conditions, pin_to
from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.ort import OrtDevice
from cars_hw.devices.protocol import Device, DeviceStatus
from cars_hw.errors import DeviceError, InputError

_USABLE: Final = "ort, fake"
_LATER: Final = {
    "litert": "TensorFlow Lite on this machine",
    "android": "a phone over ADB",
}


def open_device(text: str, threads: int = 1) -> Device:
    """Return the device that ``text`` names: ``ort``, ``fake`` or ``fake:SEED``.

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
    if text != "ort":
        raise InputError(f"unknown device '{text}'; use one of: {_USABLE}")
    if util.find_spec("onnxruntime") is None:
        raise DeviceError("device 'ort' needs ONNX Runtime; install it: pip install onnxruntime")
    return OrtDevice(threads)


def available() -> list[DeviceStatus]:
    """Return every device that has a name, the usable ones first."""
    return [
        _ort_status(),
        DeviceStatus("fake", True, "latencies computed from the model file; for trying things out"),
        *(DeviceStatus(name, False, f"{what}: not in this version") for name, what in _LATER.items()),
    ]


def _ort_status() -> DeviceStatus:
    if util.find_spec("onnxruntime") is None:
        return DeviceStatus("ort", False, "ONNX Runtime is not installed: pip install onnxruntime")
    cores = pin_to(1)
    pinned = "cannot be pinned here" if cores is None else f"pinned to core {cores[0]}"
    processor = host_conditions()["processor"]
    return DeviceStatus("ort", True, f"ONNX Runtime {metadata.version('onnxruntime')} on {processor}, {pinned}")
