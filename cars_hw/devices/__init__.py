"""Devices: model files in, milliseconds out. Genotypes are unknown here.

A device is one class with the five members of :class:`Device`. :func:`cars_hw.measurement.schedule.measure` adds
the order of sessions, their repetition and the statistics. Runtimes are imported at the first measurement.
"""

from __future__ import annotations

from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.host.runtimes import LitertDevice, OrtDevice
from cars_hw.devices.protocol import Device, DeviceStatus, Measurement, ModelFormat, Sample, warnings_of
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
    "warnings_of",
]
