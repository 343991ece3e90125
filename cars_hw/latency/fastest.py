"""A search for the genotype with the smallest latency."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Final

import numpy as np

from cars_hw.errors import GenotypeError
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import Choices, GenotypeSpace

DRAWS: Final = 100
"""So many random genotypes are tried as the start of a descent."""


def fastest_genotype(
    space: GenotypeSpace, bound: Callable[[Genotype], float], rng: np.random.Generator, starts: int = 4
) -> Genotype:
    """Return the genotype of ``space`` whose ``bound`` is smallest.

    If the space has a network, the genotype fits it: it leaves none of its cells without a reader.

    The search is a coordinate descent over the places of a genotype, such as the nodes of cells. It is exact from
    any start if the bound is a sum over places. In a space of cells it is such a sum only within some regions, see
    :meth:`~cars_hw.space.search_space.SearchSpace.regions`. Therefore one descent is made in each region, and in
    the whole space ``starts`` descents (at least one) begin at random genotypes.

    Raises:
        GenotypeError: no genotype that was tried fits the network.
    """
    best: tuple[float, Genotype] | None = None
    for number, choices in enumerate(space.regions()):
        for _ in range(max(starts, 1) if number == 0 else 1):
            start = _start(space, choices, rng)
            if start is None:
                continue
            found = _descend(space, start, choices, bound)
            if best is None or found[0] < best[0]:
                best = found
    if best is None:
        raise GenotypeError("no genotype of the space was found that leaves no cell without a reader")
    return best[1]


def _start(space: GenotypeSpace, choices: Choices, rng: np.random.Generator) -> Genotype | None:
    """Draw a genotype of the space; None if none of :data:`DRAWS` draws is one."""
    for _ in range(DRAWS):
        genotype = space.of_choices([options[int(rng.integers(len(options)))] for options in choices.values()])
        if space.fits(genotype):
            return genotype
    return None


def _descend(
    space: GenotypeSpace, genotype: Genotype, choices: Choices, bound: Callable[[Genotype], float]
) -> tuple[float, Genotype]:
    """Take in turn the best choice at every place until none can be bettered.

    A place needs no second look before a choice at another place has changed.
    """
    least, settled = bound(genotype), 0
    for place, options in cycle(choices.items()):
        before = least
        for choice in options:
            changed = space.with_choice(genotype, place, choice)
            value = bound(changed)
            if value < least and space.fits(changed):
                least, genotype = value, changed
        settled = 1 if least < before else settled + 1
        if settled >= len(choices):
            break
    return least, genotype
