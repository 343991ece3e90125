"""Genotypes that reach every branch of an export."""

from __future__ import annotations

from typing import Final

from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import Edge, Genotype

_NAMES: Final = FAMILIES["darts"].real_operations
_ALL: Final = tuple(
    (Edge(_NAMES[number], 0), Edge(_NAMES[(number + 1) % len(_NAMES)], 1)) for number in range(0, 8, 2)
)
_EMPTY: Final = (Edge("none", 0), Edge("none", 1))
_CELL: Final = (_EMPTY, (Edge("max_pool_3x3", 0), Edge("sep_conv_3x3", 1)), _EMPTY, _ALL[0])

EVERY_OPERATION: Final = Genotype(_ALL, _ALL)
"""Both cells have every operation."""

EMPTY_NODES_FIRST: Final = Genotype(_CELL, _CELL)
"""The first and the third node of both cells have no operation."""

ONE_NODE: Final = Genotype((_EMPTY, _EMPTY, _ALL[1], _EMPTY), (_EMPTY, _EMPTY, _ALL[0], _EMPTY))
"""Only one node of a cell has operations."""
