"""Upper bounds by conformal prediction: by how much to exceed a prediction so that most latencies keep to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

from cars_hw.errors import InputError


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
