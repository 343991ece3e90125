"""Which cells a network's logits depend on.

A network runs only what its logits depend on. A cell that no edge joins to one of its inputs does without that
input's preprocessing, and whole cells can fall away.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cars_hw.space.genotype import NODES, Cell, Genotype, States
from cars_hw.space.network_spec import NetworkSpec


class Usage(NamedTuple):
    """Which of its two inputs a cell reads, and whether it joins a node without a real edge.

    ``parts`` is the number of states that make its output, side by side.
    """

    first: bool
    second: bool
    empty_node: bool
    parts: int = NODES


Usages = tuple[Usage, Usage]
"""Of the normal and of the reduction cell."""


@lru_cache(maxsize=4096)
def usage_of(cell: Cell, joined: States | None = None) -> Usage:
    """Return what ``cell`` takes from its inputs, if its output is made of ``joined``, by default of all nodes."""
    joined = tuple(range(2, 2 + len(cell))) if joined is None else joined
    sources = {edge.source for node in cell for edge in node if edge.is_real}.union(joined)
    empty = any(not (cell[state - 2][0].is_real or cell[state - 2][1].is_real) for state in joined if state >= 2)
    return Usage(0 in sources, 1 in sources, empty, len(joined))


def usages_of(genotype: Genotype) -> Usages:
    """Return what the two cells of ``genotype`` take from their inputs."""
    return (
        usage_of(genotype.normal, genotype.joined(reduction=False)),
        usage_of(genotype.reduce, genotype.joined(reduction=True)),
    )


def parts_of(usages: Usages) -> tuple[int, int]:
    """Return how many states the outputs of the two cells are made of."""
    return usages[0].parts, usages[1].parts


def live_states(spec: NetworkSpec, usages: Usages) -> set[int]:
    """Return the indices of the cells that the logits depend on; -2 and -1 are the stem's two states.

    Where two cells are a part of the stem, they make these states, and -3 is the image that both read.
    """
    live = {spec.layers - 1}
    for index in reversed(range(-2 if spec.stem == "cells" else 0, spec.layers)):
        if index in live:
            live.update(inputs_read(spec, usages, index))
    return live


def unread_cells(spec: NetworkSpec, genotype: Genotype) -> tuple[int, ...]:
    """Return the indices of the cells that the logits of ``genotype`` under ``spec`` do not depend on."""
    return _unread(spec, usages_of(genotype))


@lru_cache(maxsize=4096)
def _unread(spec: NetworkSpec, usages: Usages) -> tuple[int, ...]:
    live = live_states(spec, usages)
    return tuple(index for index in range(spec.layers) if index not in live)


def inputs_read(spec: NetworkSpec, usages: Usages, index: int) -> list[int]:
    """Return the states that the cell ``index`` reads: those of the one and of the two before."""
    usage = usages[index < 0 or index in spec.reductions]
    return [max(index - back, -3) for back, used in ((2, usage.first), (1, usage.second)) if used]
