"""The costs that a search minimises beside the error, and their limits: plain functions of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cars_hw.space.architecture import Architecture


@dataclass(frozen=True)
class CostObjective:
    """A cost that is minimised, and its limit if it has one.

    The search compares architectures by ``value``, in ``unit``. ``limit``, in the same unit, is compared with
    ``bound``, an upper bound of the true cost; without a bound it is compared with the value. The search
    never evaluates an architecture over the limit; it trains one only if a uniform draw selects it, as in the
    warm-up.
    """

    name: str
    unit: str
    value: Callable[[Architecture], float]
    bound: Callable[[Architecture], float] | None = None
    limit: float | None = None

    def upper(self, architecture: Architecture) -> float:
        """Return the figure that is compared with the limit, in ``unit``."""
        return (self.bound or self.value)(architecture)

    def allows(self, architecture: Architecture) -> bool:
        """Return whether ``architecture`` keeps to the limit; True without a limit."""
        return self.limit is None or self.upper(architecture) <= self.limit


def feasible(objectives: Sequence[CostObjective], architecture: Architecture) -> bool:
    """Return whether ``architecture`` keeps to every limit."""
    return all(objective.allows(architecture) for objective in objectives)


def excess(objectives: Sequence[CostObjective], architecture: Architecture) -> float:
    """Return the largest ratio of an upper bound to its limit: at most 1 if feasible, 0 without limits."""
    limits = [objective for objective in objectives if objective.limit is not None]
    return max((objective.upper(architecture) / (objective.limit or 1.0) for objective in limits), default=0.0)
