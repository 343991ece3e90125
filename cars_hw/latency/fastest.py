"""A search for the genotype with the smallest latency."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from cars_hw.errors import GenotypeError
from cars_hw.space.genotype import Cell, Genotype, Node
from cars_hw.space.search_space import CELL_NAMES, CellName, SearchSpace, replace_node

Choices = dict[tuple[CellName, int], list[Node]]
"""By cell and number of the node."""

DRAWS: Final = 100
"""So many random genotypes are tried as the start of a descent."""

AVOIDABLE: Final = (None, 0, 1)
"""The input of a cell that its edges keep away from, if any."""


def fastest_genotype(
    space: SearchSpace, bound: Callable[[Genotype], float], rng: np.random.Generator, starts: int = 4
) -> Genotype:
    """Return the genotype of ``space`` whose ``bound`` is smallest.

    If the space has a network, the genotype leaves none of its cells without a reader.

    The search is a coordinate descent over whole nodes. It is exact from any start if the bound is a sum over
    nodes. A network's latency is such a sum if the inputs that each cell uses are fixed. The gain of leaving an
    input unused appears only when its last edge is removed. Therefore one descent is made for each combination of
    avoided inputs, and ``starts`` descents (at least one) begin at random genotypes.

    Raises:
        GenotypeError: every genotype that was tried leaves a cell without a reader.
    """
    best: tuple[float, Genotype] | None = None
    for avoided in itertools.product(AVOIDABLE, repeat=2):
        choices: Choices = {
            (name, number): _choices(space, number, avoid)
            for name, avoid in zip(CELL_NAMES, avoided, strict=True)
            for number in range(space.nodes)
        }
        if not all(choices.values()):
            continue
        for _ in range(max(starts, 1) if avoided == (None, None) else 1):
            start = _start(space, choices, rng)
            if start is None:
                continue
            found = _descend(space, start, choices, bound)
            if best is None or found[0] < best[0]:
                best = found
    if best is None:
        raise GenotypeError("no genotype of the space was found that leaves no cell without a reader")
    return best[1]


def _choices(space: SearchSpace, number: int, avoid: int | None) -> list[Node]:
    nodes: Iterable[Node] = space.node_choices(number)
    return [node for node in nodes if not any(edge.is_real and edge.source == avoid for edge in node)]


def _start(space: SearchSpace, choices: Choices, rng: np.random.Generator) -> Genotype | None:
    """Draw a genotype of the space; None if none of :data:`DRAWS` draws is one."""
    for _ in range(DRAWS):
        cells: list[Cell] = []
        for name in CELL_NAMES:
            options = [choices[name, number] for number in range(space.nodes)]
            cells.append(tuple(nodes[int(rng.integers(len(nodes)))] for nodes in options))
        genotype = space.genotype(*cells)
        if space.reads_every_cell(genotype):
            return genotype
    return None


def _descend(
    space: SearchSpace, genotype: Genotype, choices: Choices, bound: Callable[[Genotype], float]
) -> tuple[float, Genotype]:
    """Give every node in turn its best choice until none can be bettered."""
    least = bound(genotype)
    improved = True
    while improved:
        improved = False
        for name in CELL_NAMES:
            for number in range(space.nodes):
                for node in choices[name, number]:
                    changed = replace_node(genotype, name, number, node)
                    value = bound(changed)
                    if value < least and space.reads_every_cell(changed):
                        least, genotype, improved = value, changed, True
    return least, genotype
