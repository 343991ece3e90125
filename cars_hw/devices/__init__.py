"""Devices: model files in, milliseconds out. Nothing here knows what a genotype is.

A backend is one class with the five members of :class:`Device`; the order, the repetition and the statistics of
its sessions are :func:`measure`. No runtime is imported before something is measured.
"""

from __future__ import annotations

from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.host.runtimes import LitertDevice, OrtDevice
from cars_hw.devices.protocol import Device, DeviceStatus, Measurement, ModelFormat, Sample
from cars_hw.devices.registry import available, format_of, named_devices, open_device

__all__ = [
    "Device",
    "DeviceStatus",
    "FakeDevice",
    "LitertDevice",
    "Measurement",
    "ModelFormat",
    "OrtDevice",
    "Sample",
    "available",
    "format_of",
    "named_devices",
    "open_device",
]
