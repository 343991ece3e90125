"""From a device to its latency table: what a profile is of, how it resumes, and where its table goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from cars_hw.callbacks import ProfileCallback
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.measurement import MeasurePlan, Precision, SustainedPlan
from cars_hw.devices.protocol import Device
from cars_hw.errors import DeviceStateError, InputError, TableError
from cars_hw.export.formats import export_format
from cars_hw.latency.campaign import Campaign
from cars_hw.latency.finished import finished_or_free, require_same
from cars_hw.latency.profiled_models import ProfiledModels
from cars_hw.latency.size_range import SizeRange, find_size_range
from cars_hw.latency.table import LatencyTable
from cars_hw.measurement.journal import Journal, partial_path, stored_identity
from cars_hw.measurement.naming import naming
from cars_hw.measurement.sustained import require_load_device
from cars_hw.progress import Progress
from cars_hw.progress_line import show
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of
from cars_hw.space.wanted_sizes import WantedSizes

SAME_MACHINE: Final = ("processor", "cores", "platform", "runtime", "threads")


def profile_device(
    device: Device,
    spec: NetworkSpec,
    *,
    precision: Precision = "fp32",
    calibration: int = 60,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    plan: MeasurePlan | None = None,
    space: GenotypeSpace | None = None,
    sizes: SizeGrid | WantedSizes | None = None,
    on_range: Callable[[SizeRange], None] | None = None,
    sustained: SustainedPlan | None = None,
    progress: Progress = show,
    callbacks: Sequence[ProfileCallback] = (),
) -> LatencyTable:
    """Measure every operation that ``spec`` can need and ``calibration`` whole networks; fit the predictor.

    The networks are random genotypes of ``space``, spread over the range of latencies, and the smallest of it.
    Without a ``space``, it is everything of the family of ``spec``.

    With ``sizes`` the table is for ``spec`` at all sizes of this grid. Operations are measured at some numbers of
    channels and some resolutions, see :attr:`cars_hw.space.size_grid.SizeGrid.measured_networks`. Kinds of
    operations that are estimated badly from these are measured at further numbers of channels, for at most half of
    the patience of ``plan``; see :mod:`cars_hw.latency.further_widths`. The networks have random sizes, and are
    spread over the logarithm of the latency. With latencies that are wanted,
    :func:`cars_hw.latency.find_size_range` finds the grid first, and ``on_range`` is called with it. A profile that
    resumes takes the range that was found before.

    With ``sustained``, the reference, the fastest and the slowest of the calibration networks run under load at the
    end, and the table has the sustained state, too; see :mod:`cars_hw.latency.sustained`.

    ``progress`` counts models that are written and sessions, of the stages ``operations`` and ``networks``, and
    seconds of load. With ``out`` the table is written there, and until then the samples are kept after every block,
    and after every load, in ``OUT.partial``. With ``resume`` a profile resumes from that file if it exists, and
    ends as it would have ended; if it has ended already, its table is returned. Without ``resume``, such a file is
    an error, and so is ``out`` itself unless ``overwrite``.
    ``callbacks`` are told of the beginning, of the operations, and of the table.

    Raises:
        InputError: a precision or a format that this version cannot write, less than 4 networks, or a resolution
            that is too small for the stem, or a device that cannot run a model for minutes.
        TableError: ``out`` or a partial profile is in the way, or is of something else.
        BudgetError: no allowed size is near a latency that is wanted.
        DeviceError: the device fails; what was measured so far is kept.
    """
    plan = replace(plan or MeasurePlan(), seed=seed)
    export_format(device.model_format).require_precision(precision)
    if calibration < 4:
        raise InputError(f"the predictor needs at least 4 calibration networks, not {calibration}")
    # For which latencies the sizes of a table were found is not in it.
    is_told = not isinstance(sizes, WantedSizes)
    finished = finished_or_free(out, resume=resume, overwrite=overwrite, is_told=is_told)
    at = spec
    if sizes is not None:
        # Before the device is measured, so that a resolution that the stem cannot have is reported at once.
        grid = sizes if isinstance(sizes, SizeGrid) else sizes.allowed
        grid.require_for(spec)
        at = grid.smallest(spec)
    space = space or space_of(at)
    if sustained is not None:
        require_load_device(device)
    conditions = device.conditions()
    _tell(callbacks, lambda callback: callback.on_start(device.name, conditions))
    found = None
    if isinstance(sizes, WantedSizes):
        found = _stored_range(sizes, out, resume=resume)
        if found is None:
            found = find_size_range(device, spec, sizes, precision=precision, space=space, progress=progress)
        sizes = found.sizes
        if on_range is not None:
            on_range(found)
    identity = {
        # A phone may have another address than when the profile began.
        "device": conditions.get("device_identity", device.name),
        "precision": precision,
        "network": unstructure(spec),
        "range": None if found is None else unstructure(found),
        "sizes": None if sizes is None else unstructure(sizes),
        "calibration": calibration,
        "operations": list(space.operations),
        # A profile that resumes may be more patient, or less.
        "plan": {name: value for name, value in asdict(plan).items() if name != "patience_seconds"},
        "sustained": None if sustained is None else unstructure(sustained),
        **{name: conditions[name] for name in SAME_MACHINE},
    }
    journal = Journal(out, identity, conditions, resume=resume)
    written = ProfiledModels(spec if sizes is None else sizes.middle(spec), sizes, device.model_format, precision)
    if out is not None and finished is not None:
        require_same(out, finished, {**identity, "network": unstructure(written.spec)})
        device.release()
        journal.remove()
        _tell(callbacks, lambda callback: callback.on_end(finished, out))
        return finished
    _require_same_cores(device.name, conditions, journal.conditions)
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        campaign = Campaign(device, plan, journal, written, folder=Path(folder), progress=progress)
        try:
            with naming(campaign.names):
                table = campaign.measured(
                    device,
                    space,
                    calibration,
                    sustained,
                    lambda table: _tell(callbacks, lambda callback: callback.on_operations(table)),
                )
        finally:
            device.release()
    if out is not None:
        table.write(out)
    journal.remove()
    _tell(callbacks, lambda callback: callback.on_end(table, out))
    return table


def _tell(callbacks: Sequence[ProfileCallback], call: Callable[[ProfileCallback], None]) -> None:
    for callback in callbacks:
        call(callback)


def _require_same_cores(device: str, present: Mapping[str, Any], began: Mapping[str, Any]) -> None:
    """Check that the profile goes on with cores of the kind that it ``began`` with, where the device tells it.

    Raises:
        DeviceStateError: it would use others, as when the fastest core of a phone is switched off.
    """
    now, then = present.get("core_kind"), began.get("core_kind")
    if now != then:
        raise DeviceStateError(
            f"{device} would be measured on {now or 'unknown cores'}, and the profile began on "
            f"{then or 'unknown cores'}, which cannot be used now; unlock the phone and keep its screen on",
            remedy="resume",
        )


def _stored_range(wanted: WantedSizes, out: Path | None, *, resume: bool) -> SizeRange | None:
    """Return the range that the interrupted profile of ``out`` is for; None without one.

    Raises:
        TableError: the interrupted profile is for other latencies, or ``resume`` is false.
    """
    stored = stored_identity(out, resume=resume)
    if stored is None:
        return None
    assert out is not None
    plain = stored.get("range")
    found = None if plain is None else structure(plain, SizeRange)
    if found is None or found.wanted != wanted:
        raise TableError(
            f"{partial_path(out)} is of a profile with other settings (latency); "
            "resume with the settings of that profile, or delete the file to start over"
        )
    return found
