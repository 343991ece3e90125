"""Networks of MobileNet-like blocks: for each block an expansion, a kernel, channels, a stride and a squeeze.

A block expands its input by a 1x1 convolution, filters each channel by itself, and projects to its channels by
another 1x1 convolution. A squeeze reweighs the expanded channels by what their means say of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from cars_hw.errors import GenotypeError

if TYPE_CHECKING:
    import numpy as np

Activation = Literal["relu", "relu6"]

LEAST_CHANNELS: Final = 8
"""Channels of a network of another width are multiples of this, and at least as many."""


class Block(NamedTuple):
    """An inverted residual block.

    ``expansion`` multiplies the channels of its input; at 1 there is no expanding convolution. ``kernel`` is the
    side of the filters in pixels. ``squeeze`` is the channels in the middle of squeeze-and-excitation, as a
    fraction of those of the block's input; 0 for none. A block of stride 1 that keeps the number of channels adds
    its input.
    """

    expansion: int
    kernel: int
    channels: int
    stride: int = 1
    squeeze: float = 0.0

    def expanded(self, channels_in: int) -> int:
        """Return the number of channels of its filters."""
        return self.expansion * channels_in

    def squeezed(self, channels_in: int) -> int:
        """Return the channels in the middle of its squeeze-and-excitation; 0 if it has none."""
        return max(1, int(self.squeeze * channels_in)) if self.squeeze else 0

    def adds_input(self, channels_in: int) -> bool:
        """Return whether its input is added to its output."""
        return self.stride == 1 and channels_in == self.channels


@dataclass(frozen=True)
class MobileGenotype:
    """A network of MobileNet-like blocks.

    It has a strided 3x3 convolution to ``stem`` channels, the ``blocks``, a 1x1 convolution to ``head`` channels,
    and a classifier.

    Raises:
        GenotypeError: a number that no network can have.
    """

    stem: int
    blocks: tuple[Block, ...]
    head: int
    activation: Activation = "relu6"

    def __post_init__(self) -> None:
        if not self.blocks:
            raise GenotypeError("a network of blocks needs at least one block")
        if min(self.stem, self.head) < 1:
            raise GenotypeError("stem and head need at least one channel")
        for number, block in enumerate(self.blocks, 1):
            if block.kernel % 2 == 0 or min(block.expansion, block.kernel, block.channels) < 1:
                raise GenotypeError(f"block {number} has no odd kernel, or an expansion or channels below 1")
            if block.stride not in (1, 2) or not 0 <= block.squeeze <= 1:
                raise GenotypeError(f"block {number} has a stride that is not 1 or 2, or a squeeze beyond 0 to 1")

    def placed(self) -> Iterator[tuple[Block, int]]:
        """Yield every block with the number of channels of its input."""
        channels = self.stem
        for block in self.blocks:
            yield block, channels
            channels = block.channels

    def scaled(self, width: float) -> MobileGenotype:
        """Return the network with all channels multiplied by ``width``, the head's only if it grows."""
        blocks = tuple(block._replace(channels=_scaled(block.channels, width)) for block in self.blocks)
        head = _scaled(self.head, max(1.0, width))
        return MobileGenotype(_scaled(self.stem, width), blocks, head, self.activation)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: stages of blocks that are alike but for the stride, which the first one has.

        A stage is ``[blocks, expansion, kernel, channels, stride, squeeze]``.
        """
        stages: list[list[float]] = []
        for block in self.blocks:
            alike = bool(stages) and [*stages[-1][1:4], 1, stages[-1][5]] == list(block)
            if alike:
                stages[-1][0] += 1
            else:
                stages.append([1, *block])
        return {"stem": self.stem, "stages": stages, "head": self.head, "activation": self.activation}

    @classmethod
    def from_dict(cls, value: Any) -> MobileGenotype:  # noqa: ANN401 -- whatever a JSON file holds
        """Build a genotype from :meth:`to_dict`'s form; other keys are ignored.

        Raises:
            GenotypeError: a key is missing, or a stage is malformed.
        """
        try:
            blocks = [block for stage in value["stages"] for block in _blocks(stage)]
            stem, head, activation = int(value["stem"]), int(value["head"]), value.get("activation", "relu6")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise GenotypeError(f"no genotype of MobileNet-like blocks: {type(error).__name__}: {error}") from error
        if activation not in ("relu", "relu6"):
            raise GenotypeError(f"the activation must be relu or relu6, not {activation!r}")
        return cls(stem, tuple(blocks), head, activation)


def _blocks(stage: Sequence[float]) -> list[Block]:
    count, expansion, kernel, channels, stride, squeeze = stage
    if not 1 <= count <= 100:
        raise ValueError(f"a stage of {count} blocks")
    first = Block(int(expansion), int(kernel), int(channels), int(stride), float(squeeze))
    return [first, *[first._replace(stride=1)] * (int(count) - 1)]


def _scaled(channels: int, width: float) -> int:
    nearest = max(LEAST_CHANNELS, int(channels * width + LEAST_CHANNELS / 2) // LEAST_CHANNELS * LEAST_CHANNELS)
    # Rounding down takes at most a tenth away, as in the published networks.
    return nearest if nearest >= 0.9 * channels * width else nearest + LEAST_CHANNELS


@dataclass(frozen=True)
class MobileSpace:
    """All networks with the stages of ``like``. Each block has one of the expansions, kernels and squeezes.

    A block that keeps resolution and channels can also be left out, like a ``none`` edge of a cell.
    """

    like: MobileGenotype
    expansions: tuple[int, ...] = (3, 6)
    kernels: tuple[int, ...] = (3, 5, 7)
    squeezes: tuple[float, ...] = (0.0, 0.25)

    def sample(self, rng: np.random.Generator) -> MobileGenotype:
        """Draw every block uniformly. The first block of ``like`` keeps its expansion: it has few channels."""
        blocks: list[Block] = []
        for number, (block, channels_in) in enumerate(self.like.placed()):
            if block.adds_input(channels_in) and rng.random() < 1 / (1 + len(self.expansions) * len(self.kernels)):
                continue
            expansion = self.expansions[int(rng.integers(len(self.expansions)))] if number else block.expansion
            kernel = self.kernels[int(rng.integers(len(self.kernels)))]
            squeeze = self.squeezes[int(rng.integers(len(self.squeezes)))]
            blocks.append(Block(expansion, kernel, block.channels, block.stride, squeeze))
        return MobileGenotype(self.like.stem, tuple(blocks), self.like.head, self.like.activation)


class PublishedMobile(NamedTuple):
    """A genotype of blocks and where it was published."""

    genotype: MobileGenotype
    source: str


@cache
def mobile_zoo() -> Mapping[str, PublishedMobile]:
    """Return the published networks of MobileNet-like blocks by name."""
    text = resources.files("cars_hw.space").joinpath("mobile_zoo.json").read_text(encoding="utf-8")
    return MappingProxyType(
        {
            name: PublishedMobile(MobileGenotype.from_dict(value), value["source"])
            for name, value in json.loads(text).items()
        }
    )
