"""The statistics behind a predicted latency: what isolated models carry, a line, and how far to trust it.

An isolated model pays for more than its operation. To be run at all costs the overhead; and a runtime that keeps
images in a layout of its own converts what goes in and what comes out, which inside of a network it does not.
The first is measured, the second is fitted: so many nanoseconds for each element of what a model takes in or gives
out, but for what computes alike in any layout. Without it pooling, which does little with many elements, is taken
for twice what it costs, and the networks at the fast end, where budgets are, are a third off.

What is left differs by kind of operation: inside a network a runtime fuses some of them with their neighbours, and
their images are in the cache or are not. So on top of the line each kind may have a factor of its own, shrunk
towards 1; but only where networks that are left out are predicted better by it.
"""

from __future__ import annotations

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
"""Factors have to leave no more than this share of the error to be worth having."""


@dataclass(frozen=True)
class Observations:
    """What there is to fit: N networks made of K operations.

    ``counts`` (N, K) says how often each network runs each operation, ``costs`` (K,) what the isolated ones cost
    in milliseconds beyond the overhead, ``elements`` (K,) how many elements a runtime may convert for them,
    ``kinds`` (K,) numbers their kinds from 0 without a gap, and ``measured`` (N,) are the networks' latencies in
    milliseconds.
    """

    counts: FloatArray
    costs: FloatArray
    elements: FloatArray
    kinds: npt.NDArray[np.int_]
    measured: FloatArray

    def without(self, network: int) -> Observations:
        """Return all but one of the networks."""
        kept = np.arange(len(self.measured)) != network
        return Observations(self.counts[kept], self.costs, self.elements, self.kinds, self.measured[kept])

    def sums(self, conversion_ns: float) -> FloatArray:
        """Return shape (N,): each network's operations together, in milliseconds."""
        sums: FloatArray = self.counts @ net_costs(self.costs, self.elements, conversion_ns)
        return sums

    def by_kind(self, conversion_ns: float) -> FloatArray:
        """Return shape (N, kinds): the parts of :meth:`sums`."""
        membership = np.eye(int(self.kinds.max()) + 1)[self.kinds]
        parts: FloatArray = (self.counts * net_costs(self.costs, self.elements, conversion_ns)) @ membership
        return parts


