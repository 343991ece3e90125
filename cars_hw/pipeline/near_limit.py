"""An architecture that uses most of a limit, for a final stage whose other networks do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from cars_hw.evolution.objectives import CostObjective, excess, feasible
from cars_hw.latency import fastest_genotype
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

WELL_USED: Final = 0.85
"""A network that uses at least this share of a budget leaves nothing to explain."""

AIM: Final = 0.95
"""A descent goes towards this share of a limit."""

DRAWS: Final = 500
"""So many random architectures are tried if no known genotype is near the limit at any size."""

DESCENTS: Final = 4
"""Descents begin at so many sizes if no draw is near the limit either."""


def limit_use(objectives: Sequence[CostObjective], architecture: Architecture) -> float:
    """Return the largest share of a limit of ``objectives`` that ``architecture`` uses; 0 without a limit."""
    shares = [one.upper(architecture) / one.limit for one in objectives if one.limit is not None]
    return max(shares, default=0.0)


def uses_most(objectives: Sequence[CostObjective], architecture: Architecture) -> bool:
    """Return whether all ``objectives`` allow ``architecture``, and it uses :data:`WELL_USED` of a limit."""
    return limit_use(objectives, architecture) >= WELL_USED and feasible(objectives, architecture)


def near_limit(
    space: ArchitectureSpace,
    objectives: Sequence[CostObjective],
    genotypes: Sequence[Genotype],
    rng: np.random.Generator,
    reached: Callable[[], bool] | None = None,
) -> Architecture | None:
    """Return an architecture of ``space`` that uses most of a limit of ``objectives``, see :func:`uses_most`.

    It has the first of ``genotypes`` that has such a size, at the size at which it uses the most. If none of them
    has one, random architectures are tried, and then descents towards the limit at some sizes. Returns None if the
    slowest network of the space is far below every limit, or if no such architecture was found. ``reached`` tells
    the former, see :func:`reaches`; the answer takes seconds, and a caller may know it.
    """
    if all(one.limit is None for one in objectives):
        return None
    for genotype in genotypes:
        sized = [Architecture(genotype, network) for network in _sizes(space)]
        found = [one for one in sized if space.proposable(one) and uses_most(objectives, one)]
        if found:
            return max(found, key=lambda one: limit_use(objectives, one))
    if not (reaches(space, objectives, rng) if reached is None else reached()):
        return None
    drawn = (space.sample(rng) for _ in range(DRAWS))
    near = next((one for one in drawn if uses_most(objectives, one)), None)
    return near or _descended(space, objectives, rng)


def reaches(space: ArchitectureSpace, objectives: Sequence[CostObjective], rng: np.random.Generator) -> bool:
    """Return whether the slowest network of the largest size uses most of a limit, or exceeds it."""
    largest = space.largest
    slowest = fastest_genotype(
        space.cells_for(largest), lambda genotype: -limit_use(objectives, Architecture(genotype, largest)), rng, 1
    )
    return limit_use(objectives, Architecture(slowest, largest)) >= WELL_USED


def _sizes(space: ArchitectureSpace) -> list[NetworkSpec]:
    """Return the networks of ``space`` whose cells are divided evenly among the stages."""
    return [space.network] if space.sizes is None else list(space.sizes.networks(space.network))


def _descended(
    space: ArchitectureSpace, objectives: Sequence[CostObjective], rng: np.random.Generator
) -> Architecture | None:
    """Return the end of a descent towards the limit, of the first size from which one ends near it.

    The sizes at which a random genotype comes nearest to the limit come first.
    """
    aim = math.log(AIM)

    def distance(genotype: Genotype, network: NetworkSpec) -> float:
        return abs(math.log(max(excess(objectives, Architecture(genotype, network)), 1e-9)) - aim)

    first = space.cells_for(space.smallest).sample(rng)
    for network in sorted(_sizes(space), key=lambda one: distance(first, one))[:DESCENTS]:
        genotype = fastest_genotype(space.cells_for(network), partial(distance, network=network), rng, 1)
        if uses_most(objectives, Architecture(genotype, network)):
            return Architecture(genotype, network)
    return None
