"""Genotypes of cells and of blocks, read from and written to JSON and DARTS text. Text is never evaluated."""

from __future__ import annotations

import ast
import reprlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn, TypeGuard

from cars_hw.config.codec import parse_json, register
from cars_hw.errors import GenotypeError
from cars_hw.space.families import BLOCK_FAMILIES, DARTS, FAMILIES, FAMILY_NAMES, MOBILE, SKIP, CellFamily
from cars_hw.space.operations import NONE, OPERATIONS

NODES: Final = FAMILIES[DARTS].nodes
"""Nodes of a DARTS cell. Node ``n`` may take its inputs from states ``0 .. n + 1``; its own state is ``n + 2``."""


_LONGEST_TEXT: Final = 10_000
"""Characters of DARTS text that are looked at; a genotype has about 500, and Python's parser can be overwhelmed."""


class Edge(NamedTuple):
    """An edge of a cell: the operation that it applies, and the state ``source`` that it reads.

    States 0 and 1 are the inputs of the cell. State ``n + 2`` is the output of node ``n``."""

    operation: str
    source: int

    @property
    def is_real(self) -> bool:
        """Whether the edge exists in the network."""
        return self.operation != NONE


Node = tuple[Edge, Edge]
Cell = tuple[Node, ...]


States = tuple[int, ...]
"""Some states of a cell."""


