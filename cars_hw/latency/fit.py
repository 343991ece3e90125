"""The statistics behind a predicted latency: what isolated models carry, a line, and how far to trust it.

An isolated model pays for more than its operation. To be run at all costs the overhead; and a runtime that keeps
images in a layout of its own converts what goes in and what comes out, which inside of a network it does not.
The first is measured, the second is fitted: so many nanoseconds for each element of what a model takes in or gives
out, but for what computes alike in any layout. Without it pooling, which does little with many elements, is taken
for twice what it costs, and the networks at the fast end, where budgets are, are a third off.

A runtime may have kernels, with a layout of their own, only for channels in groups of 8 or 16. Operations with
other numbers of channels then have no conversions, and their times add up by another slope. The weights of a
network may be more than the cache holds, where those of an isolated operation stay in it: then every further
megabyte takes a time of its own. Both are assumed only where networks that are left out are predicted better by
them; see :class:`Traits`.

Between the operations of a network there are conversions too, where some of them have kernels for a layout and
others have not. In a table over sizes, the operations of networks whose channels are no multiples of 8, 16 or 32
may therefore take another factor than those of other networks; see :class:`Widths`. It is assumed on the same
condition.

What is left differs by kind of operation: inside a network a runtime fuses some of them with their neighbours, and
their images are in the cache or are not. So on top of the line each kind may have a factor of its own, shrunk
towards 1; but only where networks that are left out are predicted better by it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.errors import DeviceError, InputError

FloatArray = npt.NDArray[np.float64]

STEPS: Final = 21
"""How many values of the conversion are tried."""

PENALTIES: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The shrinkages that are tried: of the factors' squared distance from 1, against squared relative errors."""

LEAST_PART: Final = 0.1
"""What an operation costs inside of a network, at least: this share of what it costs as a model of its own."""

GAIN: Final = 0.95
"""Factors, and traits of the runtime, have to leave no more than this share of the error to be worth having."""

