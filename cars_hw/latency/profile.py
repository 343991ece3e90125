"""From a device to its latency table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import MeasurePlan, Precision
from cars_hw.devices.protocol import Device, Measurement, ModelFormat
from cars_hw.errors import DeviceError, InputError, TableError
from cars_hw.export.formats import export_format
from cars_hw.export.write import build_network
from cars_hw.latency.calibration import spread_genotypes
from cars_hw.latency.fastest import fastest_genotype
from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.models import build_model, build_overhead
from cars_hw.latency.predictor import fit_coefficients
from cars_hw.latency.sums import OperationSums
from cars_hw.latency.table import CalibrationNetwork, LatencyTable, Reference
from cars_hw.measurement.journal import Journal
from cars_hw.measurement.schedule import measure
from cars_hw.progress import Progress, counted, prefixed, silent
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

Builder = Callable[[Path], None]
"""Writes a model to a path."""

OVERHEAD: Final = "overhead"
SAME_MACHINE: Final = ("processor", "cores", "platform", "runtime", "threads")


def profile_device(
    device: Device,
    spec: NetworkSpec,
    *,
    precision: Precision = "fp32",
    calibration: int = 40,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    plan: MeasurePlan | None = None,
    space: SearchSpace | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure every operation that ``spec`` can need and ``calibration`` whole networks; fit the predictor.

    The networks are random genotypes of ``space`` (everything, if None), spread over the range of latencies, and
    the smallest of it.
    ``progress`` counts models that are written and sessions, of the stages ``operations`` and ``networks``.
    With ``out`` the table is written there, and until then the samples are kept after every block in
    ``OUT.partial``. With ``resume`` a profile resumes from that file if it exists, and ends as it would
    have ended; without it, such a file is an error, and so is ``out`` itself unless ``overwrite``.

    Raises:
        InputError: a precision or a format that this version cannot write, or less than 4 networks.
        TableError: ``out`` or a partial profile is in the way, or is of something else.
        DeviceError: the device fails; what was measured so far is kept.
    """
    plan = replace(plan or MeasurePlan(), seed=seed)
    export_format(device.model_format).require_precision(precision)
    if calibration < 4:
        raise InputError(f"the predictor needs at least 4 calibration networks, not {calibration}")
    if out is not None and out.exists() and not overwrite:
        raise TableError(f"{out} exists; write to another file, or delete it first")
    space = space or SearchSpace()
    conditions = device.conditions()
    identity = {
        "device": device.name,
        "precision": precision,
        "network": unstructure(spec),
        "calibration": calibration,
        "operations": list(space.operations),
        "plan": asdict(plan),
        **{name: conditions[name] for name in SAME_MACHINE},
    }
    journal = Journal(out, identity, conditions, resume=resume)
    written = _Written(spec, device.model_format, precision)
    stages = _Stages(device, plan, journal, written.network(reference_genotype()), progress)
    builders = {OVERHEAD: written.overhead()} | {str(key): written.operation(key) for key in spec_keys(spec)}
    measured, beside = stages.measure("operations", builders)
    entries = dict(zip(builders, measured, strict=True))
    table = LatencyTable(
        device=device.name,
        precision=precision,
        threads=conditions["threads"],
        spec=spec,
        created=journal.conditions["time"],
        conditions=journal.conditions,
        plan=asdict(plan),
        overhead=entries.pop(OVERHEAD),
        entries=entries,
    )
    genotypes = _to_calibrate_on(table, space, calibration)
    builders = {genotype.to_darts(): written.network(genotype) for genotype in genotypes}
    measured, among = stages.measure("networks", builders)
    networks = tuple(
        # The first is the smallest that there is.
        CalibrationNetwork(genotype, taken, number == 0)
        for number, (genotype, taken) in enumerate(zip(genotypes, measured, strict=True))
    )
    try:
        predictor = fit_coefficients(table, networks)
    except DeviceError:
        # To go on from samples that no predictor can be made of would fail in the same way for ever.
        journal.remove()
        raise
    reference = Reference(reference_genotype(), beside, among)
    table = replace(table, calibration=networks, predictor=predictor, reference=reference)
    if out is not None:
        table.write(out)
    journal.remove()
    return table


def reference_genotype() -> Genotype:
    """Return the genotype whose network shows drift: one that uses most operations, and a light one of those."""
    return zoo()["CARS_A"].genotype


class _Written(NamedTuple):
    """How models are written; what its methods return writes one."""

    spec: NetworkSpec
    model_format: ModelFormat
    precision: Precision

    def overhead(self) -> Builder:
        return lambda path: build_overhead(path, self.model_format, self.precision)

    def operation(self, key: OpKey) -> Builder:
        return lambda path: build_model(key, path, self.model_format, self.precision)

    def network(self, genotype: Genotype) -> Builder:
        return lambda path: build_network(self.spec, genotype, path, self.model_format, self.precision)


class _Stages:
    """Measures one list of models after the other beside the reference, keeping the journal after every block."""

    def __init__(
        self,
        device: Device,
        plan: MeasurePlan,
        journal: Journal,
        reference: Builder,
        progress: Progress,
    ) -> None:
        self.device = device
        self.journal = journal
        self._plan = plan
        self._reference = reference
        self._progress = progress

    def measure(self, stage: str, builders: Mapping[str, Builder]) -> tuple[list[Measurement], Measurement]:
        """Return a measurement for each of ``builders``, and that of the reference.

        Builders write the models; their names are those in the journal.
        """
        names = list(builders)
        progress = prefixed(self._progress, stage)
        series = self.journal.series(stage, names)
        suffix = self.device.model_format
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            models = [Path(folder) / f"{index}.{suffix}" for index in range(len(names))]
            reference = Path(folder) / f"reference.{suffix}"
            written = list(zip((*builders.values(), self._reference), (*models, reference), strict=True))
            for build, model in counted(written, progress, "writing models"):
                build(model)
            measured = measure(
                self.device,
                models,
                self._plan,
                reference=reference,
                progress=progress,
                series=series,
                on_block=lambda taken: self.journal.keep(stage, names, taken),
            )
        assert measured.reference is not None
        return measured.models, measured.reference


def _to_calibrate_on(table: LatencyTable, space: SearchSpace, count: int) -> list[Genotype]:
    """Return the smallest genotype of ``space`` and ``count`` - 1 that are spread over its range."""
    rng = np.random.default_rng(table.plan["seed"])
    sums = OperationSums(table.spec, table.costs())
    # What no budget can be below is predicted more often than anything, and is far from all that is drawn.
    anchor = fastest_genotype(space, sums.total, rng, starts=1)
    return [anchor, *spread_genotypes(space, sums.total, count - 1, rng, apart_from=anchor)]
