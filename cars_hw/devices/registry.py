"""Devices by name, and the list of devices that are available."""

from __future__ import annotations

import logging
from typing import Final

from cars_hw.devices.fake import FakeDevice
from cars_hw.devices.host.accelerator import AcceleratorDevice, installed_providers
from cars_hw.devices.host.conditions import host_conditions
from cars_hw.devices.host.providers import PROVIDERS, parse_provider
from cars_hw.devices.host.runtimes import HostDevice, LitertDevice, OrtDevice
from cars_hw.devices.host.topology import pin
from cars_hw.devices.protocol import Device, DeviceStatus, ModelFormat
from cars_hw.errors import DeviceError, InputError, NoDeviceError
from cars_hw.plugins import called, load_plugin, plugin_names

_LOG: Final = logging.getLogger(__name__)

_HOST: Final[dict[str, type[HostDevice]]] = {"ort": OrtDevice, "litert": LitertDevice}
KINDS: Final = (*_HOST, "fake", "android", "ssh")
"""The devices of cars-hw by the first part of their names."""

ALL_PHONES: Final = "android:*"

GROUP: Final = "cars_hw.devices"
"""The group of the entry points of packages with devices of their own."""

MEMBERS: Final = ("name", "model_format", "conditions", "run", "release")
"""What a device has; see :class:`cars_hw.devices.protocol.Device`."""


def open_device(text: str, threads: int = 1) -> Device:
    """Return the device that ``text`` names: ``ort``, ``ort:PROVIDER``, ``litert``, ``android...``, ``ssh:...``,
    ``fake`` or ``fake:SEED``.

    ``ort`` is ONNX Runtime on the processor, and ``ort:cuda``, ``ort:openvino`` and so on are its other execution
    providers, see :data:`cars_hw.devices.host.providers.PROVIDERS`.

    A phone is ``android`` if it is the only one on the cable, or ``android:SERIAL``, ``android:usb-BUS-PORT`` or
    ``android:HOST:PORT``; with ``+gpu`` or ``+nnapi`` behind it models run there, with ``+app`` in an app in the
    foreground. A Linux board is ``ssh:[USER@]HOST[:PORT]``. Both are connected to at once. A device of another
    package has the name of its entry point, with what it needs behind a colon.

    Raises:
        InputError: an unknown name, a seed that is not a whole number, less than one thread, more threads than
            this process may use physical cores.
        DeviceError: a phone that is not there or does not allow this computer, or a runtime that is not installed.
    """
    _LOG.debug("open device %s, threads %d", text, threads)
    kind, _, rest = text.partition(":")
    if kind.partition("+")[0] == "android":
        from cars_hw.devices.android.opening import open_android

        return open_android(rest or text.removeprefix("android"), threads)
    if kind == "ssh":
        from cars_hw.devices.android.adb import to_stderr
        from cars_hw.devices.board.device import open_board

        return open_board(rest, threads, log=to_stderr)
    if kind == "fake":
        if rest and not rest.isdecimal():
            raise InputError(f"'{text}' is not a device: write fake:SEED with a whole number")
        if threads != 1:
            raise InputError(f"the simulated device '{text}' has one thread, not {threads}")
        return FakeDevice(seed=int(rest or 0))
    if kind not in KINDS and kind in plugin_names(GROUP):
        return _plugin_device(kind, rest, threads)
    if kind == "ort" and rest:
        accelerator = AcceleratorDevice(*parse_provider(rest), threads)
        accelerator.require()
        return accelerator
    if text not in _HOST:
        known = dict.fromkeys((*KINDS, *plugin_names(GROUP)))
        raise InputError(f"unknown device '{text}'; use one of: {', '.join(known)}")
    host = _HOST[text](threads)
    host.runtime()
    return host


def _plugin_device(kind: str, rest: str, threads: int) -> Device:
    """Return the device ``kind`` of another package, which is called with what follows its name, and ``threads``.

    Raises:
        InputError: it cannot be imported, or is no device.
    """
    if threads < 1:
        raise InputError(f"a model needs at least one thread, not {threads}")
    make = load_plugin(GROUP, kind)
    device: Device = called(f"the plug-in {kind}", lambda: make(rest, threads))
    missing = [name for name in MEMBERS if not hasattr(device, name)]
    if missing:
        raise InputError(f"the plug-in {kind} is no device: it has no {', '.join(missing)}")
    return device