BLOCKS: Final = (1, 8, 16)
CACHES_MB: Final = (math.inf, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The traits of a runtime and of its processor that are tried."""

WIDTH_BLOCKS: Final = (8, 16, 32)
"""The blocks of :class:`Widths` that are tried."""

LEAST_NETWORKS: Final = 4
"""So many networks with a multiple of the block, and as many others, are needed to tell them apart."""

WIDTH_PRIOR: Final = 2.0
"""A factor of :class:`Widths` is shrunk towards 1 as if so many more networks had the factor 1."""

WIDTH_ROUNDS: Final = 3
"""So many times the line and the factors of :class:`Widths` are fitted by turns."""


class Traits(NamedTuple):
    """What is assumed of a runtime: channels in groups of ``block``, and a cache of ``cache_mb`` for the weights.

    A ``block`` of 1 and an infinite cache assume nothing.
    """

    block: int = 1
    cache_mb: float = math.inf


PLAIN: Final = Traits()


class Widths(NamedTuple):
    """By how much the operations of a network take longer together than the line says, for its number of channels.

    The channels are those of the first cell. ``multiples`` is the factor of networks with a multiple of ``block``,
    ``others`` that of all others. A ``block`` of 1 assumes nothing.
    """

    block: int = 1
    multiples: float = 1.0
    others: float = 1.0

    def factor(self, channels: int) -> float:
        """Return the factor of networks with so many ``channels``."""
        return self.multiples if channels % self.block == 0 else self.others


ANY_WIDTH: Final = Widths()


@dataclass(frozen=True)
class Observations:
    """What there is to fit: N networks made of K operations.

    ``counts`` (N, K) says how often each network runs each operation, ``costs`` (K,) what the isolated ones cost
    in milliseconds beyond the overhead, ``elements`` (K,) how many elements a runtime may convert for them,
    ``kinds`` (K,) numbers their kinds from 0 without a gap, and ``measured`` (N,) are the networks' latencies in
    milliseconds. ``channels`` (K,) is the largest number that divides the channels which an operation reads and
    those which it writes, and ``weights_mb`` (K,) the size of its weights in megabytes. ``widths`` (N,) are the
    channels of each network's first cell; None if all networks have the same. ``scale`` (N,) multiplies what the
    operations of each network take together; None stands for ones.
    """

    counts: FloatArray
    costs: FloatArray
    elements: FloatArray
    kinds: npt.NDArray[np.int_]
    measured: FloatArray
    channels: npt.NDArray[np.int_]
    weights_mb: FloatArray
    widths: npt.NDArray[np.int_] | None = None
    scale: FloatArray | None = None

    def without(self, network: int) -> Observations:
        """Return all but one of the networks."""
        kept = np.arange(len(self.measured)) != network
        return replace(
            self,
            counts=self.counts[kept],
            measured=self.measured[kept],
            widths=None if self.widths is None else self.widths[kept],
            scale=None if self.scale is None else self.scale[kept],
        )

    def scaled(self, widths: Widths) -> Observations:
        """Return the observations with the factors of ``widths`` as their ``scale``."""
        assert self.widths is not None
        return replace(self, scale=np.array([widths.factor(int(channels)) for channels in self.widths]))

    @property
    def weighted_counts(self) -> FloatArray:
        """Shape (N, K): ``counts`` times ``scale``."""
        return self.counts if self.scale is None else self.counts * self.scale[:, None]

    def net(self, conversion_ns: float, block: int = 1) -> FloatArray:
        """Return shape (K,): the operations less their conversions, in milliseconds."""
        elements = np.where(self.channels % block == 0, self.elements, 0.0)
        return net_costs(self.costs, elements, conversion_ns)

    def sums(self, conversion_ns: float) -> FloatArray:
        """Return shape (N,): each network's operations together, in milliseconds."""
        sums: FloatArray = self.counts @ self.net(conversion_ns)
        return sums

    def by_kind(self, conversion_ns: float) -> FloatArray:
        """Return shape (N, kinds): the parts of :meth:`sums`."""
        return self.counts @ (self.net(conversion_ns)[:, None] * self.membership)

    @property
    def membership(self) -> FloatArray:
        """Shape (K, kinds): 1 where an operation is of a kind, 0 elsewhere."""
        membership: FloatArray = np.eye(int(self.kinds.max()) + 1)[self.kinds]
        return membership

    def beyond(self, cache_mb: float) -> FloatArray:
        """Return shape (N,): the megabytes of each network's weights that the cache does not hold."""
        return np.maximum(self.counts @ self.weights_mb - cache_mb, 0.0)


@dataclass(frozen=True)
class Line:
    """``slope`` times the sum of operations net of ``conversion_ns`` an element, plus ``intercept_ms``.

    Operations whose channels are no multiples of ``traits.block`` have no conversion, and ``unaligned`` times the
    slope. ``spill_ms`` is added for every megabyte of weights beyond ``traits.cache_mb``. ``factors`` (kinds,)
    multiply the parts of the sum, if there are any.
    """

    slope: float
    intercept_ms: float
    conversion_ns: float
    factors: FloatArray | None = None
    traits: Traits = PLAIN
    unaligned: float = 1.0
    spill_ms: float = 0.0

    def costs(self, observations: Observations) -> FloatArray:
        """Return shape (K,): what each operation adds to a network, in milliseconds, without factors."""
        net = observations.net(self.conversion_ns, self.traits.block)
        aligned = observations.channels % self.traits.block == 0
        costs: FloatArray = self.slope * net * np.where(aligned, 1.0, self.unaligned)
        return costs

    def parts(self, observations: Observations) -> FloatArray:
        """Return shape (N, kinds): the milliseconds of the operations of each kind, without factors."""
        parts: FloatArray = observations.weighted_counts @ (
            self.costs(observations)[:, None] * observations.membership
        )
        return parts

    def predict(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the networks' latencies in milliseconds."""
        return self.operations(observations) + self.rest(observations)

    def operations(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the milliseconds of the operations of each network."""
        parts = self.parts(observations)
        operations: FloatArray = parts @ (np.ones(parts.shape[1]) if self.factors is None else self.factors)
        return operations

    def rest(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the milliseconds of each network beyond its operations."""
        rest: FloatArray = self.intercept_ms + self.spill_ms * observations.beyond(self.traits.cache_mb)
        return rest


class Fitted(NamedTuple):
    """The line that was chosen, with the factors by width, if any, and its residuals.

    ``left_out_error`` is the mean absolute residual of each kind of predictor, and of the chosen one with factors
    by width.
    """

    line: Line
    residuals: FloatArray
    left_out_error: dict[str, float]
    widths: Widths = ANY_WIDTH


def net_costs(costs: FloatArray, elements: FloatArray, conversion_ns: float) -> FloatArray:
    """Return (K,) milliseconds: ``costs`` less the conversion of so many ``elements``.

    At least :data:`LEAST_PART` of a cost remains: an operation that is run takes time.
    """
    return np.maximum(costs - conversion_ns * 1e-6 * elements, LEAST_PART * costs)


def fit_line(observations: Observations, traits: Traits = PLAIN) -> Line:
    """Return the line that has the least squared relative error; neither slope nor intercept is negative.

    An error of a millisecond matters more in a network of 5 ms than in one of 50. The conversion is the best of
    :data:`STEPS` values, from 0 to where half of the operations would cost nothing.

    Raises:
        DeviceError: the line does not rise: these are not measurements of these networks, or noise is all.
    """
    rising = []
    for conversion in _conversions(observations):
        rates, error = _solved(_columns(observations, traits, conversion), observations.measured)
        if rates is not None:
            rising.append((error, conversion, rates))
    if not rising:
        raise DeviceError(
            "networks with slower operations are not slower on this device; profile it again when it is quiet"
        )
    # Where nothing is gained but what rounding gives, the smaller conversion stands.
    best = min(error for error, *_ in rising)
    _, conversion, rates = next(one for one in rising if one[0] <= best + 1e-12)
    ratio = rates.unaligned / rates.slope
    return Line(rates.slope, rates.intercept_ms, conversion, None, traits, ratio, rates.spill_ms)


def _conversions(observations: Observations) -> list[float]:
    converting = observations.elements > 0
    ratios = 1e6 * observations.costs[converting] / observations.elements[converting]
    return np.linspace(0.0, float(np.median(ratios)), STEPS).tolist() if len(ratios) else [0.0]


class _Rates(NamedTuple):
    """Milliseconds for a millisecond of aligned and of other operations, of any network, and for a megabyte."""

    slope: float
    unaligned: float
    intercept_ms: float
    spill_ms: float


def _columns(observations: Observations, traits: Traits, conversion_ns: float) -> FloatArray:
    """Return shape (N, 4): what the rates multiply."""
    net = observations.net(conversion_ns, traits.block)
    aligned = observations.channels % traits.block == 0
    return np.stack(
        [
            observations.weighted_counts @ (net * aligned),
            observations.weighted_counts @ (net * ~aligned),
            np.ones(len(observations.measured)),
            observations.beyond(traits.cache_mb),
        ],
        axis=1,
    )


def _solved(columns: FloatArray, measured: FloatArray) -> tuple[_Rates | None, float]:
    """Return the rates by which ``columns`` (N, 4) explain ``measured`` (N,) best, and the squared error left.

    The rates are None where the line does not rise.
    """
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    relative = columns / measured[:, None]
    # Columns of one scale, for the sake of the solver's tolerance; one that is empty stays out of it.
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    there: npt.NDArray[np.bool_] = np.asarray(relative.any(axis=0))
    solution, error = nnls(relative[:, there] / scale[there], np.ones(len(relative)))
    found = np.zeros(len(scale))
    found[there] = solution / scale[there]
    if not there[1]:
        found[1] = found[0]
    if not there[0] or not found[:2].min() > 0:
        return None, math.inf
    return _Rates(*map(float, found)), float(error) ** 2


def choose_traits(observations: Observations, evaluated: Sequence[int]) -> Traits:
    """Return the traits of the runtime by which the ``evaluated`` networks are predicted best, each left out.

    Without a clear gain nothing is assumed.
    """
    errors = {}
    for traits in itertools.starmap(Traits, itertools.product(BLOCKS, CACHES_MB)):
        error = _left_out_error(observations, evaluated, traits)
        if error is not None:
            errors[traits] = error
    if PLAIN not in errors:
        return PLAIN
    best = min(errors, key=lambda traits: errors[traits])
    return best if errors[best] < GAIN * errors[PLAIN] else PLAIN


def _left_out_error(observations: Observations, evaluated: Sequence[int], traits: Traits) -> float | None:
    """Return the mean absolute residual of networks that are left out; None where a line does not rise.

    The conversion is that of all networks, for the sake of speed.
    """
    try:
        conversion = fit_line(observations, traits).conversion_ns
    except DeviceError:
        return None
    columns, measured = _columns(observations, traits, conversion), observations.measured
    left = []
    for network in evaluated:
        others = np.arange(len(measured)) != network
        rates, _ = _solved(columns[others], measured[others])
        if rates is None:
            return None
        left.append(abs(measured[network] / float(columns[network] @ np.array(rates)) - 1))
    return fmean(left)


def add_factors(line: Line, observations: Observations, penalty: float) -> Line:
    """Return ``line`` with a factor for every kind of operation, shrunk towards 1 by ``penalty``; ridge regression.

    What is fitted is what the line leaves, by relative error.
    """
    from sklearn.linear_model import Ridge

    parts = line.parts(observations)
    left, weights = observations.measured - line.predict(observations), observations.measured**-2.0
    model = Ridge(alpha=penalty).fit(parts, left, sample_weight=weights)
    intercept = line.intercept_ms + float(model.intercept_)
    if intercept < 0:
        intercept = 0.0
        model = Ridge(alpha=penalty, fit_intercept=False).fit(
            parts, left + line.intercept_ms, sample_weight=weights
        )
    return replace(line, intercept_ms=intercept, factors=1 + model.coef_)


def find_widths(line: Line, observations: Observations, block: int) -> Widths:
    """Return the factors of networks with multiples of ``block`` and of others, by what ``line`` leaves.

    A factor is the mean of what the operations of such networks take, by that of the line. It is shrunk towards 1,
    as by :data:`WIDTH_PRIOR` networks that have the factor 1.
    """
    assert observations.widths is not None
    plain = replace(observations, scale=None)
    ratios = (plain.measured - line.rest(plain)) / line.operations(plain)
    aligned = observations.widths % block == 0
    factors = [
        float((ratios[chosen].sum() + WIDTH_PRIOR) / (chosen.sum() + WIDTH_PRIOR)) for chosen in (aligned, ~aligned)
    ]
    return Widths(block, *factors)


def fit_widths(
    observations: Observations, block: int, penalty: float | None = None, traits: Traits = PLAIN
) -> tuple[Line, Widths]:
    """Return the line, with factors by kind if there is a ``penalty``, and the factors by width, fitted by turns.

    Raises:
        DeviceError: the line does not rise.
    """
    widths = ANY_WIDTH
    for _ in range(WIDTH_ROUNDS):
        scaled = observations.scaled(widths)
        line = _fitted(scaled, penalty, traits)
        widths = find_widths(line, observations, block)
    return line, widths


def _fitted(observations: Observations, penalty: float | None, traits: Traits) -> Line:
    line = fit_line(observations, traits)
    return line if penalty is None else add_factors(line, observations, penalty)


def _width_blocks(observations: Observations) -> list[int]:
    """Return the blocks by which there are enough networks of both sorts."""
    if observations.widths is None:
        return []
    aligned = {block: int((observations.widths % block == 0).sum()) for block in WIDTH_BLOCKS}
    total = len(observations.widths)
    return [block for block, count in aligned.items() if LEAST_NETWORKS <= count <= total - LEAST_NETWORKS]


def fit_best(observations: Observations, evaluated: Sequence[int]) -> Fitted:
    """Return the line, with factors by kind and by width only where they predict the ``evaluated`` networks better.

    Each of these networks is left out of the fit in turn.

    Raises:
        DeviceError: a line does not rise.
    """
    traits = choose_traits(observations, evaluated)
    plain, *shrunk = leave_one_out(observations, evaluated, (None, *PENALTIES), traits)
    errors = [float(np.abs(residuals).mean()) for residuals in shrunk]
    best = int(np.argmin(errors))
    told = {"affine": float(np.abs(plain).mean()), "ridge": errors[best]}
    line = fit_line(observations, traits)
    rich = add_factors(line, observations, PENALTIES[best])
    if told["ridge"] < GAIN * told["affine"] and _is_plausible(rich):
        return _with_widths(Fitted(rich, shrunk[best], told), observations, evaluated, PENALTIES[best])
    return _with_widths(Fitted(line, plain, told), observations, evaluated, None)


def _with_widths(
    fitted: Fitted, observations: Observations, evaluated: Sequence[int], penalty: float | None
) -> Fitted:
    """Return ``fitted`` with the factors by width that predict the ``evaluated`` networks best, if any do."""
    traits = fitted.line.traits
    tried = {
        block: _width_residuals(observations, evaluated, block, penalty, traits)
        for block in _width_blocks(observations)
    }
    if not tried:
        return fitted
    errors = {block: float(np.abs(residuals).mean()) for block, residuals in tried.items()}
    best = min(errors, key=lambda block: errors[block])
    told = {**fitted.left_out_error, "widths": errors[best]}
    if errors[best] >= GAIN * float(np.abs(fitted.residuals).mean()):
        return fitted._replace(left_out_error=told)
    line, widths = fit_widths(observations, best, penalty, traits)
    if not _is_plausible(line):
        return fitted._replace(left_out_error=told)
    return Fitted(line, tried[best], told, widths)


def _is_plausible(line: Line) -> bool:
    """Return whether all factors are positive: an operation of a negative or no latency is a fit to noise."""
    return line.factors is None or float(line.factors.min()) > 0


def _width_residuals(
    observations: Observations, left_out: Sequence[int], block: int, penalty: float | None, traits: Traits
) -> FloatArray:
    """Return what :func:`leave_one_out` does, with factors by width."""
    residuals = []
    for network in left_out:
        line, widths = fit_widths(observations.without(network), block, penalty, traits)
        predicted = line.predict(observations.scaled(widths))[network]
        residuals.append(observations.measured[network] / predicted - 1)
    return np.array(residuals)


def leave_one_out(
    observations: Observations,
    left_out: Sequence[int],
    penalties: Sequence[float | None],
    traits: Traits = PLAIN,
) -> list[FloatArray]:
    """Return, for each of ``penalties``, how far the networks ``left_out`` exceed their predictions by all others.

    As fractions of these predictions, each of shape (len(left_out),). Without a penalty there are no factors.

    Raises:
        DeviceError: a line does not rise.
    """
    residuals = np.empty((len(penalties), len(left_out)))
    for position, network in enumerate(left_out):
        others = observations.without(network)
        line = fit_line(others, traits)
        for row, penalty in enumerate(penalties):
            fitted = line if penalty is None else add_factors(line, others, penalty)
            residuals[row, position] = observations.measured[network] / fitted.predict(observations)[network] - 1
    return list(residuals)


def conformal_margin(residuals: Sequence[float], level: float, error: float = 0.0) -> tuple[float, float]:
    """Return by what fraction to exceed a prediction, and the level that this really has.

    With n residuals that are exchangeable with what is to come, the ceil((n + 1) * level)-th smallest is
    exceeded with a probability of at most 1 - level. Where n is too small for that, the largest has to do, and
    its level is n / (n + 1). ``error`` is the standard deviation of what all measurements of a later time have in
    common, a fraction: then the residuals are spread by it. A bound below the prediction would be of no use, so
    the margin is not negative.

    Raises:
        InputError: no residuals, or a level that is not between 0 and 1.
    """
    if not (0 < level < 1 and len(residuals)):
        raise InputError(f"an upper bound needs calibration networks and a level between 0 and 1, not {level}")
    count = len(residuals)
    # Just above a whole number, floating point must not make one more of it: 20 * 0.95 is 19.
    rank = math.ceil((count + 1) * level - 1e-9)
    reached = level if rank <= count else count / (count + 1)
    ranked = sorted(residuals)
    if error <= 0:
        return max(ranked[min(rank, count) - 1], 0.0), reached
    # Half a rank less, as the distribution is continuous: of one residual the median is itself.
    share = (min(rank, count) - 0.5) / count
    return max(_mixture_quantile(ranked, error, share), 0.0), reached


def _mixture_quantile(centres: Sequence[float], deviation: float, share: float) -> float:
    """Return the quantile ``share`` of the mean of normal distributions around ``centres``; by bisection."""
    normal = NormalDist(0.0, deviation)
    low, high = min(centres) - 10 * deviation, max(centres) + 10 * deviation
    for _ in range(60):
        middle = (low + high) / 2
        if fmean(normal.cdf(middle - centre) for centre in centres) < share:
            low = middle
        else:
            high = middle
    return high
