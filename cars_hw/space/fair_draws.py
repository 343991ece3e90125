"""Draws of architectures in which every operation on every edge has its turn equally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cars_hw.errors import GenotypeError
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.block_space import BlockSpace
from cars_hw.space.genotype import Edge, Genotype, Node
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.operations import NONE
from cars_hw.space.search_space import CELL_NAMES, CellName, SearchSpace

if TYPE_CHECKING:
    import numpy as np

Card = TypeVar("Card")

TRIES: Final = 20
"""After so many deals that leave a cell without a reader, every deck gets a new round of cards."""


class FairDraws:
    """Draws from ``space``, as strict fairness asks for (Chu et al., FairNAS, 2021), for cells of a family.

    In cells, each node has a deck of the pairs of its inputs, and each input of a node a deck of the operations. A
    block has a deck of its choices. A round of a deck has every card once, in random order, and a new round begins
    when a deck is empty. A draw that leaves a cell without a reader goes back into the decks. The numbers of draws
    of two operations on an edge then differ by a few, however many draws there are. Sizes are drawn as by
    :meth:`ArchitectureSpace.sample`.

    ``space`` may be replaced by one with further operations or sizes. A further operation has its first turn in the
    next round of a deck.
    """

    def __init__(self, space: ArchitectureSpace) -> None:
        self.space = space
        self._pairs: dict[str, list[list[int]]] = {}
        self._operations: dict[str, list[str]] = {}

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return the next architecture.

        Raises:
            GenotypeError: too many draws in a row left a cell without a reader.
        """
        network = self.space.network if self.space.sizes is None else self.space.sample_size(rng)
        space = self.space.cells_for(network)
        if isinstance(space, BlockSpace):
            # Any combination of choices fits.
            names = (
                self._take(self._operations, f"block.{place}", space.choices(place), rng)
                for place in space.places()
            )
            return Architecture(space.of_choices(tuple(names)), network)
        cells = _of_cells(space)
        for _ in range(TRIES):
            for _ in range(TRIES):
                genotype = cells.genotype(
                    *(tuple(self._node(name, node, rng) for node in range(cells.nodes)) for name in CELL_NAMES)
                )
                if cells.reads_every_cell(genotype):
                    return Architecture(genotype, network)
                self._give_back(genotype, rng)
            self._new_rounds(rng)
        raise GenotypeError(f"{TRIES * TRIES} draws in a row left a cell of the network without a reader")

    def _node(self, cell: CellName, number: int, rng: np.random.Generator) -> Node:
        low, high = self._take(self._pairs, f"{cell}.{number}", self._sources(number), rng)
        first = self._operation(cell, number, low, rng)
        # A node needs one real edge.
        second = self._operation(cell, number, high, rng, real=first == NONE)
        return Edge(first, low), Edge(second, high)

    def _operation(
        self, cell: CellName, number: int, source: int, rng: np.random.Generator, *, real: bool = False
    ) -> str:
        refused = NONE if real else None
        return self._take(self._operations, f"{cell}.{number}.{source}", self._names, rng, refused)

    def _sources(self, number: int) -> list[list[int]]:
        return [list(pair) for pair in _of_cells(self.space.cells).sources(number)]

    @property
    def _names(self) -> list[str]:
        return list(self.space.cells.operations)

    def _take(
        self,
        decks: dict[str, list[Card]],
        key: str,
        round_: Sequence[Card],
        rng: np.random.Generator,
        refused: Card | None = None,
    ) -> Card:
        """Take the first card of a deck that is not ``refused``; the deck gets a new round if it has none."""
        deck = decks.setdefault(key, [])
        while True:
            for place, card in enumerate(deck):
                if card != refused:
                    return deck.pop(place)
            deck += _shuffled(round_, rng)

    def _give_back(self, genotype: Genotype, rng: np.random.Generator) -> None:
        """Put the cards of ``genotype`` back into their decks, each at a random place."""
        for cell in CELL_NAMES:
            for number, node in enumerate(genotype.cell(cell == "reduce")):
                _insert(self._pairs[f"{cell}.{number}"], [edge.source for edge in node], rng)
                for edge in node:
                    _insert(self._operations[f"{cell}.{number}.{edge.source}"], edge.operation, rng)

    def _new_rounds(self, rng: np.random.Generator) -> None:
        """Add a round to every deck in use, in which its other cards are mixed."""
        for key, pairs in self._pairs.items():
            pairs[:] = _shuffled([*pairs, *self._sources(int(key.rpartition(".")[2]))], rng)
        for operations in self._operations.values():
            operations[:] = _shuffled([*operations, *self._names], rng)

    def state(self) -> dict[str, Any]:
        """Return the decks in JSON's types."""
        return {"pairs": self._pairs, "operations": self._operations}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        self._pairs = {key: [list(pair) for pair in deck] for key, deck in state["pairs"].items()}
        self._operations = {key: list(deck) for key, deck in state["operations"].items()}


def _of_cells(space: GenotypeSpace) -> SearchSpace:
    assert isinstance(space, SearchSpace)
    return space


def _shuffled(cards: Sequence[Card], rng: np.random.Generator) -> list[Card]:
    return [cards[int(place)] for place in rng.permutation(len(cards))]


def _insert(deck: list[Card], card: Card, rng: np.random.Generator) -> None:
    deck.insert(int(rng.integers(len(deck) + 1)), card)
