"""Which cells a network's logits depend on.

A network runs only what its logits depend on. A cell that no edge joins to one of its inputs does without that
input's preprocessing, and whole cells can fall away.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cars_hw.space.genotype import Cell, Genotype
from cars_hw.space.network_spec import NetworkSpec


class Usage(NamedTuple):
    """Which of its two inputs a cell has a real edge from, and whether it has a node without any."""

    first: bool
    second: bool
    empty_node: bool


Usages = tuple[Usage, Usage]
"""Of the normal and of the reduction cell."""


@lru_cache(maxsize=4096)
def usage_of(cell: Cell) -> Usage:
    """Return what ``cell`` takes from its inputs."""
    sources = {edge.source for node in cell for edge in node if edge.is_real}
    return Usage(0 in sources, 1 in sources, not all(node[0].is_real or node[1].is_real for node in cell))


def usages_of(genotype: Genotype) -> Usages:
    """Return what the two cells of ``genotype`` take from their inputs."""
    return usage_of(genotype.normal), usage_of(genotype.reduce)


def live_states(spec: NetworkSpec, usages: Usages) -> set[int]:
    """Return the indices of the cells that the logits depend on; -2 and -1 are the stem's two states."""
    live = {spec.layers - 1}
    for index in reversed(range(spec.layers)):
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
    usage = usages[index in spec.reductions]
    return [index - back for back, used in ((2, usage.first), (1, usage.second)) if used]
