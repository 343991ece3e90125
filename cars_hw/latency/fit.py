"""The statistics behind a predicted latency: what isolated models carry, a line, and how far to trust it.

An isolated model pays for more than its operation. To be run at all costs the overhead; and a runtime that keeps
images in a layout of its own converts what goes in and what comes out, which inside of a network it does not.
The first is measured, the second is fitted: so many nanoseconds for each element of what a model takes in or gives
out, but for what computes alike in any layout. Without it pooling, which does little with many elements, is taken
for twice what it costs, and the networks at the fast end, where budgets are, are a third off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cars_hw.errors import DeviceError, InputError

FloatArray = npt.NDArray[np.float64]

STEPS: Final = 21
"""How many values of the conversion are tried."""


@dataclass(frozen=True)
class Observations:
    """What there is to fit: N networks made of K operations.

    ``counts`` (N, K) says how often each network runs each operation, ``costs`` (K,) what the isolated ones cost
    in milliseconds beyond the overhead, ``elements`` (K,) how many elements a runtime may convert for them, and
    ``measured`` (N,) the networks' latencies in milliseconds.
    """

    counts: FloatArray
    costs: FloatArray
    elements: FloatArray
    measured: FloatArray

    def without(self, network: int) -> Observations:
        """Return all but one of the networks."""
        kept = np.arange(len(self.measured)) != network
        return Observations(self.counts[kept], self.costs, self.elements, self.measured[kept])

    def sums(self, conversion_ns: float) -> FloatArray:
        """Return shape (N,): each network's operations together, in milliseconds."""
        sums: FloatArray = self.counts @ net_costs(self.costs, self.elements, conversion_ns)
        return sums


@dataclass(frozen=True)
class Line:
    """``slope`` times the sum of operations net of ``conversion_ns`` an element, plus ``intercept_ms``."""

    slope: float
    intercept_ms: float
    conversion_ns: float


def net_costs(costs: FloatArray, elements: FloatArray, conversion_ns: float) -> FloatArray:
    """Return (K,) milliseconds: ``costs`` less the conversion of so many ``elements``, and not below 0."""
    return np.maximum(costs - conversion_ns * 1e-6 * elements, 0.0)


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
    return Line(float(model.coef_[0]), float(model.intercept_), conversion)


def _errors(sums: FloatArray, measured: FloatArray) -> FloatArray:
    """Return shape (C,): what the best rising line through each row of ``sums`` (C, N) leaves of ``measured``.

    As a fraction of what there is, weighted by relative error; infinite where the best line does not rise.
    """
    weights = measured**-2.0 / np.sum(measured**-2.0)
    x = sums - (sums @ weights)[:, None]
    y = measured - measured @ weights
    xx, xy = x**2 @ weights, (x * y) @ weights
    left = 1 - xy**2 / np.maximum(xx * (y**2 @ weights), np.finfo(float).tiny)
    return np.where(xy > 0, left, np.inf)


def leave_one_out(observations: Observations, left_out: Sequence[int]) -> FloatArray:
    """Return, for each of the networks ``left_out``, its excess over its prediction by all the others.

    As a fraction of that prediction, shape (len(left_out),).

    Raises:
        DeviceError: a line does not rise.
    """
    residuals = np.empty(len(left_out))
    for position, network in enumerate(left_out):
        line = fit_line(observations.without(network))
        predicted = line.slope * observations.sums(line.conversion_ns)[network] + line.intercept_ms
        residuals[position] = observations.measured[network] / predicted - 1
    return residuals


def conformal_margin(residuals: tuple[float, ...], level: float) -> tuple[float, float]:
    """Return by what fraction to exceed a prediction, and the level that this really has.

    With n residuals that are exchangeable with what is to come, the ceil((n + 1) * level)-th smallest is
    exceeded with a probability of at most 1 - level. Where n is too small for that, the largest has to do, and
    its level is n / (n + 1). A bound below the prediction would be of no use, so the margin is not negative.

    Raises:
        InputError: no residuals, or a level that is not between 0 and 1.
    """
    if not (0 < level < 1 and residuals):
        raise InputError(f"an upper bound needs calibration networks and a level between 0 and 1, not {level}")
    count = len(residuals)
    # Just above a whole number, floating point must not make one more of it: 20 * 0.95 is 19.
    rank = math.ceil((count + 1) * level - 1e-9)
    reached = level if rank <= count else count / (count + 1)
    return max(sorted(residuals)[min(rank, count) - 1], 0.0), reached
