"""From a table to the latency of any genotype, with an upper bound and where the time goes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.measurement import QUIET, SUSTAINED
from cars_hw.errors import InputError, TableError
from cars_hw.latency.conformal import conformal_margin
from cars_hw.latency.fit import fit_best
from cars_hw.latency.key_costs import KeyCosts, operations_of
from cars_hw.latency.keys import OpKey, PlacedKey, counts_of, genotype_keys, keys_of
from cars_hw.latency.line import FloatArray
from cars_hw.latency.table import CalibrationNetwork, Coefficients, LatencyTable
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

DEFAULT_LEVEL: Final = 0.95
REPEATABILITY: Final = 0.01
"""How far two measurements of one machine's quiet state are apart at least, a standard deviation as a fraction.

The figure is from tables of one machine, minutes to hours apart; see docs/results/latency.md. A table whose own
reference network was further apart between the two stages of profiling has that figure; see :func:`wander`.
"""

KINDS: Final = ("affine", "ridge")


class Prediction(NamedTuple):
    """A latency and its upper bound, both in milliseconds."""

    ms: float
    bound_ms: float


class Part(NamedTuple):
    """One operation at its place, and the milliseconds that it adds to a predicted latency."""

    placed: PlacedKey
    ms: float


class Composition(NamedTuple):
    """How a latency is predicted, in milliseconds: ``factor * (slope * corrected_ms + intercept_ms + spill_ms)``.

    ``isolated_ms`` is the sum of the network's operations as each was measured by itself, less the overhead of
    running a model at all; ``corrected_ms`` is what is left of it without the conversions of isolated models, and
    with the factors of the operations' kinds. ``factor`` is that of the state of the machine, 1 in the quiet state.
    """

    isolated_ms: float
    corrected_ms: float
    slope: float
    intercept_ms: float
    factor: float
    ms: float
    spill_ms: float = 0.0


@dataclass(frozen=True)
class Breakdown:
    """Where a predicted latency goes, in milliseconds; each of the three views adds up to ``ms``.

    ``cells`` has one figure a cell, first to last, and ``operations`` one a kind, the slowest first; ``stem``
    and ``head`` belong to no cell. ``other`` is the predictor's intercept: what a network costs however small
    it is.
    """

    ms: float
    stem: float
    cells: tuple[float, ...]
    head: float
    operations: dict[str, float]
    other: float


class Predictor:
    """The predictor that ``table`` holds. Its predictions depend on the file alone.

    ``network`` is the network of the genotypes, that of the table if None. It matters for a table over sizes; with
    :meth:`at`, a predictor for a further network costs little.

    Latencies are those of ``state``: ``quiet``, ``usual``, or a quantile over the time such as ``0.9``; see
    :mod:`cars_hw.measurement.states`; or ``sustained``, see :mod:`cars_hw.latency.sustained`. The upper bound is
    ``margin`` (a fraction) above the prediction. The margin comes from networks that were left out of the fit: it
    covers the error of the predictor and of the measurement in that state. ``level`` is the share of networks for
    which the bound should hold; few calibration networks allow a lower one, see ``self.level``.

    Raises:
        TableError: the table lacks an entry or the predictor, holds one of an unknown kind, or is for another
            network.
        InputError: a level that is not between 0 and 1, an unknown state, or one that was not measured.
    """

    def __init__(
        self,
        table: LatencyTable,
        level: float = DEFAULT_LEVEL,
        state: str = QUIET,
        network: NetworkSpec | None = None,
    ) -> None:
        self._table = table
        self._wanted_level = level
        self._coefficients = _coefficients(table)
        self._costs = KeyCosts(table, self._coefficients)
        self._of_network(network or table.spec)
        self._of_state(state)

    def _of_network(self, network: NetworkSpec) -> None:
        self._table.require(network, self._table.precision)
        self.spec = network
        self._sums = self._costs.sums.at(network)
        self._weights = self._costs.weight_sums.at(network)
        self._slope = self._coefficients.slope * self._coefficients.widths.factor(network.channels)

    def _of_state(self, state: str) -> None:
        self._factor, residuals = _in_state(self._table, self._coefficients.residuals, state)
        error = math.hypot(self._table.standard_error, wander(self._table))
        self.margin, self.level = conformal_margin(residuals, self._wanted_level, error)

    def at(self, network: NetworkSpec) -> Predictor:
        """Return the predictor of ``network`` by the same table. Both remember the operations that one has met.

        Raises:
            TableError: the table is for another network.
        """
        other = copy.copy(self)
        other._of_network(network)
        return other

    def in_state(self, state: str) -> Predictor:
        """Return the predictor for ``state`` of the machine. Both remember the networks that one has met.

        Raises:
            InputError: an unknown state.
        """
        other = copy.copy(self)
        other._of_state(state)
        return other

    def predict(self, genotype: Genotype) -> Prediction:
        """Return the latency of the network of ``genotype``."""
        quiet_ms = self._slope * self._sums.total(genotype) + self._coefficients.intercept_ms
        ms = self._factor * (quiet_ms + self._spill(genotype))
        return Prediction(ms, ms * (1 + self.margin))

    def _spill(self, genotype: Genotype) -> float:
        """Return the milliseconds, in the quiet state, for the weights that the cache does not hold."""
        if not self._coefficients.spill_ms or self._coefficients.cache_mb is None:
            return 0.0
        beyond = self._weights.total(genotype) - self._coefficients.cache_mb
        return self._coefficients.spill_ms * max(beyond, 0.0)

    def bound(self, genotype: Genotype) -> float:
        """Return the upper bound in milliseconds, which is compared with a limit."""
        return self.predict(genotype).bound_ms

    def parts(self, genotype: Genotype) -> list[Part]:
        """Return what each operation of the network of ``genotype`` adds to its latency, stem to head.

        Together with the predictor's intercept in this state they are the predicted latency. The time for weights
        that the cache does not hold is shared among the operations in proportion to their weights.
        """
        slope, spill = self._factor * self._slope, self._factor * self._spill(genotype)
        a_megabyte = spill / self._weights.total(genotype) if spill else 0.0
        added, weights_mb = self._costs.added, self._costs.weights_mb
        return [
            Part(placed, slope * added[str(placed.key)] + a_megabyte * weights_mb[str(placed.key)])
            for placed in genotype_keys(self.spec, genotype)
        ]

    def composition(self, genotype: Genotype) -> Composition:
        """Return how the latency of the network of ``genotype`` follows from the table's measured operations."""
        isolated = sum(self._costs.isolated[str(placed.key)] for placed in genotype_keys(self.spec, genotype))
        slope, intercept = self._slope, self._coefficients.intercept_ms
        corrected = self._sums.total(genotype)
        factor, spill = self._factor, self._spill(genotype)
        ms = factor * (slope * corrected + intercept + spill)
        return Composition(isolated, corrected, slope, intercept, factor, ms, spill)

    def breakdown(self, genotype: Genotype) -> Breakdown:
        """Return where the latency of the network of ``genotype`` goes."""
        cells = [0.0] * self.spec.layers
        outside = {"stem": 0.0, "head": 0.0}
        operations: dict[str, float] = {}
        for (key, cell, what), ms in self.parts(genotype):
            operations[key.kind] = operations.get(key.kind, 0.0) + ms
            if cell is None:
                outside[what] += ms
            else:
                cells[cell] += ms
        ranked = dict(sorted(operations.items(), key=lambda item: -item[1]))
        other, total = self._factor * self._coefficients.intercept_ms, self.predict(genotype).ms
        return Breakdown(total, outside["stem"], tuple(cells), outside["head"], ranked, other)


