"""Networks of MobileNet-like blocks that a search chooses one by one: their genotypes, and where blocks stand.

The skeleton comes from the :class:`~cars_hw.space.network_spec.NetworkSpec`: convolutions to its channels, three
stages of blocks, and a 1x1 convolution before the classifier. The second and the third stage begin by halving the
images and doubling the channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from cars_hw.errors import GenotypeError
from cars_hw.space.families import SKIP, BlockFamily
from cars_hw.space.genotype import BlockGenotype, Genotype
from cars_hw.space.mobile import Block
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape

HEAD_RATIO: Final = 4
"""The 1x1 convolution before the classifier makes so many times the channels of the last block (MobileNetV2)."""

_CHOICE: Final = re.compile(r"k(\d{1,2})_e(\d{1,2})(_se)?", re.ASCII)


class BlockChoice(NamedTuple):
    """What a search chooses of a block: the side of its filters in pixels, its expansion, whether it squeezes."""

    kernel: int
    expansion: int
    squeeze: bool

    @classmethod
    def parse(cls, name: str) -> BlockChoice | None:
        """Return the choice called ``name``, such as ``k3_e6_se``; None if it is no such name."""
        found = _CHOICE.fullmatch(name)
        return None if found is None else cls(int(found[1]), int(found[2]), found[3] is not None)


class BlockLayout(NamedTuple):
    """Where one block stands: its input, the channels that it makes, its stride, and its family."""

    position: int
    source: Shape
    channels: int
    stride: int
    family: BlockFamily

    @property
    def output(self) -> Shape:
        """The shape of what it makes."""
        same = self.source._replace(channels=self.channels)
        return same.halved() if self.stride == 2 else same

    @property
    def skippable(self) -> bool:
        """Whether it can be left out: it changes no shape."""
        return self.output == self.source

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the choices that are possible here."""
        names = self.family.operations
        return names if self.skippable else tuple(name for name in names if name != SKIP)

    def block(self, name: str) -> Block | None:
        """Return the block of the choice ``name``; None if it is left out."""
        choice = BlockChoice.parse(name)
        if choice is None:
            return None
        squeeze = self.family.squeeze if choice.squeeze else 0.0
        return Block(choice.expansion, choice.kernel, self.channels, self.stride, squeeze)


class StemLayout(NamedTuple):
    """One convolution of the stem of a network of blocks: its input, its channels and its stride."""

    source: Shape
    channels: int
    stride: int

    @property
    def output(self) -> Shape:
        """The shape of what it makes."""
        same = self.source._replace(channels=self.channels)
        return same.halved() if self.stride == 2 else same


@lru_cache(maxsize=4096)
def stem_layouts(spec: NetworkSpec) -> tuple[StemLayout, ...]:
    """Return the convolutions before the blocks of ``spec``: one, or for large images three that halve."""
    if spec.stem == "cifar":
        return (StemLayout(spec.input_shape, spec.channels, 1),)
    layouts: list[StemLayout] = []
    state = spec.input_shape
    for channels in (spec.channels // 2, spec.channels, spec.channels):
        layouts.append(StemLayout(state, channels, 2))
        state = layouts[-1].output
    return tuple(layouts)


@lru_cache(maxsize=4096)
def block_layouts(spec: NetworkSpec) -> tuple[BlockLayout, ...]:
    """Return where every block of ``spec`` stands, first to last.

    Raises:
        GenotypeError: the network is made of cells.
    """
    if spec.blocks is None:
        raise GenotypeError("the network is made of cells and has no blocks")
    layouts: list[BlockLayout] = []
    state = stem_layouts(spec)[-1].output
    for index in range(spec.layers):
        halves = index in spec.reductions
        channels = 2 * state.channels if halves else state.channels
        layouts.append(BlockLayout(index, state, channels, 2 if halves else 1, spec.blocks))
        state = layouts[-1].output
    return tuple(layouts)


def head_channels(spec: NetworkSpec) -> int:
    """Return the channels of the 1x1 convolution before the classifier of ``spec``."""
    return HEAD_RATIO * block_layouts(spec)[-1].channels


def placed_blocks(spec: NetworkSpec, genotype: Genotype) -> Iterator[tuple[BlockLayout, Block]]:
    """Yield the blocks of ``genotype`` under ``spec`` that are not left out, each with its place.

    Raises:
        SpecError: the genotype is of another family than the network.
        GenotypeError: it does not have the number of blocks of the network.
    """
    spec.require_family(genotype)
    assert isinstance(genotype, BlockGenotype)
    for layout, name in zip(block_layouts(spec), genotype.blocks, strict=True):
        block = layout.block(name)
        if block is not None:
            yield layout, block
