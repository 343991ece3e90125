"""Which whole networks the predictor is fitted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cars_hw.errors import InputError
from cars_hw.space.genotype import Genotype
from cars_hw.space.operations import NONE
from cars_hw.space.search_space import SearchSpace

DRAWS = 400


def spread_genotypes(
    space: SearchSpace,
    latency: Callable[[Genotype], float],
    count: int,
    rng: np.random.Generator,
    *,
    apart_from: Genotype | None = None,
) -> list[Genotype]:
    """Return ``count`` distinct genotypes to calibrate on, none of them ``apart_from``, fastest first.

    Genotypes that are drawn uniformly crowd in the middle of the range of ``latency``, while a search goes to where
    the budget is. So one half is drawn, and the other is spread evenly over the range; candidates for it come
    from spaces of a few random operations as well, which reach further to both ends.

    Raises:
        InputError: the space has too few genotypes.
    """
    candidates = _candidates(space, rng, apart_from)
    if len(candidates) < count:
        raise InputError(
            f"the search space has too few architectures to calibrate on: {len(candidates)} of {count}"
        )
    # Every other candidate, from the first, is drawn from the whole space.
    chosen = candidates[: 2 * (count // 2) : 2]
    ranked = sorted(
        ((latency(genotype), index) for index, genotype in enumerate(candidates) if genotype not in chosen)
    )
    for target in np.linspace(ranked[0][0], ranked[-1][0], count - len(chosen)):
        nearest = min(range(len(ranked)), key=lambda position: abs(ranked[position][0] - target))
        chosen.append(candidates[ranked.pop(nearest)[1]])
    return sorted(chosen, key=latency)


def _candidates(space: SearchSpace, rng: np.random.Generator, apart_from: Genotype | None) -> list[Genotype]:
    """Return up to :data:`DRAWS` genotypes, all different, by turns of the whole space and of a part of it."""
    found: dict[object, Genotype] = {}
    for _ in range(2 * DRAWS):
        source = _part_of(space, rng) if len(found) % 2 else space
        genotype = source.sample(rng)
        if apart_from is None or genotype.key() != apart_from.key():
            found.setdefault(genotype.key(), genotype)
        if len(found) == DRAWS:
            break
    return list(found.values())


def _part_of(space: SearchSpace, rng: np.random.Generator) -> SearchSpace:
    """Return the space of some of the operations, at least one of them real."""
    real = [name for name in space.operations if name != NONE]
    kept = rng.choice(len(real), size=int(rng.integers(1, len(real) + 1)), replace=False)
    absent = (NONE,) if NONE in space.operations and rng.integers(2) else ()
    return SearchSpace((*absent, *(real[index] for index in sorted(kept))))