def _coefficients(table: LatencyTable) -> Coefficients:
    """Return the predictor in ``table``, checked."""
    if table.predictor is None:
        raise TableError("the table holds no predictor: its profile was not finished; profile the device again")
    if table.predictor.kind not in KINDS:
        raise TableError(f"the table's predictor is of an unknown kind, {table.predictor.kind}; upgrade cars-hw")
    evaluated = sum(not network.anchor for network in table.calibration)
    if len(table.predictor.residuals) != evaluated:
        raise TableError(
            f"the table has {len(table.predictor.residuals)} residuals for {evaluated} calibration networks; "
            "profile the device again"
        )
    return table.predictor


def _in_state(table: LatencyTable, residuals: Sequence[float], state: str) -> tuple[float, list[float]]:
    """Return how many times the quiet latency networks take in ``state``, and the residuals there.

    Calibration networks slow down by different factors; the median of them is the factor of all.
    """
    if state == SUSTAINED:
        sustained = table.require_sustained()
        # A network may slow down as much as the one that did the most.
        wider = sustained.largest_factor / sustained.p90_factor
        return sustained.p90_factor, [(1 + residual) * wider - 1 for residual in residuals]
    networks = [network.measured for network in table.calibration]
    common = table.factor(state)
    factors = [common**measured.sensitivity for measured in networks]
    factor = median(factors) if factors else common
    evaluated = [one for one, network in zip(factors, table.calibration, strict=True) if not network.anchor]
    return factor, [(1 + residual) * own / factor - 1 for residual, own in zip(residuals, evaluated, strict=True)]


