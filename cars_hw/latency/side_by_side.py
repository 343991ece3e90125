"""Several devices profiled at the same time, one table each."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from cars_hw.callbacks import ProfileCallback
from cars_hw.devices.protocol import Device
from cars_hw.errors import InputError
from cars_hw.latency.profile import profile_device
from cars_hw.latency.size_range import SizeRange
from cars_hw.latency.table import LatencyTable
from cars_hw.progress import Progress, prefixed, silent
from cars_hw.space.network_spec import NetworkSpec


class _Stopped(Exception):
    """Another device's profile failed, or the person wants to stop."""


def table_paths(out: Path, devices: Sequence[Device]) -> list[Path]:
    """Return where each device's table goes: ``out``, or, if there are several, names made of it and theirs.

    Raises:
        InputError: the same device twice.
    """
    return paths_for(out, [device.name for device in devices])


def paths_for(out: Path, names: Sequence[str]) -> list[Path]:
    """Return where the table of each device goes, by their ``names``; see :func:`table_paths`.

    Raises:
        InputError: the same device twice.
    """
    if len(set(names)) < len(names):
        raise InputError(f"the same device is named twice: {', '.join(names)}")
    if len(names) == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{re.sub('[^A-Za-z0-9.]+', '-', name)}{out.suffix}") for name in names]


def profile_all(
    devices: Sequence[Device],
    spec: NetworkSpec,
    paths: Sequence[Path],
    *,
    on_range: Callable[[str, SizeRange], None] = lambda _device, _found: None,
    callback: Callable[[Path], ProfileCallback] | None = None,
    progress: Progress = silent,
    **options: Any,  # noqa: ANN401 -- those of profile
) -> list[LatencyTable]:
    """Profile ``devices`` side by side into ``paths``; see :func:`cars_hw.latency.profile_device`.

    ``on_range`` is called with the name of each device and the range of sizes that was found for it, if one is
    wanted. ``callback`` makes the callback of a profile from the path of its table. If one fails the others stop
    after the session that they are at; all can be resumed.

    Raises:
        InputError: two of them are one machine.
        CarsHwError: what the first to fail failed with.
    """

    def profiled(device: Device, path: Path, report: Progress) -> LatencyTable:
        told = partial(on_range, device.name)
        with closing(ProfileCallback() if callback is None else callback(path)) as follows:
            return profile_device(
                device, spec, out=path, on_range=told, progress=report, callbacks=[follows], **options
            )

    if len(devices) == 1:
        return [profiled(devices[0], paths[0], progress)]
    _require_apart(devices)
    stop = threading.Event()
    reporting = threading.Lock()

    def one(device: Device, path: Path) -> LatencyTable:
        def report(stage: str, done: int, total: int) -> None:
            if stop.is_set():
                raise _Stopped
            with reporting:
                prefixed(progress, device.name)(stage, done, total)

        return profiled(device, path, report)

    with ThreadPoolExecutor(len(devices)) as pool:
        running = [pool.submit(one, device, path) for device, path in zip(devices, paths, strict=True)]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            # On Ctrl-C too: the pool waits for its threads.
            stop.set() if not all(each.done() for each in running) else None
        wait(running)
    failed = [each.exception() for each in running]
    for error in failed:
        if error is not None and not isinstance(error, _Stopped):
            raise error
    return [each.result() for each in running]


def _require_apart(devices: Sequence[Device]) -> None:
    """Check that no two of ``devices`` are one phone or board, as one that is on the cable and in the network.

    Raises:
        InputError: two are.
    """
    known: dict[str, str] = {}
    for device in devices:
        identity = device.conditions().get("device_identity")
        if identity is None:
            continue
        if identity in known:
            raise InputError(f"{known[identity]} and {device.name} are the same device ({identity}); name it once")
        known[identity] = device.name
