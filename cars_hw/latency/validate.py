"""Predicted against measured, on networks that the predictor has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from cars_hw.devices.protocol import Device, Measurement, MeasurePlan, Progress
from cars_hw.errors import InputError, TableError
from cars_hw.genotype import Genotype
from cars_hw.latency.measure import measure_genotypes
from cars_hw.latency.predictor import DEFAULT_LEVEL, Prediction, Predictor
from cars_hw.latency.table import CalibrationNetwork, LatencyTable
from cars_hw.space import SearchSpace


@dataclass(frozen=True)
class ValidationRow:
    """One network: predicted, upper bound and measured, in milliseconds; the measurement's spread, a fraction."""

    genotype: Genotype
    predicted_ms: float
    bound_ms: float
    measured_ms: float
    spread: float

    @property
    def error(self) -> float:
        """How far the prediction is above (positive) or below the measurement, as a fraction of it."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Validation:
    """How good a table is. All but ``kendall_tau`` (-1 to 1) are fractions.

    ``mean_error`` is the mean absolute relative error, ``bias`` the mean relative error, ``within_5`` and
    ``within_10`` the shares of networks that are predicted to 5% and 10%. ``coverage`` is the share whose
    measurement kept to the bound, which should be at least ``level``. ``noise`` is the measurements' own median
    spread. ``kendall_tau`` is None where there is no order to compare. ``drift`` is how much slower than in the
    table the device runs the table's own networks now, None where that was not measured; nothing is corrected
    by it.
    """

    rows: tuple[ValidationRow, ...]
    mean_error: float
    bias: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    coverage: float
    level: float
    noise: float
    drift: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        rows = [{**asdict(row), "genotype": row.genotype.to_dict(), "error": row.error} for row in self.rows]
        return {**asdict(self), "rows": rows}


def validate(
    table: LatencyTable,
    device: Device,
    genotypes: Sequence[Genotype],
    *,
    plan: MeasurePlan | None = None,
    level: float = DEFAULT_LEVEL,
    progress: Progress | None = None,
) -> Validation:
    """Measure ``genotypes`` on ``device`` in fresh sessions and compare with what ``table`` predicts.

    A few of the calibration networks are measured among them, to tell a predictor that is off from a machine that
    has become slower. ``progress`` is called with the model sessions of ``genotypes`` done so far.

    Raises:
        InputError: no genotypes, or some that the predictor was calibrated on: they would flatter it.
        TableError: the table is another device's or has no predictor.
        DeviceError: the device fails.
    """
    if not genotypes:
        raise InputError("there is nothing to validate: give genotypes, or a number of random ones")
    calibrated = {network.genotype.key() for network in table.calibration}
    overlap = sum(genotype.key() in calibrated for genotype in genotypes)
    if overlap:
        raise InputError(
            f"{overlap} of {len(genotypes)} genotypes took part in the table's calibration; validate on others"
        )
    _require_device(table, device)
    predictor = Predictor(table, level)
    plan = plan or MeasurePlan()
    references = _references(table)
    total = len(genotypes) * plan.sessions

    def report(done: int) -> None:
        # The references are nobody's business: what was asked for is done before they are.
        if progress is not None:
            progress(min(done, total))

    everything = [*genotypes, *(network.genotype for network in references)]
    measured = measure_genotypes(device, table.spec, everything, plan, report)
    again = [
        taken.ms / network.measured.ms - 1
        for network, taken in zip(references, measured[len(genotypes) :], strict=True)
    ]
    predicted = [predictor.predict(genotype) for genotype in genotypes]
    return compare(genotypes, predicted, measured[: len(genotypes)], predictor.level, drift=median(again))


def fresh_genotypes(
    table: LatencyTable, count: int, rng: np.random.Generator, space: SearchSpace | None = None
) -> list[Genotype]:
    """Draw ``count`` different genotypes of ``space`` that took no part in the table's calibration.

    Raises:
        InputError: the space has too few of them.
    """
    space = space or SearchSpace()
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
    drift: float | None = None,
) -> Validation:
    """Return the comparison of ``predicted`` with ``measured``, one of each a genotype, at least one."""
    rows = tuple(
        ValidationRow(genotype, guess.ms, guess.bound_ms, found.ms, found.spread)
        for genotype, guess, found in zip(genotypes, predicted, measured, strict=True)
    )
    errors = [row.error for row in rows]
    return Validation(
        rows=rows,
        mean_error=fmean(map(abs, errors)),
        bias=fmean(errors),
        within_5=fmean(abs(error) <= 0.05 for error in errors),
        within_10=fmean(abs(error) <= 0.10 for error in errors),
        kendall_tau=_kendall_tau([row.predicted_ms for row in rows], [row.measured_ms for row in rows]),
        coverage=fmean(row.measured_ms <= row.bound_ms for row in rows),
        level=level,
        noise=median(row.spread for row in rows),
        drift=drift,
    )


def _references(table: LatencyTable) -> list[CalibrationNetwork]:
    """Return three calibration networks from across the range of latencies."""
    ranked = sorted(table.calibration, key=lambda network: network.measured.ms)
    return [ranked[len(ranked) // 4], ranked[len(ranked) // 2], ranked[3 * len(ranked) // 4]]


def _kendall_tau(predicted: list[float], measured: list[float]) -> float | None:
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    if len(predicted) < 2:
        return None
    tau = float(kendalltau(predicted, measured).statistic)
    return tau if math.isfinite(tau) else None


def _require_device(table: LatencyTable, device: Device) -> None:
    threads = device.conditions()["threads"]
    if (device.name, threads) != (table.device, table.threads):
        raise TableError(
            f"the table is for device {table.device} with {table.threads} threads, not for {device.name} with "
            f"{threads}; profile that device"
        )
