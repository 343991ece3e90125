"""SearchSpace: the genotypes that a search may propose, how they are drawn and how they neighbour."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cars_hw.errors import GenotypeError
from cars_hw.space.families import DARTS, PLUS, CellFamily, named_family
from cars_hw.space.genotype import Cell, Edge, Genotype, Node
from cars_hw.space.genotype_space import Choices, Place
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import NONE, OPERATIONS

CellName = Literal["normal", "reduce"]
CELL_NAMES: tuple[CellName, CellName] = ("normal", "reduce")

AVOIDABLE: Final = (None, 0, 1)
"""The input of a cell that its edges keep away from, if any."""

DRAWS: Final = 1000
"""So many random genotypes may be discarded in a row. In no space is it as many as two of three on average."""


@lru_cache(maxsize=64)
def _node_choices(pairs: tuple[tuple[str, str], ...], sources: tuple[tuple[int, int], ...]) -> tuple[Node, ...]:
    """Return the nodes on each of ``sources`` with each of the ``pairs`` of operations; a descent asks often."""
    return tuple((Edge(first, low), Edge(second, high)) for low, high in sources for first, second in pairs)


@dataclass(frozen=True)
class SearchSpace:
    """All genotypes over ``operations`` in which every node has at least one real edge.

    With a ``network``, the space has only genotypes that leave no cell of the network without a reader. If the
    normal cell reads nothing of the cell before it, nothing reads every second cell, and the genotype describes a
    network with fewer cells. A search uses a space with a network, because the number of cells is a choice of its
    own. Published genotypes and the networks that calibrate a table are not proposals of a search. They may have
    cells without a reader, and their latencies and costs are right.

    ``family`` names the family of the cells. Without ``operations``, the space has all operations of the family.
    The genotypes of a space join the states that the family joins.

    Raises:
        GenotypeError: an operation that the family does not have, an unknown family, the same operation twice, or
            none that is real.
    """

    operations: tuple[str, ...] = ()
    network: NetworkSpec | None = None
    family: str = DARTS

    def __post_init__(self) -> None:
        if not self.operations:
            object.__setattr__(self, "operations", self.cells.operations)
        unknown = sorted(name for name in self.operations if name not in self.cells.operations)
        if unknown:
            raise GenotypeError(
                f"unknown operation '{unknown[0]}'; {self.family} cells have {', '.join(self.cells.operations)}; "
                f"the family {self.family}{PLUS}NAME has one more"
            )
        if len(set(self.operations)) < len(self.operations):
            raise GenotypeError("a search space has the same operation twice; draws would not be uniform")
        if not set(self.operations) - {NONE}:
            raise GenotypeError("a search space needs at least one operation besides none")

    @classmethod
    def of(cls, network: NetworkSpec) -> SearchSpace:
        """Return the space of all genotypes of the family of ``network``."""
        return cls(family=network.family)

    @property
    def cells(self) -> CellFamily:
        """The family of the cells."""
        return named_family(self.family)

    @property
    def nodes(self) -> int:
        """The number of nodes of a cell."""
        return self.cells.nodes

    def genotype(self, normal: Cell, reduce: Cell) -> Genotype:
        """Return the genotype of two cells of the family."""
        return Genotype(normal, reduce, self.cells.base)

    @cached_property
    def _operation_pairs(self) -> tuple[tuple[str, str], ...]:
        both = ((first, second) for first in self.operations for second in self.operations)
        return tuple(pair for pair in both if pair != (NONE, NONE))

    def node_choices(self, number: int) -> list[Node]:
        """Return every legal node at position ``number``: two inputs in ascending order, an operation on each."""
        return list(_node_choices(self._operation_pairs, tuple(self.sources(number))))

    def sources(self, number: int) -> list[tuple[int, int]]:
        """Return the pairs of states that the node at position ``number`` can read, in ascending order."""
        pairs = itertools.combinations_with_replacement if self.cells.repeats else itertools.combinations
        return list(pairs(range(number + 2), 2))

    def sample_node(self, number: int, rng: np.random.Generator) -> Node:
        """Draw a node: two inputs, then operations until one of them is real.

        The inputs are distinct, or drawn one by one where a family lets a node read one state twice.
        """
        low, high = sorted(rng.choice(number + 2, size=2, replace=self.cells.repeats).tolist())
        first, second = self._operation_pairs[int(rng.integers(len(self._operation_pairs)))]
        return Edge(first, low), Edge(second, high)

    def for_network(self, network: NetworkSpec | None) -> SearchSpace:
        """Return the space with these operations for ``network``."""
        return replace(self, network=network)

    def places(self) -> list[tuple[CellName, int]]:
        """Return every node: its cell and its number."""
        return [(name, number) for name in CELL_NAMES for number in range(self.nodes)]

    def choices(self, place: tuple[CellName, int]) -> list[Node]:
        """Return every legal node at ``place``."""
        return self.node_choices(place[1])

    def draw(self, place: tuple[CellName, int], rng: np.random.Generator) -> Node:
        """Draw a node at ``place``, see :meth:`sample_node`."""
        return self.sample_node(place[1], rng)

    def choice_of(self, genotype: Genotype, place: tuple[CellName, int]) -> Node:
        """Return the node of ``genotype`` at ``place``."""
        name, number = place
        return genotype.cell(name == "reduce")[number]

    def with_choice(self, genotype: Genotype, place: tuple[CellName, int], choice: Node) -> Genotype:
        """Return ``genotype`` with the node ``choice`` at ``place``."""
        return replace_node(genotype, *place, choice)

    def of_choices(self, choices: Sequence[Node]) -> Genotype:
        """Return the genotype of the nodes of the normal cell and of the reduction cell."""
        return self.genotype(tuple(choices[: self.nodes]), tuple(choices[self.nodes :]))

    def regions(self) -> Iterator[Choices]:
        """Yield all choices, and then those that leave inputs of the cells unused, for each combination of inputs.

        The latency of a network is a sum over nodes if the inputs that each cell uses are fixed. The gain of an
        unused input appears only when its last edge is removed.
        """
        for avoided in itertools.product(AVOIDABLE, repeat=2):
            avoid = dict(zip(CELL_NAMES, avoided, strict=True))
            found: dict[Place, list[Node]] = {
                (name, number): self._avoiding(number, avoid[name]) for name, number in self.places()
            }
            if all(found.values()):
                yield found

    def _avoiding(self, number: int, avoid: int | None) -> list[Node]:
        """Return the nodes at position ``number`` of which no edge reads the state ``avoid``."""
        nodes = self.node_choices(number)
        return [node for node in nodes if not any(edge.is_real and edge.source == avoid for edge in node)]

    def heaviest(self) -> Genotype:
        """Return the genotype with the operation that keeps the most images in training, on every edge."""
        name = max(self.operations, key=lambda one: (OPERATIONS[one].kept_maps, one))
        cell = tuple((Edge(name, 0), Edge(name, 1)) for _ in range(self.nodes))
        return self.genotype(cell, cell)

    def part(self, rng: np.random.Generator) -> SearchSpace:
        """Return the space of some of the operations, at least one of them real, for any network."""
        real = [name for name in self.operations if name != NONE]
        kept = rng.choice(len(real), size=int(rng.integers(1, len(real) + 1)), replace=False)
        absent = (NONE,) if NONE in self.operations and rng.integers(2) else ()
        names = (*absent, *(real[index] for index in sorted(kept)))
        return SearchSpace(names, family=self.family)

    def fits(self, genotype: Genotype) -> bool:
        """Return whether ``genotype`` leaves no cell of ``network`` without a reader; True without a network."""
        return self.reads_every_cell(genotype)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw a genotype, every node uniformly.

        Draws that leave a cell of ``network`` without a reader are discarded.

        Raises:
            GenotypeError: all of :data:`DRAWS` draws were discarded.
        """
        for _ in range(DRAWS):
            normal, reduce = (tuple(self.sample_node(node, rng) for node in range(self.nodes)) for _ in CELL_NAMES)
            genotype = self.genotype(normal, reduce)
            if self.reads_every_cell(genotype):
                return genotype
        raise GenotypeError(f"{DRAWS} random genotypes in a row left a cell of the network without a reader")

    def reads_every_cell(self, genotype: Genotype) -> bool:
        """Return whether ``genotype`` leaves no cell of ``network`` without a reader; True without a network."""
        return self.network is None or not unread_cells(self.network, genotype)

    def validate(self, genotype: Genotype) -> None:
        """Check that a search could propose ``genotype``.

        Raises:
            GenotypeError: an operation outside of the space, a node without any real edge, or a cell of ``network``
                without a reader.
        """
        if genotype.family != self.cells.base:
            raise GenotypeError(f"the genotype has {genotype.family} cells and this space {self.cells.base} cells")
        if genotype.normal_joined is not None or genotype.reduce_joined is not None:
            raise GenotypeError("the genotype joins other states than its family: a search does not propose it")
        for name in CELL_NAMES:
            for number, node in enumerate(getattr(genotype, name)):
                for edge in node:
                    if edge.operation not in self.operations:
                        raise GenotypeError(f"'{edge.operation}' is not in this search space")
                if not any(edge.is_real for edge in node):
                    raise GenotypeError(f"node {number} of the {name} cell has no real edge")
        if self.network is not None and (unread := unread_cells(self.network, genotype)):
            raise GenotypeError(
                f"{len(unread)} of {self.network.layers} cells have no reader, first cell {unread[0] + 1}: "
                "a search does not propose such a genotype"
            )

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """Yield every genotype of the space that differs in one edge's operation or one edge's input.

        Raises:
            GenotypeError: ``genotype`` is not of this space.
        """
        self.validate(genotype)
        for name in CELL_NAMES:
            cell: Cell = getattr(genotype, name)
            for number, node in enumerate(cell):
                for position in (0, 1):
                    for changed in self._changed_nodes(number, node, position):
                        neighbour = replace_node(genotype, name, number, changed)
                        if self.reads_every_cell(neighbour):
                            yield neighbour

    def _changed_nodes(self, number: int, node: Node, position: int) -> Iterator[Node]:
        edge, other = node[position], node[1 - position]
        edges = [Edge(operation, edge.source) for operation in self.operations if operation != edge.operation]
        taken = (edge.source,) if self.cells.repeats else (edge.source, other.source)
        free = (source for source in range(number + 2) if source not in taken)
        edges += [Edge(edge.operation, source) for source in free]
        for changed in edges:
            if changed.is_real or other.is_real:
                yield (changed, other) if position == 0 else (other, changed)

    def encode(self, genotype: Genotype) -> npt.NDArray[np.float32]:
        """Return shape ``(2, edges, operations)``, one hot: per cell and edge of the full cell, its operation.

        Edges are ordered by node and then by input: 14 in a DARTS cell. An edge that the genotype lacks is encoded
        as ``none``, the first operation; the others are those of the family. If a node reads one state twice, its
        edge has both operations.
        """
        names = (NONE, *self.cells.real_operations)
        code = np.zeros((2, self.cells.edges, len(names)), dtype=np.float32)
        place = {name: index for index, name in enumerate(names)}
        code[:, :, place[NONE]] = 1
        for row, name in enumerate(CELL_NAMES):
            for number, node in enumerate(getattr(genotype, name)):
                columns = [number * (number + 3) // 2 + edge.source for edge in node]
                code[row, columns] = 0
                for column, edge in zip(columns, node, strict=True):
                    code[row, column, place[edge.operation]] = 1
        return code


def replace_node(genotype: Genotype, name: CellName, number: int, node: Node) -> Genotype:
    """Return ``genotype`` with ``node`` in the place ``number`` of the cell ``name``."""
    cell = genotype.cell(name == "reduce")
    changed = (*cell[:number], node, *cell[number + 1 :])
    normal, reduce = (changed, genotype.reduce) if name == "normal" else (genotype.normal, changed)
    return Genotype(normal, reduce, genotype.family, genotype.normal_joined, genotype.reduce_joined)
