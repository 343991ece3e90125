"""Offspring by mutation, crossover and fresh draws: all of the space and within the limits, none twice.

Mutation and crossover change nodes one by one, so a child may leave a cell without a reader even if neither parent
does. Where the space has a network, such a child is discarded like one that exceeds a limit: it would be a network
with fewer cells, and cheap for that reason only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cars_hw.config.search import VariationRates
from cars_hw.space.genotype import NODES, Genotype
from cars_hw.space.search_space import CELL_NAMES, SearchSpace, replace_node

RETRIES = 100
"""The number of draws that are discarded before draws are repaired."""


def mutate(parent: Genotype, space: SearchSpace, rate: float, rng: np.random.Generator) -> Genotype:
    """Redraw each node of both cells with probability ``rate``."""
    child = parent
    for name in CELL_NAMES:
        for number in range(NODES):
            if rng.random() < rate:
                child = replace_node(child, name, number, space.sample_node(number, rng))
    return child


def crossover(first: Genotype, second: Genotype, rate: float, rng: np.random.Generator) -> Genotype:
    """Take each node of both cells from ``second`` with probability ``rate``, else from ``first``."""
    child = first
    for name in CELL_NAMES:
        for number in range(NODES):
            if rng.random() < rate:
                child = replace_node(child, name, number, getattr(second, name)[number])
    return child


def repair(
    genotype: Genotype, anchor: Genotype, allowed: Callable[[Genotype], bool], rng: np.random.Generator
) -> Genotype:
    """Replace nodes, in random order, by those of ``anchor`` until ``genotype`` is allowed.

    This ends after at most eight nodes, with ``anchor`` itself.
    """
    places = [(name, number) for name in CELL_NAMES for number in range(NODES)]
    for index in rng.permutation(len(places)):
        if allowed(genotype):
            break
        name, number = places[int(index)]
        genotype = replace_node(genotype, name, number, getattr(anchor, name)[number])
    return genotype


def offspring(
    parents: Sequence[Genotype],
    count: int,
    space: SearchSpace,
    rates: VariationRates,
    rng: np.random.Generator,
    *,
    allowed: Callable[[Genotype], bool] = lambda _: True,
    anchor: Genotype | None = None,
) -> list[Genotype]:
    """Return at most ``count`` new genotypes, all allowed, none among ``parents`` and none twice.

    None leaves a cell of the space's network without a reader. A draw that does, or that is not allowed or not new,
    is discarded. After :data:`RETRIES` of them in a row, the next
    :data:`RETRIES` draws are repaired towards ``anchor``, an allowed genotype. Fewer than ``count`` are returned
    only when the allowed part of the space seems exhausted. Without parents all are fresh draws.
    """

    def proposable(genotype: Genotype) -> bool:
        return space.reads_every_cell(genotype) and allowed(genotype)

    taken = {parent.key() for parent in parents}
    children: list[Genotype] = []
    for _ in range(count):
        for attempt in range(2 * RETRIES):
            child = _draw(parents, space, rates, rng)
            if attempt >= RETRIES and anchor is not None:
                child = repair(child, anchor, proposable, rng)
            if child.key() not in taken and proposable(child):
                taken.add(child.key())
                children.append(child)
                break
        else:
            break
    return children


def _draw(
    parents: Sequence[Genotype], space: SearchSpace, rates: VariationRates, rng: np.random.Generator
) -> Genotype:
    way = rng.random()
    if not parents or way < rates.random:
        return space.sample(rng)
    if way < rates.random + rates.mutation or len(parents) < 2:
        return mutate(parents[int(rng.integers(len(parents)))], space, rates.node, rng)
    first, second = rng.choice(len(parents), size=2, replace=False)
    return crossover(parents[int(first)], parents[int(second)], rates.node, rng)
