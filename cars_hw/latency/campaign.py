"""The measurements of a profile: operations first, then whole networks and operations in turns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Final

from cars_hw.config.measurement import MeasurePlan, SustainedPlan
from cars_hw.devices.protocol import Device, Measurement, Sample, learnt_by
from cars_hw.errors import DeviceError
from cars_hw.latency.calibration import to_calibrate_on
from cars_hw.latency.further_widths import further_operations
from cars_hw.latency.keys import OpKey
from cars_hw.latency.predictor import fit_coefficients, prediction_error
from cars_hw.latency.profiled_models import Builder, ProfiledModels
from cars_hw.latency.sustained import SustainedState
from cars_hw.latency.table import CalibrationNetwork, LatencyTable, Reference
from cars_hw.latency.under_load import LoadModel, sustained_state
from cars_hw.measurement.journal import Journal
from cars_hw.measurement.schedule import REFERENCE, Schedule, seconds_of
from cars_hw.progress import Progress, counted, prefixed
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.space_of import space_of
from cars_hw.space.typical import typical_genotype

OVERHEAD: Final = "overhead"

FIRST_ROUNDS: Final = 2
"""Networks are chosen by operations that were measured in so many rounds; later rounds have both."""

FURTHER: Final = 0.5
"""Operations at further numbers of channels take at most this share of the patience, beside the patience."""

MOST_FURTHER: Final = 1000
"""A profile measures at most so many of them."""

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


class Campaign:
    """Measures the operations, chooses networks by them, and measures both in turns; keeps the journal.

    Operations and networks share the later rounds, so that the states of the machine are the same for both.
    """

    def __init__(
        self,
        device: Device,
        plan: MeasurePlan,
        journal: Journal,
        written: ProfiledModels,
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
            journal.networks = [self._written.name(one) for one in to_calibrate_on(table, space, count)]
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
