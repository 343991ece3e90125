"""Comparison of predicted with measured latency, on networks that took no part in the calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any, ClassVar, Final

import numpy as np

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.protocol import Device, Measurement, warnings_of
from cars_hw.errors import InputError, TableError
from cars_hw.latency.calibration import evenly
from cars_hw.latency.measure import measure_architectures
from cars_hw.latency.predictor import DEFAULT_LEVEL, Prediction, Predictor
from cars_hw.latency.simple_predictors import baselines
from cars_hw.latency.table import CalibrationNetwork, LatencyTable
from cars_hw.measurement.schedule import Measured
from cars_hw.progress import Progress, prefixed
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of

PASSES: Final = 2
"""How often validation measures every network: the second time shows what the first is worth."""

VALIDATION: Final = ChecksummedFormat("cars-hw validation", 1, "profile", InputError)
"""What ``cars-hw validate --out`` writes."""

REVISITED: Final = 6
"""How many calibration networks are measured again."""


@dataclass(frozen=True)
class ValidationRow:
    """One network: predicted, upper bound and measured, in milliseconds; the measurement's spread, a fraction.

    ``again_ms`` is what a second, separate measurement gave, None where there was none. ``channels``, ``layers``
    and ``stages``, the cells of each stage, are those of the network, for a table over sizes; None for a table of
    one network. ``resolution`` is its height and width in pixels; None for a table of one resolution.
    """

    genotype: Genotype
    predicted_ms: float
    bound_ms: float
    measured_ms: float
    spread: float
    again_ms: float | None = None
    channels: int | None = None
    layers: int | None = None
    stages: tuple[int, int, int] | None = None
    resolution: tuple[int, int] | None = None

    DERIVED: ClassVar = ("error",)

    @property
    def error(self) -> float:
        """How far the prediction is above (positive) or below the measurement, as a fraction of it."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of predictions. All values except ``kendall_tau`` (-1 to 1) are fractions.

    ``mean_error`` is the mean absolute relative error, ``bias`` the mean relative error, ``within_5`` and
    ``within_10`` the shares of networks that are predicted to 5% and 10%. ``kendall_tau`` is None if all
    values of one order are equal.
    """

    mean_error: float
    bias: float
    within_5: float
    within_10: float
    kendall_tau: float | None

    @classmethod
    def of(cls, predicted: Sequence[float], measured: Sequence[float]) -> Accuracy:
        """Compare ``predicted`` with ``measured``, both in milliseconds and at least one."""
        errors = [guess / found - 1 for guess, found in zip(predicted, measured, strict=True)]
        return cls(
            mean_error=fmean(map(abs, errors)),
            bias=fmean(errors),
            within_5=fmean(abs(error) <= 0.05 for error in errors),
            within_10=fmean(abs(error) <= 0.10 for error in errors),
            kendall_tau=kendall_tau(predicted, measured),
        )


@dataclass(frozen=True)
class Validation:
    """The reliability of a table. All values except those of ``rows`` are fractions.

    ``coverage`` is the share of networks that were at most as slow as their upper bound; it should be at least
    ``level``.

    Four values describe the noise, which limits every predictor. ``noise`` is the median spread of sessions.
    ``noise_floor`` is the mean difference between the two measurements of a network. ``then_and_now`` is the mean
    difference between the latencies of calibration networks in the table and now. ``drift`` is the change of the
    reference's latency in the quiet state since the table was made. They correct no other value. None means not
    measured. ``baselines`` has the results of simpler predictors on the same networks.
    """

    rows: tuple[ValidationRow, ...]
    accuracy: Accuracy
    coverage: float
    level: float
    noise: float
    noise_floor: float | None = None
    then_and_now: float | None = None
    drift: float | None = None
    baselines: dict[str, Accuracy] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)


def validate_table(
    table: LatencyTable,
    device: Device,
    networks: Sequence[Genotype | Architecture],
    *,
    plan: MeasurePlan | None = None,
    level: float = DEFAULT_LEVEL,
    progress: Progress = show,
) -> Validation:
    """Measure ``networks`` on ``device`` in fresh sessions, twice, and compare with what ``table`` predicts.

    A genotype stands for its network in the table.

    Predictions are compared with the first measurement. Both are latencies in the quiet state. The table's
    reference is measured before and after every block, and shows the state of the machine. Some calibration
    networks are measured, too: they separate an error of the predictor from a change of the machine. ``progress``
    counts, in each of the :data:`PASSES` passes, the models that are written and the sessions.

    Raises:
        InputError: no networks, or some that the predictor was calibrated on.
        TableError: the table is another device's, has no predictor, or is not for these networks.
        DeviceError: the device fails.
    """
    if not networks:
        raise InputError("there is nothing to validate: give genotypes, or a number of random ones")
    chosen = [one if isinstance(one, Architecture) else Architecture(one, table.spec) for one in networks]
    calibrated = {one.key() for one in table.calibrated}
    overlap = sum(one.key() in calibrated for one in chosen)
    if overlap:
        raise InputError(
            f"{overlap} of {len(chosen)} genotypes took part in the table's calibration; validate on others"
        )
    require_device(table, device)
    predicted = predict_all(table, chosen, level)
    plan = plan or MeasurePlan()
    conditions = device.conditions()
    count = len(chosen)
    revisited = _revisited(table)
    everything = [*chosen, *(network.architecture(table.spec) for network in revisited)]
    reference = table.reference
    passes = []
    for number in range(PASSES):
        passes.append(
            measure_architectures(
                device,
                everything,
                # Other orders than those of the table, and than each other's.
                replace(plan, seed=plan.seed + 1 + number),
                prefixed(progress, f"pass {number + 1} of {PASSES}"),
                precision=table.precision,
                reference=table.reference_architecture,
                expected_ms=reference.measured.ms if reference is not None else None,
            )
        )
    first, second = passes
    result = compare(
        [one.genotype for one in chosen],
        predicted,
        first.models[:count],
        Predictor(table, level).level,
        again=second.models[:count],
    )
    if table.sizes is not None:
        result = replace(
            result,
            rows=tuple(_sized(row, of.network, table.sizes) for row, of in zip(result.rows, chosen, strict=True)),
        )
    times = [row.measured_ms for row in result.rows]
    now = [taken.ms for taken in first.models[count:]]
    return replace(
        result,
        then_and_now=fmean(abs(ms / network.measured.ms - 1) for network, ms in zip(revisited, now, strict=True)),
        drift=_drift(passes),
        baselines={name: Accuracy.of(guesses, times) for name, guesses in baselines(table, chosen).items()},
        # What a device warned of meanwhile.
        conditions={**conditions, **({"warnings": list(told)} if (told := warnings_of(device)) else {})},
    )


def _sized(row: ValidationRow, network: NetworkSpec, sizes: SizeGrid) -> ValidationRow:
    resolution = network.resolution if sizes.resolutions else None
    return replace(
        row, channels=network.channels, layers=network.layers, stages=network.stages, resolution=resolution
    )


def predict_all(
    table: LatencyTable, networks: Sequence[Architecture], level: float = DEFAULT_LEVEL
) -> list[Prediction]:
    """Return the predicted latency of each of ``networks`` in the quiet state.

    Raises:
        TableError: the table has no predictor, or is not for these networks.
    """
    predictors: dict[NetworkSpec, Predictor] = {}
    found = []
    for genotype, network in networks:
        if network not in predictors:
            predictors[network] = Predictor(table, level, network=network)
        found.append(predictors[network].predict(genotype))
    return found


def fresh_architectures(
    table: LatencyTable,
    sizes: SizeGrid,
    count: int,
    rng: np.random.Generator,
    space: GenotypeSpace | None = None,
    *,
    thirds: bool = False,
) -> list[Architecture]:
    """Draw ``count`` different architectures on the grid ``sizes``, spread over the logarithm of the latency.

    They are drawn as a search draws them, with the cells divided among the stages in all ways. With ``thirds``, the
    stages have equal numbers of cells, as in the networks that calibrate a table. None of the architectures took
    part in the table's calibration.

    Raises:
        InputError: the space has too few of them.
        TableError: the table is not for these sizes.
    """
    space = space or space_of(sizes.smallest(table.spec))
    drawn: Iterable[Architecture]
    if thirds:
        drawn = (Architecture(space.sample(rng), sizes.sample(table.spec, rng)) for _ in range(5 * count))
    else:
        searched = ArchitectureSpace(space, sizes.largest(table.spec), sizes)
        drawn = (searched.sample(rng) for _ in range(5 * count))
    found = {one.key(): one for one in drawn}
    for taken in table.calibrated:
        found.pop(taken.key(), None)
    if len(found) < count:
        raise InputError(
            f"only {len(found)} of {count} architectures that took no part in the calibration were found"
        )
    candidates = list(found.values())
    logs = np.log([prediction.ms for prediction in predict_all(table, candidates)])
    return [candidates[place] for place in evenly(logs, count)]


def fresh_genotypes(
    table: LatencyTable, count: int, rng: np.random.Generator, space: GenotypeSpace | None = None
) -> list[Genotype]:
    """Draw ``count`` different genotypes of ``space`` that took no part in the table's calibration.

    Raises:
        InputError: the space has too few of them.
    """
    space = space or space_of(table.spec)
    taken = {network.genotype.key() for network in table.calibration}
    drawn: list[Genotype] = []
    for _ in range(100 + 10 * count):
        genotype = space.sample(rng)
        if len(drawn) < count and genotype.key() not in taken:
            taken.add(genotype.key())
            drawn.append(genotype)
    if len(drawn) == count:
        return drawn
    raise InputError(f"only {len(drawn)} of {count} architectures that took no part in the calibration were found")


def compare(
    genotypes: Sequence[Genotype],
    predicted: Sequence[Prediction],
    measured: Sequence[Measurement],
    level: float,
    *,
    again: Sequence[Measurement] | None = None,
) -> Validation:
    """Return the comparison of ``predicted`` with ``measured``: one of each per genotype, at least one.

    ``again`` is a second measurement of the same.
    """
    second = [None] * len(genotypes) if again is None else [taken.ms for taken in again]
    rows = tuple(
        ValidationRow(genotype, guess.ms, guess.bound_ms, found.ms, found.spread, later)
        for genotype, guess, found, later in zip(genotypes, predicted, measured, second, strict=True)
    )
    differences = [abs(row.again_ms / row.measured_ms - 1) for row in rows if row.again_ms is not None]
    return Validation(
        rows=rows,
        accuracy=Accuracy.of([row.predicted_ms for row in rows], [row.measured_ms for row in rows]),
        coverage=fmean(row.measured_ms <= row.bound_ms for row in rows),
        level=level,
        noise=median(row.spread for row in rows),
        noise_floor=fmean(differences) if differences else None,
    )


def require_device(table: LatencyTable, device: Device) -> None:
    """Check that ``table`` was made on ``device``, with as many threads.

    Raises:
        TableError: it was not.
    """
    threads = device.conditions()["threads"]
    if (device.name, threads) != (table.device, table.threads):
        raise TableError(
            f"the table is for device {table.device} with {table.threads} threads, not for {device.name} with "
            f"{threads}; profile that device"
        )


def _revisited(table: LatencyTable) -> list[CalibrationNetwork]:
    """Return a few calibration networks from across the range of latencies."""
    ranked = sorted(table.calibration, key=lambda network: network.measured.ms)
    places = np.linspace(0, len(ranked) - 1, min(REVISITED, len(ranked)))
    return [ranked[round(float(place))] for place in places]


def _drift(passes: Sequence[Measured]) -> float | None:
    """Return the mean change of the reference in the quiet state since the table was made; None without one."""
    told = [taken.machine.slower_than_expected for taken in passes]
    known = [slower for slower in told if slower is not None]
    return fmean(known) - 1 if known else None


def kendall_tau(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of the two orders, -1 to 1; None where one of them has no order."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    if len(predicted) < 2:
        return None
    tau = float(kendalltau(predicted, measured).statistic)
    return tau if math.isfinite(tau) else None
