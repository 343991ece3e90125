"""Spaces that widen in the course of a training: the first draws have few choices, and later ones have all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from cars_hw.config.search import Widening
from cars_hw.errors import InputError
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.operations import NONE, OPERATIONS
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.size_grid import SizeGrid

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

BY_SIZE: Final = ("sizes", "both")
BY_OPERATION: Final = ("operations", "both")


def require_widening(space: ArchitectureSpace, widening: Widening) -> None:
    """Check that ``space`` has what ``widening`` begins with a part of.

    Raises:
        InputError: the draws are to widen by size, and there is one size, or by operation in a space without cells.
    """
    if space.sizes is None and widening in BY_SIZE:
        raise InputError(
            f"the draws cannot widen by size (widening '{widening}'): the search has a single size",
            remedy="widen-operations",
        )
    if widening in BY_OPERATION and not isinstance(space.cells, SearchSpace):
        raise InputError(f"the draws cannot widen by operation (widening '{widening}'): the networks have no cells")


def widened(space: ArchitectureSpace, widening: Widening, epoch: int, epochs: int) -> ArchitectureSpace:
    """Return the part of ``space`` from which ``epoch`` of ``epochs`` draws, counted from 0.

    The part grows in the first half of the epochs, the half rounded down, and is the whole ``space`` in the others.
    Each list of choices begins with one of them and grows by about as many an epoch. By size, these are the numbers
    of channels and of cells and the resolutions, the largest ones first (progressive shrinking, Cai et al.,
    Once-for-All, 2020). By operation, they are those of the edges, those with the most weights first and ``none``
    last (from few operations to all: Guo et al., curriculum search, 2020).
    """
    growing = epochs // 2
    if widening == "none" or epoch >= growing:
        return space
    cells, sizes = space.cells, space.sizes
    if widening in BY_OPERATION and isinstance(cells, SearchSpace):
        first = _most_weights_first(cells.operations, space.largest.channels)
        kept = first[: _number(len(first), epoch, growing)]
        # In the order of the space, which draws count by.
        cells = replace(cells, operations=tuple(one for one in cells.operations if one in kept))
    if widening in BY_SIZE and sizes is not None:
        sizes = SizeGrid(
            _largest(sizes.channels, epoch, growing),
            _largest(sizes.layers, epoch, growing),
            _largest(sizes.resolutions, epoch, growing),
        )
    return ArchitectureSpace(cells, space.network, sizes)


def widening_draws(
    space: ArchitectureSpace, widening: Widening, epochs: int, count: int, rng: np.random.Generator
) -> Iterator[Architecture]:
    """Yield ``count`` architectures as ``epochs`` of a training draw them, as many from each epoch."""
    for number in range(count):
        yield widened(space, widening, number * epochs // count, epochs).sample(rng)


def _largest(values: tuple[T, ...], epoch: int, growing: int) -> tuple[T, ...]:
    return values[len(values) - _number(len(values), epoch, growing) :] if values else values


def _number(choices: int, epoch: int, growing: int) -> int:
    """Return how many of so many ``choices`` there are in ``epoch``, if there are all of them after ``growing``."""
    return 1 + (choices - 1) * epoch // growing


def _most_weights_first(operations: Sequence[str], channels: int) -> list[str]:
    shape = Shape(channels, 1, 1)
    weights = {name: OPERATIONS[name].cost(shape, 1).trained_parameters for name in operations}
    return sorted(operations, key=lambda name: (name == NONE, -weights[name]))
