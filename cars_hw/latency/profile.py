"""From a device to its latency table."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np

from cars_hw.callbacks import ProfileCallback
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.measurement import MeasurePlan, Precision, SustainedPlan
from cars_hw.devices.protocol import Device, Measurement, ModelFormat, Sample, learnt_by
from cars_hw.errors import DeviceError, DeviceStateError, InputError, TableError
from cars_hw.export.formats import export_format
from cars_hw.export.write import build_network
from cars_hw.latency.calibration import spread_architectures, spread_genotypes
from cars_hw.latency.fastest import fastest_genotype
from cars_hw.latency.finished import finished_or_free, require_same
from cars_hw.latency.further_widths import further_operations
from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.models import build_model, build_overhead
from cars_hw.latency.predictor import fit_coefficients, prediction_error
from cars_hw.latency.size_range import SizeRange, find_size_range
from cars_hw.latency.sums import OperationSums
from cars_hw.latency.sustained import SustainedState
from cars_hw.latency.table import CalibrationNetwork, LatencyTable, Reference
from cars_hw.latency.under_load import LoadModel, sustained_state
from cars_hw.measurement.journal import Journal, partial_path, stored_identity
from cars_hw.measurement.naming import naming
from cars_hw.measurement.schedule import REFERENCE, Schedule, seconds_of
from cars_hw.measurement.sustained import require_load_device
from cars_hw.progress import Progress, counted, prefixed
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of
from cars_hw.space.typical import typical_genotype
from cars_hw.space.wanted_sizes import WantedSizes

Builder = Callable[[Path], None]
"""Writes a model to a path."""

OVERHEAD: Final = "overhead"

FIRST_ROUNDS: Final = 2
"""Networks are chosen by operations that were measured in so many rounds; later rounds have both."""

FURTHER: Final = 0.5
"""Operations at further numbers of channels take at most this share of the patience, beside the patience."""

MOST_FURTHER: Final = 1000
"""A profile measures at most so many of them."""

SAME_MACHINE: Final = ("processor", "cores", "platform", "runtime", "threads")


LATER_CONDITIONS: Final = (
    "warnings",
    "cpu_fallback",
    "warmup_s",
    "fixed_performance",
    "clock_reached_mhz",
    "warmest_c",
    "scheduling_group",
    "app_cores",
)
"""The conditions that a device knows at the end of a measurement only."""


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
    written = _Written(spec if sizes is None else sizes.middle(spec), sizes, device.model_format, precision)
    if out is not None and finished is not None:
        require_same(out, finished, {**identity, "network": unstructure(written.spec)})
        device.release()
        journal.remove()
        _tell(callbacks, lambda callback: callback.on_end(finished, out))
        return finished
    _require_same_cores(device.name, conditions, journal.conditions)
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        campaign = _Campaign(device, plan, journal, written, folder=Path(folder), progress=progress)
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


class _Written(NamedTuple):
    """How models are written; what its methods return writes one. ``spec`` is the network of the reference."""

    spec: NetworkSpec
    sizes: SizeGrid | None
    model_format: ModelFormat
    precision: Precision

    def overhead(self) -> Builder:
        return lambda path: build_overhead(path, self.model_format, self.precision)

    def operation(self, key: OpKey) -> Builder:
        return lambda path: build_model(key, path, self.model_format, self.precision)

    def network(self, architecture: Architecture) -> Builder:
        genotype, network = architecture
        return lambda path: build_network(network, genotype, path, self.model_format, self.precision)

    @property
    def keys(self) -> tuple[OpKey, ...]:
        """The operations to measure."""
        networks = (self.spec,) if self.sizes is None else self.sizes.measured_networks(self.spec)
        return tuple(dict.fromkeys(key for network in networks for key in spec_keys(network)))

    def name(self, architecture: Architecture) -> str:
        """Return the text of ``architecture`` in the journal."""
        genotype, network = architecture
        size = "" if self.sizes is None else f"{network.channels}x{network.layers} "
        if self.sizes is not None and self.sizes.resolutions:
            size = f"{network.channels}x{network.layers}x{network.pixels} "
        return f"{size}{genotype.to_darts()}"

    def named(self, text: str) -> Architecture:
        """Return the architecture whose :meth:`name` is ``text``."""
        if self.sizes is None:
            return Architecture(Genotype.parse(text), self.spec)
        size, _, genotype = text.partition(" ")
        channels, layers, *sides = map(int, size.split("x"))
        resolution = (sides[0], sides[1]) if sides else None
        network = self.spec.with_changes(channels=channels, layers=layers, resolution=resolution)
        return Architecture(Genotype.parse(genotype), network)


class _Campaign:
    """Measures the operations, chooses networks by them, and measures both in turns; keeps the journal.

    Operations and networks share the later rounds, so that the states of the machine are the same for both.
    """

    def __init__(
        self,
        device: Device,
        plan: MeasurePlan,
        journal: Journal,
        written: _Written,
        *,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._written = written
        self._folder = folder
        self._progress = progress
        self.names: dict[Path, str] = {}
        self._paths: dict[str, Path] = {}
        self._keys = {OVERHEAD: written.overhead()}
        self._keys |= {str(key): written.operation(key) for key in written.keys}
        reference = folder / f"reference.{written.model_format}"
        name, genotype = typical_genotype(written.spec)
        architecture = Architecture(genotype, written.spec)
        written.network(architecture)(reference)
        self.names[reference] = f"the reference network {name}"
        self._paths[written.name(architecture)] = reference

        def keep(_: object) -> None:
            # A profile that resumes has a device that knows nothing of this one.
            journal.learn(learnt_by(device))
            journal.keep()

        self._schedule = Schedule(device, plan, reference=reference, series=journal.series, on_block=keep)

    def measured(
        self,
        device: Device,
        space: GenotypeSpace,
        count: int,
        sustained: SustainedPlan | None,
        on_operations: Callable[[LatencyTable], None],
    ) -> LatencyTable:
        """Measure everything; return the finished table, with what ``device`` has learnt meanwhile."""
        journal = self._journal
        operations = self.operations(device.name)
        on_operations(operations)
        table = self.networks(operations, space, count)
        known = device.conditions()
        journal.learn({name: value for name, value in known.items() if name in LATER_CONDITIONS})
        if sustained is not None:
            journal.keep()
            table = replace(table, sustained=self.under_load(device, table, sustained))
            journal.learn(learnt_by(device))
        whole = space_of(table.spec).operations
        part = () if space.operations == whole else space.operations
        return replace(table, conditions={**table.conditions, **journal.told}, operations=part)

    def operations(self, device: str) -> LatencyTable:
        """Measure every operation a few times; return the table without networks."""
        progress = prefixed(self._progress, "operations")
        self._write(self._keys, progress)
        self._schedule.rounds(list(self._keys), self._first_rounds, progress)
        if self._written.sizes is not None:
            self._measure_further(device, prefixed(self._progress, "further operations"))
        return self._table(device)

    @property
    def _first_rounds(self) -> int:
        return min(FIRST_ROUNDS, self._plan.sessions)

    @property
    def _later_rounds(self) -> int:
        return max(self._plan.sessions - FIRST_ROUNDS + 1, 1)

    def _measure_further(self, device: str, progress: Progress) -> None:
        """Measure operations that are estimated badly at further numbers of channels.

        After each step, the operations are estimated again. The steps end when no error is large, or when the time
        for further operations is used up.
        """
        journal, step = self._journal, 0
        most = self._affordable()
        while True:
            if step == len(journal.further):
                if journal.networks is not None:
                    # The profile that resumes had ended these steps.
                    return
                keys = further_operations(self._table(device), most - sum(map(len, journal.further)))
                if not keys:
                    return
                journal.further.append([str(key) for key in keys])
            models = {text: self._written.operation(OpKey.parse(text)) for text in journal.further[step]}
            self._write(models, progress)
            self._keys |= models
            self._schedule.rounds(list(models), self._first_rounds, progress)
            step += 1

    def _affordable(self) -> int:
        """Return how many further operations all rounds can measure in :data:`FURTHER` of the patience."""
        seconds = self._plan.patience_seconds * FURTHER
        if not seconds:
            return 0
        session = _session_seconds([event.sample for event in self._journal.series.events])
        each = session * (self._first_rounds + self._later_rounds)
        return int(min(seconds / each, MOST_FURTHER)) if each else MOST_FURTHER

    def networks(self, table: LatencyTable, space: GenotypeSpace, count: int) -> LatencyTable:
        """Measure ``count`` networks of ``space`` and the operations in turns; return the finished table."""
        progress = prefixed(self._progress, "networks")
        journal = self._journal
        if journal.networks is None:
            journal.networks = [self._written.name(one) for one in _to_calibrate_on(table, space, count)]
        networks = {text: self._written.named(text) for text in journal.networks}
        self._write({text: self._written.network(one) for text, one in networks.items()}, progress)
        names = [*self._keys, *networks]
        self._schedule.rounds(names, self._later_rounds, progress)

        def finished() -> LatencyTable:
            return self._with_networks(self._table(table.device), networks)

        def enough() -> bool:
            return prediction_error(finished()) <= self._plan.max_standard_error

        self._schedule.until_quiet(names, progress, enough)
        measured = finished()
        try:
            predictor = fit_coefficients(measured, measured.calibration)
        except DeviceError:
            # To go on from samples that no predictor can be made of would fail in the same way for ever.
            journal.remove()
            raise
        return replace(measured, predictor=predictor, standard_error=round(prediction_error(measured), 6))

    def under_load(self, device: Device, table: LatencyTable, plan: SustainedPlan) -> SustainedState:
        """Run the reference and two networks of ``table`` under load; return what they take."""
        assert table.reference is not None
        quiet_ms = {Architecture(table.reference.genotype, table.spec): table.reference.measured.ms}
        quiet_ms |= {
            network.architecture(table.spec): network.measured.ms
            for network in table.calibration
            if not network.anchor
        }
        models = {}
        for architecture, ms in quiet_ms.items():
            name = self._written.name(architecture)
            models[name] = LoadModel(architecture, self._paths[name], ms)
        return sustained_state(device, models, plan, self._journal, prefixed(self._progress, "sustained"))

    def _write(self, builders: Mapping[str, Builder], progress: Progress) -> None:
        suffix = self._written.model_format
        paths = {
            name: self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{suffix}" for name in builders
        }
        for name, build in counted(list(builders.items()), progress, "writing models"):
            build(paths[name])
            self.names[paths[name]] = name
        self._paths |= paths
        self._schedule.add(paths)

    def _table(self, device: str) -> LatencyTable:
        """Return the table of the operations as they have been measured so far."""
        measured, reference, machine, _ = self._schedule.measured(list(self._keys))
        assert reference is not None
        entries = dict(zip(self._keys, measured, strict=True))
        conditions = self._journal.conditions
        return LatencyTable(
            device=device,
            precision=self._written.precision,
            threads=conditions["threads"],
            spec=self._written.spec,
            created=conditions["time"],
            conditions=conditions,
            plan=asdict(self._plan),
            overhead=entries.pop(OVERHEAD),
            entries=entries,
            reference=self._by_stage(reference),
            machine=machine,
            sizes=self._written.sizes,
        )

    def _by_stage(self, reference: Measurement) -> Reference:
        """Return the reference, with its quiet latency while only operations ran and afterwards."""
        models = [event.model for event in self._journal.series.events]
        networks = (place for place, model in enumerate(models) if model != REFERENCE and model not in self._keys)
        first = models[: next(networks, len(models))].count(REFERENCE)
        return Reference(
            typical_genotype(self._written.spec)[1],
            reference,
            _quiet_ms(reference.samples[:first]),
            _quiet_ms(reference.samples[first:]),
        )

    def _with_networks(self, table: LatencyTable, networks: Mapping[str, Architecture]) -> LatencyTable:
        measured = self._schedule.measured(list(networks)).models
        calibration = []
        for number, ((genotype, network), taken) in enumerate(zip(networks.values(), measured, strict=True)):
            # The first is the smallest that there is.
            one = CalibrationNetwork(genotype, taken, anchor=number == 0)
            if table.sizes is not None:
                one = replace(one, channels=network.channels, layers=network.layers)
                one = replace(one, resolution=network.resolution if table.sizes.resolutions else None)
            calibration.append(one)
        return replace(table, calibration=tuple(calibration))


def _session_seconds(samples: Sequence[Sample]) -> float:
    """Return the mean time of a session in seconds, with the pauses between sessions; 0 if it is not known."""
    if len(samples) < 2 or any(sample.time is None for sample in samples):
        return 0.0
    times = seconds_of(samples)
    return float(times[-1] - times[0]) / (len(samples) - 1)


def _quiet_ms(samples: Sequence[Sample]) -> float | None:
    """Return the median of the samples in the quiet state, in milliseconds; None without one."""
    quiet = [sample.ms for sample in samples if sample.factor == 1.0]
    return round(median(quiet), 6) if quiet else None


def _to_calibrate_on(table: LatencyTable, space: GenotypeSpace, count: int) -> list[Architecture]:
    """Return the smallest architecture of ``space`` and ``count`` - 1 that are spread over its range."""
    rng = np.random.default_rng(table.plan["seed"])
    if table.sizes is not None:
        return _over_sizes(table, table.sizes, space, count, rng)
    sums = OperationSums(table.spec, table.costs())
    # What no budget can be below is predicted more often than anything, and is far from all that is drawn.
    anchor = fastest_genotype(space, sums.total, rng, starts=1)
    chosen = [anchor, *spread_genotypes(space, sums.total, count - 1, rng, apart_from=anchor)]
    return [Architecture(genotype, table.spec) for genotype in chosen]


def _over_sizes(
    table: LatencyTable, sizes: SizeGrid, space: GenotypeSpace, count: int, rng: np.random.Generator
) -> list[Architecture]:
    """Return the smallest architecture on the grid ``sizes``, and ``count`` - 1 spread over the log latency."""
    sums: dict[NetworkSpec, OperationSums] = {}

    def latency(architecture: Architecture) -> float:
        genotype, network = architecture
        if network not in sums:
            keys = spec_keys(network)
            costs = table.operation_costs.of(keys)
            sums[network] = OperationSums(network, dict(zip(map(str, keys), map(float, costs), strict=True)))
        return sums[network].total(genotype)

    smallest = next(sizes.networks(table.spec))
    anchor = fastest_genotype(space, lambda genotype: latency(Architecture(genotype, smallest)), rng, starts=1)
    return [
        Architecture(anchor, smallest),
        *spread_architectures(space, sizes, table.spec, latency, count=count - 1, rng=rng),
    ]
