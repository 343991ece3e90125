"""Genotypes of the DARTS cell space, read from and written to JSON and DARTS text. Text is never evaluated."""

from __future__ import annotations

import ast
import json
import reprlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeGuard

from cars_hw.config.codec import register
from cars_hw.errors import GenotypeError
from cars_hw.space.operations import NONE, OPERATIONS

NODES: Final = 4
"""Nodes of a cell. Node ``n`` may take its inputs from states ``0 .. n + 1``; its own state is ``n + 2``."""


_LONGEST_TEXT: Final = 10_000
"""Characters of DARTS text that are looked at; a genotype has about 500, and Python's parser can be overwhelmed."""


class Edge(NamedTuple):
    """An operation on the state ``source``: states 0 and 1 are the inputs of the cell, ``n + 2`` is node ``n``."""

    operation: str
    source: int

    @property
    def is_real(self) -> bool:
        """Whether the edge exists in the network."""
        return self.operation != NONE


Node = tuple[Edge, Edge]
Cell = tuple[Node, ...]


@dataclass(frozen=True)
class Genotype:
    """Two cells of four nodes; each node sums one operation on each of two distinct inputs.

    The order of edges within a node is kept, so reading and writing text changes nothing. Two genotypes with the
    same :meth:`key` are the same network.

    Raises:
        GenotypeError: an unknown operation, twice the same input, an input from the future or from an
            empty node, a wrong number of nodes, or a cell without any real edge.
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for name, cell in (("normal", self.normal), ("reduce", self.reduce)):
            _check_cell(name, cell)

    def cell(self, reduction: bool) -> Cell:
        """Return the reduction cell or the normal cell."""
        return self.reduce if reduction else self.normal

    def key(self) -> tuple[tuple[tuple[Edge, ...], ...], ...]:
        """Return a value that is equal for two genotypes that have the same edges.

        The key ignores the order of a node's edges and the inputs of ``none`` edges.
        """
        return tuple(
            tuple(tuple(sorted(edge for edge in node if edge.is_real)) for node in cell)
            for cell in (self.normal, self.reduce)
        )

    def to_dict(self) -> dict[str, list[list[str | int]]]:
        """Return the JSON form: per cell eight ``[operation, source]`` pairs, two per node, in order."""
        return {
            name: [[edge.operation, edge.source] for node in cell for edge in node]
            for name, cell in (("normal", self.normal), ("reduce", self.reduce))
        }

    def to_darts(self) -> str:
        """Return the text that DARTS prints: ``Genotype(normal=[...], normal_concat=..., ...)``."""
        normal, reduce = ([tuple(edge) for node in cell for edge in node] for cell in (self.normal, self.reduce))
        states = list(range(2, 2 + NODES))
        return f"Genotype(normal={normal!r}, normal_concat={states!r}, reduce={reduce!r}, reduce_concat={states!r})"

    @classmethod
    def from_dict(cls, value: Any) -> Genotype:  # noqa: ANN401 -- whatever a JSON file holds
        """Build a genotype from :meth:`to_dict`'s form; other keys (a source, a name) are ignored.

        Raises:
            GenotypeError: a key is missing, a pair is malformed, the concatenation is not all four nodes, or
                the cells are illegal.
        """
        if not isinstance(value, dict):
            raise GenotypeError(f"a genotype is an object with 'normal' and 'reduce', not {type(value).__name__}")
        cells = []
        for name in ("normal", "reduce"):
            if name not in value:
                raise GenotypeError(f"the genotype has no '{name}' cell")
            _check_concat(name, value.get(f"{name}_concat"))
            cells.append(_pair_up(name, value[name]))
        return cls(*cells)

    @classmethod
    def from_darts(cls, text: str) -> Genotype:
        """Parse DARTS text. Only literals and ``range(a, b)`` are understood; nothing is evaluated.

        Raises:
            GenotypeError: the text is not a ``Genotype(...)`` of literals, or the cells are illegal.
        """
        if len(text) > _LONGEST_TEXT:
            raise GenotypeError(f"the genotype is not DARTS text: it has more than {_LONGEST_TEXT} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise GenotypeError("the genotype is not DARTS text: it does not parse") from error
        if not _is_call(tree, "Genotype"):
            raise GenotypeError("the genotype is not DARTS text: expected Genotype(normal=..., reduce=...)")
        names = ("normal", "normal_concat", "reduce", "reduce_concat")
        if len(tree.args) > len(names):
            raise GenotypeError("the genotype has more than four fields")
        fields = dict(zip(names, tree.args, strict=False))
        for keyword in tree.keywords:
            if keyword.arg not in names or keyword.arg in fields:
                raise GenotypeError(f"the genotype has an unexpected field '{keyword.arg}'")
            fields[keyword.arg] = keyword.value
        return cls.from_dict({name: _literal(name, node) for name, node in fields.items()})

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Parse JSON or DARTS text, whichever it is.

        Raises:
            GenotypeError: neither of the two, or an illegal genotype.
        """
        if not text.lstrip().startswith("{"):
            return cls.from_darts(text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GenotypeError(f"the genotype is not JSON: {error}") from error
        return cls.from_dict(value)


def _is_call(node: ast.expr, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _literal(name: str, node: ast.expr) -> object:
    try:
        if _is_call(node, "range") and not node.keywords:
            bounds = [ast.literal_eval(argument) for argument in node.args]
            if 1 <= len(bounds) <= 2 and all(type(bound) is int and 0 <= bound < 100 for bound in bounds):
                return list(range(*bounds))
            raise GenotypeError(f"the genotype's '{name}' has a range that is not of a cell")
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError, SyntaxError) as error:
        raise GenotypeError(f"the genotype's '{name}' is not a literal") from error


def _check_concat(name: str, concat: object) -> None:
    expected = list(range(2, 2 + NODES))
    if concat is None:
        return
    if not isinstance(concat, list | tuple) or list(concat) != expected:
        raise GenotypeError(
            f"the {name} cell concatenates {reprlib.repr(concat)}; this space concatenates nodes {expected}"
        )


def _pair_up(name: str, edges: object) -> Cell:
    if not isinstance(edges, list | tuple) or len(edges) != 2 * NODES:
        raise GenotypeError(f"the {name} cell needs {2 * NODES} pairs of operation and input, two a node")
    parsed = []
    for position, edge in enumerate(edges):
        if not (
            isinstance(edge, list | tuple) and len(edge) == 2 and isinstance(edge[0], str) and type(edge[1]) is int
        ):
            raise GenotypeError(
                f"the {name} cell's pair {position + 1} is not [operation, input]: {reprlib.repr(edge)}"
            )
        parsed.append(Edge(edge[0], edge[1]))
    return tuple((parsed[2 * node], parsed[2 * node + 1]) for node in range(NODES))


_LEGAL: Final[set[tuple[int, Node]]] = set()
"""Nodes by their numbers that were found to be legal in cells without an empty node: there they always are.

A search makes ten thousands of genotypes out of a few thousand nodes, and to check them took most of its time.
"""


def _check_cell(name: str, cell: Cell) -> None:
    if len(cell) == NODES and _LEGAL.issuperset(enumerate(cell)):
        return
    if len(cell) != NODES:
        raise GenotypeError(f"the {name} cell has {len(cell)} nodes; it needs {NODES}")
    empty: set[int] = set()
    for number, (first, second) in enumerate(cell):
        where = f"node {number} of the {name} cell"
        for edge in (first, second):
            if edge.operation not in OPERATIONS:
                raise GenotypeError(
                    f"{where} has an unknown operation {reprlib.repr(edge.operation)}; "
                    f"known: {', '.join(OPERATIONS)}"
                )
            if not 0 <= edge.source < number + 2:
                raise GenotypeError(
                    f"{where} takes input {edge.source}; it can only look back at 0 to {number + 1}"
                )
            if edge.is_real and edge.source - 2 in empty:
                raise GenotypeError(f"{where} takes input {edge.source}, a node without any real edge")
        if not (first.is_real or second.is_real):
            empty.add(number)
        if first.source == second.source:
            raise GenotypeError(f"{where} takes input {first.source} twice; its two inputs must differ")
    if not any(edge.is_real for node in cell for edge in node):
        raise GenotypeError(f"the {name} cell has no real edge: every operation is none")
    if not empty:
        _LEGAL.update(enumerate(cell))


register(Genotype, to_plain=Genotype.to_dict, from_plain=Genotype.from_dict)