def wander(table: LatencyTable) -> float:
    """Return how far a later measurement of the quiet state of ``table`` may be apart, a standard deviation.

    It is a fraction: what the reference network changed between the two stages of profiling, and at least
    :data:`REPEATABILITY`. The two stages are minutes apart. A machine may wander further over a longer time.
    """
    seen = 0.0 if table.reference is None else abs(table.reference.difference)
    return max(seen, REPEATABILITY)


def prediction_error(table: LatencyTable) -> float:
    """Return the standard error of a predicted network, a fraction: the median over the calibration networks.

    It comes from the standard errors of a network's operations, which are independent, and from those of the
    networks that the predictor is fitted to.
    """
    architectures = table.calibrated
    keys = keys_of(architectures)
    errors = table.operation_costs.of(keys) * _relative_errors(table, keys)
    measured = np.array([network.measured.ms for network in table.calibration])
    own = np.array([network.measured.standard_error for network in table.calibration])
    counts = counts_of(keys, architectures)
    of_operations = np.sqrt(counts**2 @ errors**2) / measured
    # A line has two parameters.
    of_line = math.sqrt(2 * float(np.mean(own**2)) / len(own))
    return float(np.hypot(np.median(of_operations), of_line))


def _relative_errors(table: LatencyTable, keys: Sequence[OpKey]) -> FloatArray:
    """Return the standard errors of ``keys``, fractions of shape (K,); that of their kind if not measured."""
    of_kind: dict[str, list[float]] = {}
    for text, entry in table.entries.items():
        of_kind.setdefault(OpKey.parse(text).kind, []).append(entry.standard_error)
    found = []
    for key in keys:
        measured = table.entries.get(str(key))
        found.append(median(of_kind[key.kind]) if measured is None else measured.standard_error)
    return np.array(found)


def fit_coefficients(table: LatencyTable, calibration: Sequence[CalibrationNetwork]) -> Coefficients:
    """Return the predictor that fits the entries of ``table`` to the networks ``calibration``.

    Raises:
        InputError: less than four networks.
        DeviceError: measurements that no predictor can be made of.
    """
    if len(calibration) < 4:
        raise InputError(f"the predictor needs at least 4 calibration networks, not {len(calibration)}")
    architectures = [network.architecture(table.spec) for network in calibration]
    keys = keys_of(architectures)
    kinds = list(dict.fromkeys(key.kind for key in keys))
    observations = replace(
        operations_of(table, keys),
        counts=counts_of(keys, architectures),
        measured=np.array([network.measured.ms for network in calibration]),
        widths=None if table.sizes is None else np.array([one.network.channels for one in architectures]),
    )
    evaluated = [index for index, network in enumerate(calibration) if not network.anchor]
    line, residuals, left_out_error, widths = fit_best(observations, evaluated)
    return Coefficients(
        line.slope,
        line.intercept_ms,
        line.conversion_ns,
        tuple(round(float(residual), 6) for residual in residuals),
        kind="affine" if line.factors is None else "ridge",
        factors={} if line.factors is None else dict(zip(kinds, map(float, line.factors), strict=True)),
        left_out_error={name: round(error, 6) for name, error in left_out_error.items()},
        block=line.traits.block,
        unaligned=line.unaligned,
        cache_mb=line.traits.cache_mb if math.isfinite(line.traits.cache_mb) else None,
        spill_ms=line.spill_ms,
        width_block=widths.block,
        width_multiples=widths.multiples,
        width_others=widths.others,
    )
