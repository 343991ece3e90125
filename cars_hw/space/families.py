"""Families of cells: nodes, operations, and how loose ends are joined. And families of blocks: their choices."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from cars_hw.errors import GenotypeError
from cars_hw.space.operations import NONE, OPERATIONS

Join = Literal["all", "loose"]
"""Which nodes make the output of a cell, side by side: all of them, or those that no other node reads."""

PLUS: Final = "+"
"""It joins the name of a family and those of further operations: ``darts+conv_1x1``."""


@dataclass(frozen=True)
class CellFamily:
    """Cells of ``nodes`` nodes, each the sum of one of ``operations`` on each of two states.

    ``join`` says which nodes make the output. With ``repeats``, both inputs of a node may be the same state. A
    network of the family can have further operations; ``name`` then names them, too: ``darts+conv_1x1``.
    """

    name: str
    summary: str
    nodes: int
    operations: tuple[str, ...]
    join: Join = "all"
    repeats: bool = False

    @property
    def real_operations(self) -> tuple[str, ...]:
        """The names of all operations but ``none``, in their order."""
        return tuple(name for name in self.operations if name != NONE)

    @property
    def base(self) -> str:
        """The name without further operations."""
        return self.name.partition(PLUS)[0]

    @property
    def edges(self) -> int:
        """The number of edges of the full cell: from every state to every later node."""
        return self.nodes * (self.nodes + 3) // 2

    def with_operations(self, names: Iterable[str]) -> CellFamily:
        """Return the family with further operations.

        Raises:
            GenotypeError: one is unknown, or is there already.
        """
        family = self
        for name in names:
            if name not in OPERATIONS:
                raise GenotypeError(
                    f"unknown operation '{name}'; known: {', '.join(OPERATIONS)}, and those of installed packages"
                )
            if name in family.operations:
                raise GenotypeError(f"cells of the family {family.name} have the operation '{name}' already")
            family = replace(family, name=f"{family.name}{PLUS}{name}", operations=(*family.operations, name))
        return family


SKIP: Final = "skip"
"""The choice of a block that is left out."""


@dataclass(frozen=True)
class BlockFamily:
    """MobileNet-like blocks, each of which has its own expansion and kernel, and squeeze-and-excitation or not.

    ``expansions`` multiply the channels of a block's input. ``kernels`` are the sides of the filters in pixels.
    ``squeeze`` is the number of channels in the middle of squeeze-and-excitation, as a fraction of those of the
    block's input.
    """

    name: str
    summary: str
    expansions: tuple[int, ...]
    kernels: tuple[int, ...]
    squeeze: float

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all choices for a block: ``skip``, which leaves it out, and such as ``k3_e6_se``."""
        named = (
            f"k{kernel}_e{expansion}{squeeze}"
            for kernel in self.kernels
            for expansion in self.expansions
            for squeeze in ("", "_se")
        )
        return (SKIP, *named)


_POOLS: Final = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
_SEPARABLE: Final = ("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7")

FAMILIES: Final = {
    family.name: family
    for family in (
        CellFamily(
            "darts",
            "four nodes that read two different states each; all are joined",
            4,
            (NONE, *_POOLS, "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
        ),
        CellFamily(
            "nasnet",
            "the cells of NASNet: five nodes, loose ends are joined",
            5,
            (*_POOLS, *_SEPARABLE, "dil_conv_3x3", "conv_1x1", "conv_3x3", "conv_7x1_1x7"),
            join="loose",
            repeats=True,
        ),
        CellFamily(
            "amoebanet",
            "the cells of AmoebaNet: five nodes, loose ends are joined",
            5,
            (*_POOLS, *_SEPARABLE, "dil_conv_3x3", "conv_7x1_1x7"),
            join="loose",
            repeats=True,
        ),
        CellFamily(
            "pnasnet",
            "the cells of PNASNet-5: five nodes, loose ends are joined",
            5,
            (*_POOLS, *_SEPARABLE, "dil_conv_3x3", "conv_7x1_1x7"),
            join="loose",
            repeats=True,
        ),
        CellFamily(
            "enas",
            "the cells of ENAS: five nodes, loose ends are joined",
            5,
            (*_POOLS, "sep_conv_3x3", "sep_conv_5x5"),
            join="loose",
            repeats=True,
        ),
    )
}
"""The families that have a name."""

DARTS: Final = "darts"

MOBILE: Final = "mobile"

BLOCK_FAMILIES: Final = {
    MOBILE: BlockFamily(
        MOBILE,
        "MobileNet-like blocks: kernels of 3, 5 and 7 pixels, expansions by 1, 3 and 6, with or without squeeze",
        (1, 3, 6),
        (3, 5, 7),
        0.25,
    )
}
"""The families of blocks."""

CHOICES: Final[Mapping[str, object]] = ChainMap(
    {name: None for family in BLOCK_FAMILIES.values() for name in family.operations},
    OPERATIONS,  # type: ignore[arg-type]  # It is only read.
)
"""The names of all operations of cells, and of all choices for blocks. Packages add to it."""

FAMILY_NAMES: Final = (*FAMILIES, *BLOCK_FAMILIES)
"""The names of all families."""


def block_family(text: str) -> BlockFamily | None:
    """Return the family of blocks that ``text`` names; None if it names none.

    Raises:
        GenotypeError: it names one with further operations, which blocks do not have.
    """
    name, plus, _ = text.partition(PLUS)
    if name in BLOCK_FAMILIES and plus:
        raise GenotypeError(f"{name} networks are made of blocks, which have no further operations: {text!r}")
    return BLOCK_FAMILIES.get(name)


@lru_cache(maxsize=256)
def named_family(text: str) -> CellFamily:
    """Return the family that ``text`` names: ``nasnet``, or with further operations ``darts+conv_1x1``.

    Raises:
        GenotypeError: there is no such family, or no such operation.
    """
    name, *further = text.split(PLUS)
    if name in BLOCK_FAMILIES:
        raise GenotypeError(f"{name} networks are made of blocks and have no cells")
    if name not in FAMILIES:
        raise GenotypeError(f"unknown family of cells '{name}'; known: {', '.join(FAMILY_NAMES)}")
    return FAMILIES[name].with_operations(further)