@dataclass(frozen=True)
class Genotype:
    """Two cells. Each node applies an operation to each of two states, and adds the results.

    ``family`` names the :class:`~cars_hw.space.families.CellFamily` of the cells, without further operations. The
    family decides how many nodes they have, whether a node may read the same state twice, and which states are
    joined to make a cell's output: those of all nodes in DARTS cells, and those that no node reads in the others.
    Some published cells join other states. ``normal_joined`` and ``reduce_joined`` then name them; None stands for
    those of the family.

    The order of edges within a node is kept, so reading and writing text changes nothing. Two genotypes with the
    same :meth:`key` are the same network.

    Raises:
        GenotypeError: an unknown operation or family, twice the same input, an input from the future or from an
            empty node, a wrong number of nodes, a cell without any real edge, or joined states that cannot be.
    """

    normal: Cell
    reduce: Cell
    # Not in the text that seeds the weights of measured networks, which was there first.
    family: str = field(default=DARTS, repr=False)
    normal_joined: States | None = field(default=None, repr=False)
    reduce_joined: States | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.family == DARTS and self.normal_joined is None and self.reduce_joined is None:
            # The most frequent kind, of which a search makes ten thousands.
            _check_cell("normal", self.normal, FAMILIES[DARTS])
            _check_cell("reduce", self.reduce, FAMILIES[DARTS])
            return
        family = self.cells
        for name, cell, joined in (
            ("normal", self.normal, self.normal_joined),
            ("reduce", self.reduce, self.reduce_joined),
        ):
            _check_cell(name, cell, family)
            if joined is not None:
                _check_joined(name, cell, joined, family)
                if tuple(joined) == family_joined(cell, family):
                    object.__setattr__(self, f"{name}_joined", None)

    @property
    def cells(self) -> CellFamily:
        """The family of the cells.

        Raises:
            GenotypeError: it is unknown.
        """
        if self.family not in FAMILIES:
            raise GenotypeError(
                f"the genotype is of an unknown family of cells {reprlib.repr(self.family)}; "
                f"known: {', '.join(FAMILIES)}"
            )
        return FAMILIES[self.family]

    @property
    def made_of(self) -> str:
        """What it describes, in words: cells or blocks."""
        return "cells"

    def require_size(self, layers: int, reductions: tuple[int, int]) -> None:
        """Check that it can fill a network of so many ``layers``, of which those at ``reductions`` halve images.

        Two cells fill any network.

        Raises:
            GenotypeError: it cannot.
        """

    def cell(self, reduction: bool) -> Cell:
        """Return the reduction cell or the normal cell."""
        return self.reduce if reduction else self.normal

    def joined(self, reduction: bool) -> States:
        """Return the states that make the output of the reduction cell or of the normal cell, side by side."""
        given = self.reduce_joined if reduction else self.normal_joined
        return family_joined(self.cell(reduction), FAMILIES[self.family]) if given is None else given

    @property
    def parts(self) -> tuple[int, int]:
        """How many states the outputs of the normal and of the reduction cell are made of."""
        return len(self.joined(reduction=False)), len(self.joined(reduction=True))

    def key(self) -> tuple[object, ...]:
        """Return a value that is equal for two genotypes that have the same edges and join the same states.

        The key ignores the order of a node's edges and the inputs of ``none`` edges.
        """
        edges = tuple(
            tuple(tuple(sorted(edge for edge in node if edge.is_real)) for node in cell)
            for cell in (self.normal, self.reduce)
        )
        if self.normal_joined is None and self.reduce_joined is None:
            return edges
        return (*edges, self.joined(reduction=False), self.joined(reduction=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: per cell ``[operation, source]`` pairs, two per node, in order.

        A genotype of another family than DARTS also has its ``family`` and the states that are joined.
        """
        plain: dict[str, Any] = {
            name: [[edge.operation, edge.source] for node in cell for edge in node]
            for name, cell in (("normal", self.normal), ("reduce", self.reduce))
        }
        if self.family != DARTS:
            plain["family"] = self.family
            plain["normal_concat"] = list(self.joined(reduction=False))
            plain["reduce_concat"] = list(self.joined(reduction=True))
        return plain

    def to_darts(self) -> str:
        """Return the text that DARTS prints: ``Genotype(normal=[...], normal_concat=..., ...)``.

        That of another family also has its name: ``Genotype(..., family='nasnet')``.
        """
        normal, reduce = ([tuple(edge) for node in cell for edge in node] for cell in (self.normal, self.reduce))
        first, second = (list(self.joined(reduction)) for reduction in (False, True))
        family = "" if self.family == DARTS else f", family={self.family!r}"
        joined = f"reduce={reduce!r}, reduce_concat={second!r}{family}"
        return f"Genotype(normal={normal!r}, normal_concat={first!r}, {joined})"

    @classmethod
    def from_dict(cls, value: Any) -> Genotype:  # noqa: ANN401 -- whatever a JSON file holds
        """Build a genotype from :meth:`to_dict`'s form; other keys (a source, a name) are ignored.

        Raises:
            GenotypeError: a key is missing, a pair is malformed, the joined states are not those of the family, or
                the cells are illegal.
        """
        if not isinstance(value, dict):
            raise GenotypeError(f"a genotype is an object with 'normal' and 'reduce', not {type(value).__name__}")
        name = value.get("family", DARTS)
        if isinstance(name, str) and name in BLOCK_FAMILIES:
            return BlockGenotype.from_dict(value)
        if not isinstance(name, str) or name not in FAMILIES:
            raise GenotypeError(
                f"the genotype is of an unknown family of cells {reprlib.repr(name)}; known: "
                f"{', '.join(FAMILY_NAMES)}"
            )
        family = FAMILIES[name]
        cells, joined = [], []
        for kind in ("normal", "reduce"):
            if kind not in value:
                raise GenotypeError(f"the genotype has no '{kind}' cell")
            joined.append(_read_concat(kind, value.get(f"{kind}_concat"), family))
            cells.append(_pair_up(kind, value[kind], family))
        normal, reduce = cells
        return cls(normal, reduce, name, *joined)

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
        names = ("normal", "normal_concat", "reduce", "reduce_concat", "family", "blocks")
        if len(tree.args) > 4:
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
            value = parse_json(text)
        except ValueError as error:
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


def family_joined(cell: Cell, family: CellFamily) -> States:
    """Return the states that ``family`` joins to make the output of ``cell``."""
    return _family_joined(cell) if family.join == "loose" else tuple(range(2, 2 + len(cell)))


@lru_cache(maxsize=4096)
def _family_joined(cell: Cell) -> States:
    """Return the nodes of ``cell`` that no other node reads."""
    read = {edge.source for node in cell for edge in node if edge.is_real}
    return tuple(state for state in range(2, 2 + len(cell)) if state not in read)


def _read_concat(name: str, concat: object, family: CellFamily) -> States | None:
    if concat is None:
        return None
    expected = list(range(2, 2 + family.nodes))
    states = list(concat) if isinstance(concat, list | tuple) else None
    if states is None or not all(type(state) is int for state in states):
        raise GenotypeError(f"the {name} cell concatenates {reprlib.repr(concat)}, which is no list of states")
    if family.join == "all":
        if states != expected:
            raise GenotypeError(
                f"the {name} cell concatenates {reprlib.repr(concat)}; this space concatenates nodes {expected}"
            )
        return None
    return tuple(states)


def _check_joined(name: str, cell: Cell, joined: States, family: CellFamily) -> None:
    if family.join == "all":
        raise GenotypeError(
            f"the {name} cell joins the states {reprlib.repr(list(joined))}; {family.name} cells join all nodes"
        )
    # A reduction halves its inputs on the way to its nodes, so that they cannot stand beside these.
    first = 2 if name == "reduce" else 0
    known = all(first <= state < 2 + len(cell) for state in joined)
    if not joined or not known or list(joined) != sorted(set(joined)):
        raise GenotypeError(
            f"the {name} cell joins the states {reprlib.repr(list(joined))}; it can join any of "
            f"{first} to {len(cell) + 1}, each once and in order"
        )
    if not any(state >= 2 for state in joined):
        raise GenotypeError(f"the {name} cell joins no node")


def _pair_up(name: str, edges: object, family: CellFamily) -> Cell:
    count = 2 * family.nodes
    if not isinstance(edges, list | tuple) or len(edges) != count:
        raise GenotypeError(f"the {name} cell needs {count} pairs of operation and input, two a node")
    parsed = []
    for position, edge in enumerate(edges):
        if not (
            isinstance(edge, list | tuple) and len(edge) == 2 and isinstance(edge[0], str) and type(edge[1]) is int
        ):
            raise GenotypeError(
                f"the {name} cell's pair {position + 1} is not [operation, input]: {reprlib.repr(edge)}"
            )
        parsed.append(Edge(edge[0], edge[1]))
    return tuple((parsed[2 * node], parsed[2 * node + 1]) for node in range(family.nodes))


_LEGAL: Final[set[tuple[int, Node]]] = set()
"""Nodes by their numbers that were found to be legal in DARTS cells without an empty node: there they always are.

A search makes ten thousands of genotypes out of a few thousand nodes, and to check them took most of its time.
"""


def _check_cell(name: str, cell: Cell, family: CellFamily) -> None:
    darts = family.name == DARTS
    if darts and len(cell) == NODES and _LEGAL.issuperset(enumerate(cell)):
        return
    if len(cell) != family.nodes:
        raise GenotypeError(f"the {name} cell has {len(cell)} nodes; it needs {family.nodes}")
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
        if first.source == second.source and not family.repeats:
            raise GenotypeError(f"{where} takes input {first.source} twice; its two inputs must differ")
    if not any(edge.is_real for node in cell for edge in node):
        raise GenotypeError(f"the {name} cell has no real edge: every operation is none")
    if darts and not empty:
        _LEGAL.update(enumerate(cell))


@dataclass(frozen=True)
class BlockGenotype(Genotype):
    """The choice for every block of a network, first to last: a name such as ``k3_e6_se``, or ``skip``.

    The output of a block that is left out (``skip``) is its input. The first blocks of the second and of the third
    stage change the shape, so they cannot be left out.

    Raises:
        GenotypeError: an unknown family or choice, or no block.
    """

    normal: Cell = field(default=(), init=False, repr=False)
    reduce: Cell = field(default=(), init=False, repr=False)
    family: str = field(default=MOBILE, kw_only=True, repr=False)
    normal_joined: States | None = field(default=None, init=False, repr=False)
    reduce_joined: States | None = field(default=None, init=False, repr=False)
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.family not in BLOCK_FAMILIES:
            raise GenotypeError(f"unknown family of blocks {reprlib.repr(self.family)}; known: {MOBILE}")
        if not self.blocks:
            raise GenotypeError("a genotype of blocks needs at least one block")
        known = choice_names(self.family)
        for number, name in enumerate(self.blocks, 1):
            if name not in known:
                names = ", ".join(BLOCK_FAMILIES[self.family].operations)
                raise GenotypeError(f"block {number} has an unknown choice {reprlib.repr(name)}; known: {names}")

    @property
    def made_of(self) -> str:
        """What it describes, in words."""
        return "blocks"

    def require_size(self, layers: int, reductions: tuple[int, int]) -> None:
        """Check that it has ``layers`` blocks, and that those at ``reductions`` are not left out.

        Raises:
            GenotypeError: one of the two is not so.
        """
        if len(self.blocks) != layers:
            raise GenotypeError(f"the genotype has {len(self.blocks)} blocks and the network {layers}")
        for number in reductions:
            if self.blocks[number] == SKIP:
                raise GenotypeError(f"block {number + 1} begins a stage of the network: it cannot be left out")

    def cell(self, reduction: bool) -> Cell:
        """Raise: there are no cells."""
        del reduction
        _no_cells()

    def joined(self, reduction: bool) -> States:
        """Raise: there are no cells."""
        del reduction
        _no_cells()

    @property
    def parts(self) -> tuple[int, int]:
        """Raise: there are no cells."""
        _no_cells()

    def key(self) -> tuple[object, ...]:
        """Return a value that is equal for two genotypes with the same choices."""
        return (self.family, self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the family, and the names of the choices."""
        return {"family": self.family, "blocks": list(self.blocks)}

    def to_darts(self) -> str:
        """Return a text like that of DARTS: ``Genotype(family='mobile', blocks=[...])``."""
        return f"Genotype(family={self.family!r}, blocks={list(self.blocks)!r})"

    @classmethod
    def from_dict(cls, value: Any) -> BlockGenotype:  # noqa: ANN401 -- whatever a JSON file holds
        """Build a genotype from :meth:`to_dict`'s form; other keys are ignored.

        Raises:
            GenotypeError: a key is missing, or the blocks are no list of choices.
        """
        blocks = value.get("blocks") if isinstance(value, dict) else None
        if not isinstance(blocks, list | tuple) or not all(isinstance(one, str) for one in blocks):
            raise GenotypeError("a genotype of blocks is an object with 'family' and 'blocks', a list of choices")
        return cls(tuple(blocks), family=value.get("family", MOBILE))


def _no_cells() -> NoReturn:
    raise GenotypeError("the network is made of blocks and has no cells")


@lru_cache(maxsize=16)
def choice_names(family: str) -> frozenset[str]:
    """Return the names of all choices of the family of blocks, :data:`~cars_hw.space.families.SKIP` included."""
    return frozenset(BLOCK_FAMILIES[family].operations)


def names_of(genotype: Genotype) -> tuple[str, ...]:
    """Return the choices of ``genotype``.

    Raises:
        GenotypeError: it has cells.
    """
    if not isinstance(genotype, BlockGenotype):
        raise GenotypeError("the genotype has cells and no blocks")
    return genotype.blocks


register(Genotype, to_plain=lambda genotype: genotype.to_dict(), from_plain=Genotype.from_dict)
