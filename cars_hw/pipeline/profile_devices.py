"""Profiles of several devices: side by side on this machine, or on the machines that they are attached to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cars_hw import devices as every_device
from cars_hw.callbacks import ProfileCallback
from cars_hw.config.execution import LOCAL
from cars_hw.errors import InputError
from cars_hw.executors.engine import require_engine
from cars_hw.executors.spread import Spread, spread
from cars_hw.latency import LatencyTable, SizeRange
from cars_hw.latency.finished import finished_or_free
from cars_hw.latency.side_by_side import paths_for, profile_all, table_paths
from cars_hw.measurement.journal import stored_identity
from cars_hw.pipeline.device_settings import ProfileSettings
from cars_hw.progress import Log, Progress, prefixed, silent
from cars_hw.progress_line import show

Callback = Callable[[Path], ProfileCallback]


class Written(NamedTuple):
    """A finished profile: its table, where it lies, and the range of sizes if one was found here."""

    table: LatencyTable
    path: Path
    found: SizeRange | None


@dataclass(frozen=True)
class _Task:
    """The profile of one device."""

    settings: ProfileSettings
    path: Path
    overwrite: bool
    callback: Callback | None


def profile_devices(
    settings: ProfileSettings,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callback: Callback | None = None,
    progress: Progress = silent,
    log: Log = show.log,
) -> list[Written]:
    """Profile the devices of ``settings`` side by side; write a table for each to ``out``, or to files beside it.

    With an executor, each device is opened and measured by the worker of the engine that has a resource with the
    name of the device. Otherwise all are attached to this machine. ``callback`` makes the callback of a profile
    from the path of its table; with an executor it must be a function that can be pickled.

    Raises:
        InputError: a device or an executor is unknown, or the same device is named twice.
        CarsHwError: see :func:`cars_hw.latency.profile_device`.
    """
    require_engine(settings.execution)
    if settings.execution.engine == LOCAL:
        return _here(
            settings, out, resume=resume, overwrite=overwrite, callback=callback, progress=progress, log=log
        )
    several = [name for name in settings.devices if "*" in name]
    if several:
        raise InputError(f"'{several[0]}' stands for devices of this machine; with an executor, name each device")
    paths = paths_for(out, settings.devices)
    for path in paths:
        # Here, since every attempt resumes what an attempt before left.
        finished_or_free(path, resume=resume, overwrite=overwrite, is_told=settings.wanted is None)
        stored_identity(path, resume=resume)
    tasks = [
        _Task(replace(settings, devices=(name,)), path, overwrite, callback)
        for name, path in zip(settings.devices, paths, strict=True)
    ]
    folder = out.with_name(f".{out.name}.hosts")
    how = Spread(folder, "cpu", len(tasks), settings.execution)
    try:
        spread(_profile, tasks, how, progress, log, needs=settings.devices)
    finally:
        with suppress(OSError):
            folder.rmdir()
    return [Written(LatencyTable.read(path), path, None) for path in paths]


def _profile(task: _Task, progress: Progress, log: Log) -> None:
    (name,) = task.settings.devices
    _here(
        task.settings,
        task.path,
        resume=True,
        overwrite=task.overwrite,
        callback=task.callback,
        progress=prefixed(progress, name),
        log=log,
    )


def _here(
    settings: ProfileSettings,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    callback: Callback | None,
    progress: Progress,
    log: Log,
) -> list[Written]:
    names = every_device.named_devices(settings.devices)
    devices = [every_device.open_device(name, settings.threads) for name in names]
    paths = table_paths(out, devices)
    ranges: dict[str, SizeRange] = {}

    def tell(device: str, found: SizeRange) -> None:
        ranges[device] = found
        log(found.describe(device, settings.network.parts))

    tables = profile_all(
        devices,
        settings.network,
        paths,
        sizes=settings.wanted or settings.sizes,
        on_range=tell,
        precision=settings.precision,
        calibration=settings.calibration,
        seed=settings.seed,
        plan=settings.measurement,
        resume=resume,
        overwrite=overwrite,
        sustained=settings.load if settings.sustained else None,
        progress=progress,
        callback=callback,
    )
    return [Written(table, path, ranges.get(table.device)) for table, path in zip(tables, paths, strict=True)]
