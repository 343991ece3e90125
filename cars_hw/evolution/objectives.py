"""The costs that a search minimises beside the error, and their limits: plain functions of an architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cars_hw.space.architecture import Architecture


@dataclass(frozen=True)
class CostObjective:
    """A cost that is minimised, and its limit if it has one.

    The search compares architectures by ``value``, in ``unit``. ``limit``, in the same unit, is compared with
    ``bound``, an upper bound of the true cost; without a bound it is compared with the value. The search never
    evaluates an architecture over the limit; it trains one only if a uniform draw selects it, as in the warm-up.
    ``at_least``, in the same unit, is the smallest value of interest: cheaper architectures are not evaluated.
    """

    name: str
    unit: str
    value: Callable[[Architecture], float]
    bound: Callable[[Architecture], float] | None = None
    limit: float | None = None
    at_least: float | None = None

    def upper(self, architecture: Architecture) -> float:
        """Return the figure that is compared with the limit, in ``unit``."""
        return (self.bound or self.value)(architecture)

    def allows(self, architecture: Architecture) -> bool:
        """Return whether ``architecture`` keeps to the limit and to ``at_least``."""
        return self.excess(architecture) <= 1

    def excess(self, architecture: Architecture) -> float:
        """Return the ratio by which ``architecture`` misses the limit or ``at_least``, the larger of both.

        It is at most 1 if the architecture is allowed, and 0 if neither is given.
        """
        over = 0.0 if self.limit is None else self.upper(architecture) / self.limit
        if self.at_least is None:
            return over
        value = self.value(architecture)
        return max(over, self.at_least / value) if value > 0 else math.inf


def feasible(objectives: Sequence[CostObjective], architecture: Architecture) -> bool:
    """Return whether every objective allows ``architecture``."""
    return all(objective.allows(architecture) for objective in objectives)


def excess(objectives: Sequence[CostObjective], architecture: Architecture) -> float:
    """Return the largest ratio by which a limit is missed: at most 1 if feasible, 0 without limits."""
    return max((objective.excess(architecture) for objective in objectives), default=0.0)