@dataclass(frozen=True)
class Line:
    """``slope`` times the sum of operations net of ``conversion_ns`` an element, plus ``intercept_ms``.

    ``factors`` (kinds,) multiply the parts of the sum, if there are any.
    """

    slope: float
    intercept_ms: float
    conversion_ns: float
    factors: FloatArray | None = None

    def predict(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the networks' latencies in milliseconds."""
        parts = observations.by_kind(self.conversion_ns)
        predicted: FloatArray = self.slope * (parts @ self._factors(parts.shape[1])) + self.intercept_ms
        return predicted

    def _factors(self, kinds: int) -> FloatArray:
        return np.ones(kinds) if self.factors is None else self.factors


class Fitted(NamedTuple):
    """The line that was chosen, its residuals, and for each kind of predictor the mean absolute residual."""

    line: Line
    residuals: FloatArray
    left_out_error: dict[str, float]


def net_costs(costs: FloatArray, elements: FloatArray, conversion_ns: float) -> FloatArray:
    """Return (K,) milliseconds: ``costs`` less the conversion of so many ``elements``.

    At least :data:`LEAST_PART` of a cost remains: an operation that is run takes time.
    """
    return np.maximum(costs - conversion_ns * 1e-6 * elements, LEAST_PART * costs)


def fit_line(observations: Observations) -> Line:
    """Return the line that has the least squared relative error.

    An error of a millisecond matters more in a network of 5 ms than in one of 50. The conversion is the best of
    :data:`STEPS` values, from 0 to where half of the operations would cost nothing.

    Raises:
        DeviceError: the line does not rise: these are not measurements of these networks, or noise is all.
    """
    from sklearn.linear_model import LinearRegression

    converting = observations.elements > 0
    ratios = 1e6 * observations.costs[converting] / observations.elements[converting]
    conversions = np.linspace(0.0, float(np.median(ratios)), STEPS) if len(ratios) else np.zeros(1)
    errors = _errors(np.stack([observations.sums(float(value)) for value in conversions]), observations.measured)
    if not np.isfinite(errors).any():
        raise DeviceError(
            "networks with slower operations are not slower on this device; profile it again when it is quiet"
        )
    # Where nothing is gained but what rounding gives, the smaller conversion stands.
    conversion = float(conversions[np.argmax(errors <= errors.min() + 1e-12)])
    sums, weights = observations.sums(conversion), observations.measured**-2.0
    model = LinearRegression().fit(sums[:, None], observations.measured, sample_weight=weights)
    if model.intercept_ < 0:
        # A network without operations does not take less than no time.
        model = LinearRegression(fit_intercept=False).fit(
            sums[:, None], observations.measured, sample_weight=weights
        )
    return Line(float(model.coef_[0]), float(model.intercept_), conversion)


def _errors(sums: FloatArray, measured: FloatArray) -> FloatArray:
    """Return shape (C,): what the best rising line through each row of ``sums`` (C, N) leaves of ``measured``.

    As a fraction of what there is, weighted by relative error; infinite where the best line does not rise. A line
    whose intercept would be negative goes through the origin.
    """
    weights = measured**-2.0 / np.sum(measured**-2.0)
    x = sums - (sums @ weights)[:, None]
    y = measured - measured @ weights
    xx, xy = x**2 @ weights, (x * y) @ weights
    tiny = np.finfo(float).tiny
    there = np.maximum(y**2 @ weights, tiny)
    left = 1 - xy**2 / np.maximum(xx * there, tiny)
    slope = (sums * measured) @ weights / np.maximum(sums**2 @ weights, tiny)
    through_origin = ((measured - slope[:, None] * sums) ** 2) @ weights / there
    negative = measured @ weights < xy / np.maximum(xx, tiny) * (sums @ weights)
    return np.where(xy > 0, np.where(negative, through_origin, left), np.inf)


def add_factors(line: Line, observations: Observations, penalty: float) -> Line:
    """Return ``line`` with a factor for every kind of operation, shrunk towards 1 by ``penalty``; ridge regression.

    What is fitted is what the line leaves, by relative error.
    """
    from sklearn.linear_model import Ridge

    parts = line.slope * observations.by_kind(line.conversion_ns)
    left, weights = observations.measured - line.predict(observations), observations.measured**-2.0
    model = Ridge(alpha=penalty).fit(parts, left, sample_weight=weights)
    intercept = line.intercept_ms + float(model.intercept_)
    if intercept < 0:
        intercept = 0.0
        model = Ridge(alpha=penalty, fit_intercept=False).fit(
            parts, left + line.intercept_ms, sample_weight=weights
        )
    return replace(line, intercept_ms=intercept, factors=1 + model.coef_)


def fit_best(observations: Observations, evaluated: Sequence[int]) -> Fitted:
    """Return the line, with factors by kind only where they predict the ``evaluated`` networks better.

    Each of these networks is left out of the fit in turn.

    Raises:
        DeviceError: a line does not rise.
    """
    plain, *shrunk = leave_one_out(observations, evaluated, (None, *PENALTIES))
    errors = [float(np.abs(residuals).mean()) for residuals in shrunk]
    best = int(np.argmin(errors))
    told = {"affine": float(np.abs(plain).mean()), "ridge": errors[best]}
    line = fit_line(observations)
    rich = add_factors(line, observations, PENALTIES[best])
    assert rich.factors is not None
    # An operation of a negative or no latency is the sign of a fit to noise.
    if told["ridge"] < GAIN * told["affine"] and rich.factors.min() > 0:
        return Fitted(rich, shrunk[best], told)
    return Fitted(line, plain, told)


def leave_one_out(
    observations: Observations, left_out: Sequence[int], penalties: Sequence[float | None]
) -> list[FloatArray]:
    """Return, for each of ``penalties``, how far the networks ``left_out`` exceed their predictions by all others.

    As fractions of these predictions, each of shape (len(left_out),). Without a penalty there are no factors.

    Raises:
        DeviceError: a line does not rise.
    """
    residuals = np.empty((len(penalties), len(left_out)))
    for position, network in enumerate(left_out):
        others = observations.without(network)
        line = fit_line(others)
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
