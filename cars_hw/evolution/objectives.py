"""What a search minimises beside the error, and what it must not exceed: plain functions of a genotype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cars_hw.space.genotype import Genotype


@dataclass(frozen=True)
class CostObjective:
    """A cost that is minimised, and its budget where there is one.

    ``value`` is what the search compares, in ``unit``. ``limit``, in the same unit, is held against
    ``bound``, the value that the true cost does not exceed at the stated level; without a bound it is held
    against the value. A genotype over its limit is never trained or evaluated.
    """

    name: str
    unit: str
    value: Callable[[Genotype], float]
    bound: Callable[[Genotype], float] | None = None
    limit: float | None = None

    def upper(self, genotype: Genotype) -> float:
        """Return what is held against the limit, in ``unit``."""
        return (self.bound or self.value)(genotype)

    def allows(self, genotype: Genotype) -> bool:
        """Tell whether ``genotype`` keeps to the limit; without one all do."""
        return self.limit is None or self.upper(genotype) <= self.limit


def feasible(objectives: Sequence[CostObjective], genotype: Genotype) -> bool:
    """Tell whether ``genotype`` keeps to every limit."""
    return all(objective.allows(genotype) for objective in objectives)


def excess(objectives: Sequence[CostObjective], genotype: Genotype) -> float:
    """Return the largest of the upper bounds as multiples of their limits: at most 1 is feasible.

    Without any limit this is 0.
    """
    limits = [objective for objective in objectives if objective.limit is not None]
    return max((objective.upper(genotype) / (objective.limit or 1.0) for objective in limits), default=0.0)
