"""Which whole networks the predictor is fitted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cars_hw.errors import InputError
from cars_hw.genotype import Genotype
from cars_hw.space import SearchSpace

DRAWS = 400


def spread_genotypes(
    space: SearchSpace, latency: Callable[[Genotype], float], count: int, rng: np.random.Generator
) -> list[Genotype]:
    """Return ``count`` distinct genotypes whose ``latency`` is spread evenly over the range, fastest first.

    Genotypes that are drawn uniformly crowd in the middle, while a search goes to where the budget is; so half
    of the candidates come from spaces of a few random operations, which reach further to both ends.

    Raises:
        InputError: the space has too few genotypes.
    """
    candidates = _candidates(space, rng)
    if len(candidates) < count:
        raise InputError(
            f"the search space has too few architectures to calibrate on: {len(candidates)} of {count}"
        )
    ranked = sorted(((latency(genotype), genotype) for genotype in candidates), key=lambda pair: pair[0])
    chosen = []
    for target in np.linspace(ranked[0][0], ranked[-1][0], count):
        nearest = min(range(len(ranked)), key=lambda index: abs(ranked[index][0] - target))
        chosen.append(ranked.pop(nearest))
    return [genotype for _, genotype in sorted(chosen, key=lambda pair: pair[0])]


def _candidates(space: SearchSpace, rng: np.random.Generator) -> list[Genotype]:
    """Return up to :data:`DRAWS` genotypes, all different."""
    found: dict[object, Genotype] = {}
    for draw in range(2 * DRAWS):
        source = space if draw % 2 else _part_of(space, rng)
        genotype = source.sample(rng)
        found.setdefault(genotype.key(), genotype)
        if len(found) == DRAWS:
            break
    return list(found.values())


def _part_of(space: SearchSpace, rng: np.random.Generator) -> SearchSpace:
    """Return the space of some of the operations, at least one of them real."""
    real = [name for name in space.operations if name != "none"]
    kept = rng.choice(len(real), size=int(rng.integers(1, len(real) + 1)), replace=False)
    absent = ("none",) if "none" in space.operations and rng.integers(2) else ()
    return SearchSpace((*absent, *(real[index] for index in sorted(kept))))