def named_devices(texts: tuple[str, ...] | list[str]) -> list[str]:
    """Return ``texts`` with ``android:*`` replaced by every phone on the cable.

    Raises:
        NoDeviceError: there is no phone.
        InputError: the same device twice.
    """
    found = []
    for text in texts:
        if text != ALL_PHONES:
            found.append(text)
            continue
        found += _phone_names()
    twice = {text for text in found if found.count(text) > 1}
    if twice:
        raise InputError(f"{', '.join(sorted(twice))} is named twice")
    return found


def _phone_names() -> list[str]:
    """Return the name of every phone on the cable: those of a running adb server, which holds the cable, or all.

    Raises:
        NoDeviceError: there is none.
    """
    from cars_hw.devices.android.adb import NO_PHONE, usb_names, usb_phones
    from cars_hw.devices.android.adb_server import server_phones

    if known := server_phones():
        return [f"android:{serial}" for serial in known]
    phones = usb_phones()
    if not phones:
        raise NoDeviceError(NO_PHONE)
    return usb_names(phones)


def format_of(name: str) -> ModelFormat | None:
    """Return the format that the device ``name`` of a table runs; None for the name of a device of another kind."""
    kind = name.partition(":")[0]
    if kind == "android":
        from cars_hw.devices.android.device import AndroidDevice

        return AndroidDevice.model_format
    if kind == "ssh":
        from cars_hw.devices.board.device import BoardDevice

        return BoardDevice.model_format
    if kind == "fake":
        return FakeDevice.model_format
    if kind not in KINDS and kind in plugin_names(GROUP):
        found: ModelFormat | None = getattr(load_plugin(GROUP, kind), "model_format", None)
        return found
    return getattr(_HOST.get(kind), "model_format", None)


def available() -> list[DeviceStatus]:
    """Return the status of every known device, the usable ones first."""
    found = [
        *(_host_status(name, device) for name, device in _HOST.items()),
        *_accelerators(),
        DeviceStatus("fake", True, "latencies computed from the model file; for trials"),
        *map(_plugin_status, (name for name in plugin_names(GROUP) if name not in KINDS)),
        *_phones(),
    ]
    return sorted(found, key=lambda status: not status.usable)


def _plugin_status(name: str) -> DeviceStatus:
    """Return the status of a device of another package, which is opened for it."""
    try:
        device = _plugin_device(name, "", 1)
        try:
            conditions = called(f"the plug-in {name}", device.conditions)
        finally:
            device.release()
    except (DeviceError, InputError) as error:
        return DeviceStatus(name, False, str(error), error.remedy)
    known = " on ".join(str(conditions[one]) for one in ("runtime", "processor") if one in conditions)
    return DeviceStatus(name, True, f"{known} (plug-in)".lstrip())


def _host_status(name: str, device: type[HostDevice]) -> DeviceStatus:
    try:
        runtime = device().runtime()
    except (DeviceError, InputError) as error:
        return DeviceStatus(name, False, str(error), error.remedy)
    return DeviceStatus(name, True, f"{runtime} on {host_conditions()['processor']}, {pin(1)}")


def _accelerators() -> list[DeviceStatus]:
    """Return the status of each execution provider of the installed ONNX Runtime, which runs a small model."""
    try:
        installed = installed_providers()
    except (DeviceError, InputError):
        # The status of ``ort`` says why this process cannot measure. ``--device ort:...`` says why the wheel does
        # not load; it is then not known which providers it has.
        return []
    found = []
    for provider in PROVIDERS.values():
        if provider.provider not in installed:
            continue
        device = AcceleratorDevice(provider, next(iter(provider.kinds), ""))
        try:
            device.require_working()
        except DeviceError as error:
            found.append(DeviceStatus(device.name, False, str(error), error.remedy))
            continue
        found.append(DeviceStatus(device.name, True, f"{device.runtime()} on {host_conditions()['processor']}"))
    return found


def _phones() -> list[DeviceStatus]:
    """Return the status of each phone on the cable, or the reason why there is none."""
    from cars_hw.devices.android.opening import open_android

    try:
        names = named_devices([ALL_PHONES])
    except DeviceError as error:
        return [DeviceStatus("android", False, str(error), error.remedy)]
    found = []
    for name in names:
        try:
            device = open_android(name.removeprefix("android:"))
            try:
                conditions = device.conditions()
            finally:
                device.release()
        except DeviceError as error:
            found.append(DeviceStatus(name, False, str(error), error.remedy))
            continue
        battery = "" if conditions["battery_percent"] is None else f", battery {conditions['battery_percent']}%"
        found.append(
            DeviceStatus(
                name,
                True,
                f"{conditions['processor']}, {conditions['platform']}, {conditions['cores']} cores, "
                f"{conditions['runtime']}"
                f"{battery}",
            )
        )
    return found
