"""Offspring by mutation, crossover and fresh draws: all different, in the space and within the limits.

Mutation and crossover change single choices, such as the nodes of cells, so a child may leave a cell without a
reader even if its parents do not. Such a child is discarded like one that exceeds a limit: it would be a network
with fewer cells, and cheap for that reason only. In a space of several sizes, the genotype, the size, or both of
them vary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cars_hw.config.search import VariationRates
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace, Place

RETRIES = 100
"""The number of draws that are discarded before draws are repaired."""


def mutate(parent: Genotype, space: GenotypeSpace, rate: float, rng: np.random.Generator) -> Genotype:
    """Redraw the choice at each place, such as each node of both cells, with probability ``rate``."""
    child = parent
    for place in space.places():
        if rng.random() < rate:
            child = space.with_choice(child, place, space.draw(place, rng))
    return child


def crossover(
    first: Genotype, second: Genotype, space: GenotypeSpace, rate: float, rng: np.random.Generator
) -> Genotype:
    """Take the choice at each place from ``second`` with probability ``rate``, else from ``first``."""
    child = first
    for place in space.places():
        if rng.random() < rate:
            child = space.with_choice(child, place, space.choice_of(second, place))
    return child


def repair(
    architecture: Architecture,
    anchor: Architecture,
    space: ArchitectureSpace,
    allowed: Callable[[Architecture], bool],
    rng: np.random.Generator,
) -> Architecture:
    """Replace choices, channels, stages and resolution, in random order, by those of ``anchor``.

    This ends as soon as the architecture is allowed. After all places and all parts of the size it is ``anchor``.
    """
    parts: list[Place] = list(space.cells_for(architecture.network).places())
    if space.sizes is not None:
        parts += ["channels", "stages"]
    if space.varies_resolution:
        parts.append("resolution")
    for index in rng.permutation(len(parts)):
        if allowed(architecture):
            break
        architecture = _replaced(architecture, anchor, parts[int(index)], space)
    return architecture


def _replaced(
    architecture: Architecture, anchor: Architecture, part: Place, space: ArchitectureSpace
) -> Architecture:
    """Return ``architecture`` with ``part`` of ``anchor``: a part of the size, or the choice at a place."""
    genotype, network = architecture
    if part == "channels":
        return Architecture(genotype, space.with_channels(network, anchor.network.channels))
    if part == "stages":
        return Architecture(genotype, space.with_stages(network, anchor.network.stages))
    if part == "resolution":
        return Architecture(genotype, space.with_resolution(network, anchor.network.resolution))
    cells = space.cells_for(network)
    return Architecture(cells.with_choice(genotype, part, cells.choice_of(anchor.genotype, part)), network)


def offspring(
    parents: Sequence[Architecture],
    count: int,
    space: ArchitectureSpace,
    rates: VariationRates,
    rng: np.random.Generator,
    *,
    allowed: Callable[[Architecture], bool] = lambda _: True,
    anchor: Architecture | None = None,
) -> list[Architecture]:
    """Return at most ``count`` new architectures of ``space``: all allowed, all different, none among ``parents``.

    A draw is discarded if it leaves a cell without a reader, is not allowed, or is not new. After :data:`RETRIES`
    discarded draws in a row, the next :data:`RETRIES` draws are repaired towards ``anchor``, an allowed
    architecture. If these are discarded, too, the allowed part of the space seems exhausted, and fewer than
    ``count`` are returned. Without parents, all are fresh draws.
    """

    def proposable(architecture: Architecture) -> bool:
        return space.proposable(architecture) and allowed(architecture)

    taken = {parent.key() for parent in parents}
    children: list[Architecture] = []
    for _ in range(count):
        for attempt in range(2 * RETRIES):
            child = _draw(parents, space, rates, rng)
            if attempt >= RETRIES and anchor is not None:
                child = repair(child, anchor, space, proposable, rng)
            if child.key() not in taken and proposable(child):
                taken.add(child.key())
                children.append(child)
                break
        else:
            break
    return children


def _draw(
    parents: Sequence[Architecture], space: ArchitectureSpace, rates: VariationRates, rng: np.random.Generator
) -> Architecture:
    way = rng.random()
    if not parents or way < rates.random:
        return space.sample(rng)
    if way < rates.random + rates.mutation or len(parents) < 2:
        parent = parents[int(rng.integers(len(parents)))]
        cells, size = _what_varies(space, rng)
        return Architecture(
            mutate(parent.genotype, space.cells_for(parent.network), rates.node, rng) if cells else parent.genotype,
            space.mutate_size(parent.network, rates.node, rng) if size else parent.network,
        )
    first, second = (parents[int(index)] for index in rng.choice(len(parents), size=2, replace=False))
    cells, size = _what_varies(space, rng)
    return Architecture(
        crossover(first.genotype, second.genotype, space.cells_for(first.network), rates.node, rng)
        if cells
        else first.genotype,
        space.cross_sizes(first.network, second.network, rates.node, rng) if size else first.network,
    )


def _what_varies(space: ArchitectureSpace, rng: np.random.Generator) -> tuple[bool, bool]:
    """Draw whether the genotype and the size vary. Over sizes, one, the other and both are equally likely."""
    if space.sizes is None:
        return True, False
    return ((True, False), (False, True), (True, True))[int(rng.integers(3))]
