"""The names of what a network is made of."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from cars_hw.errors import TableError
from cars_hw.space.blocks import BlockChoice
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.shape import Shape

BLOCK: Final = "block_"
"""How the kinds of blocks begin; the name of the choice follows."""

ELEMENTWISE: Final = ("relu", "add", "concat", "zeros")
"""Kinds besides the operations that compute alike in any layout of their images."""

_TEXT: Final = re.compile(r"(\w{1,40})/c(\d{1,9})(?:-c(\d{1,9}))?/(\d{1,9})x(\d{1,9})(?:/s(\d))?")


@dataclass(frozen=True, order=True)
class OpKey:
    """One computation on an image of shape ``source`` that gives ``channels`` channels; its first ReLU is left out.

    ``kind`` is a candidate operation or one of ``stem_cifar``, ``stem_quarter`` and ``stem_eighth`` (ImageNet's),
    ``stem_half`` (that of a stem with cells), ``relu_conv_bn``, ``factorized_reduce``, ``relu``, ``add``,
    ``concat``, ``zeros`` and ``head``. In networks of blocks it is a block such as ``block_k3_e6_se``,
    ``stem_image``, ``stem_conv`` (a further convolution of a stem) or ``head_conv``. ``stride`` is that of a
    candidate operation, of a block or of a convolution of such a stem, and 0 elsewhere. As text:
    ``sep_conv_3x3/c36/32x32/s1``.
    """

    kind: str
    source: Shape
    channels: int
    stride: int = 0

    @property
    def converted(self) -> int:
        """Elements that a runtime may convert to and from its own layout in a model of this operation only."""
        operation = OPERATIONS.get(self.kind)
        if self.kind in ELEMENTWISE if operation is None else operation.any_layout:
            return 0
        return math.prod(self.source) + math.prod(self.output)

    @property
    def output(self) -> Shape:
        """The shape of what it computes."""
        same = self.source._replace(channels=self.channels)
        match self.kind:
            case "head":
                return Shape(self.channels, 1, 1)
            case "factorized_reduce" | "stem_eighth" | "stem_half":
                return same.halved()
            case "stem_quarter":
                return same.halved().halved()
            case _:
                return same.halved() if self.stride == 2 else same

    def __str__(self) -> str:
        same = self.source.channels == self.channels and self.kind not in ("relu_conv_bn", "factorized_reduce")
        channels = f"c{self.source.channels}" if same else f"c{self.source.channels}-c{self.channels}"
        stride = f"/s{self.stride}" if self.stride else ""
        return f"{self.kind}/{channels}/{self.source.height}x{self.source.width}{stride}"

    @classmethod
    def parse(cls, text: str) -> OpKey:
        """Return the key that ``text`` is, as ``str`` writes it.

        Raises:
            TableError: it is none.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise TableError(f"{text!r} is not the name of an operation; profile the device again")
        kind, source, channels, height, width, stride = found.groups()
        image = Shape(int(source), int(height), int(width))
        return cls(kind, image, int(channels or source), int(stride or 0))


class PlacedKey(NamedTuple):
    """A key at its place: the cell's index, None for stem and head, and what it does there, for people."""

    key: OpKey
    cell: int | None
    what: str


def block_choice(kind: str) -> BlockChoice | None:
    """Return the choice of the block that ``kind`` names; None if it names no block."""
    return BlockChoice.parse(kind.removeprefix(BLOCK)) if kind.startswith(BLOCK) else None
