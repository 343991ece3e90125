"""Devices: model files in, milliseconds out. Nothing here knows what a genotype is.

A backend is one class with the four members of :class:`Device`; the order, the repetition and the statistics of
its sessions are :func:`measure_in_rounds`. No runtime is imported before something is measured.
"""

from __future__ import annotations

from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.ort import OrtDevice
from cars_hw.devices.protocol import Device, DeviceStatus, Measurement, MeasurePlan, ModelFormat
from cars_hw.devices.registry import available, open_device
from cars_hw.devices.rounds import measure_in_rounds

__all__ = [
    "Device",
    "DeviceStatus",
    "FakeDevice",
    "MeasurePlan",
    "Measurement",
    "ModelFormat",
    "OrtDevice",
    "available",
    "measure_in_rounds",
    "open_device",
]
