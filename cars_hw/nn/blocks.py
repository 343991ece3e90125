"""The parts of a network of MobileNet-like blocks: stem, blocks, and the convolution before the classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cars_hw.nn.layers import Normalization
from cars_hw.nn.mobile import MobileBlock, Normalized
from cars_hw.space.blocks import BlockLayout, StemLayout, block_layouts, head_channels, stem_layouts
from cars_hw.space.genotype import Genotype, names_of
from cars_hw.space.network_spec import NetworkSpec


def stem_convolution(layout: StemLayout, norm: Normalization) -> Normalized:
    """Return one convolution of a stem, 3x3, with normalisation and ReLU."""
    return Normalized((layout.source.channels, layout.channels), 3, stride=layout.stride, act="relu", norm=norm)


class BlockStem(nn.Sequential):
    """The convolutions before the first block: (N, C_in, H, W) to its input."""

    def __init__(self, spec: NetworkSpec, norm: Normalization) -> None:
        super().__init__(*(stem_convolution(layout, norm) for layout in stem_layouts(spec)))


def head_convolution(channels_in: int, channels: int, norm: Normalization) -> Normalized:
    """Return the 1x1 convolution behind the last block, with normalisation and ReLU."""
    return Normalized((channels_in, channels), 1, act="relu", norm=norm)


def make_block(layout: BlockLayout, name: str, norm: Normalization) -> MobileBlock | nn.Identity:
    """Return the block of the choice ``name`` at ``layout``; one that is left out gives its input."""
    block = layout.block(name)
    return nn.Identity() if block is None else MobileBlock(block, layout.source.channels, norm=norm)


class NetworkBlock(nn.Module):
    """A block at its place in a :class:`~cars_hw.nn.network.Network`, where it is called as a cell is."""

    def __init__(self, body: MobileBlock | nn.Identity | Normalized) -> None:
        super().__init__()
        self.body = body

    def forward(self, before: Tensor, last: Tensor, drop_path: float | Tensor = 0.0) -> Tensor:
        """Return the output from ``last``, that of the block before.

        ``drop_path`` is the probability that a block which adds its input gives only its input, for each sample: a
        number, or a tensor of one number on the same device.
        """
        del before
        dropped = isinstance(drop_path, Tensor) or drop_path > 0
        if not (dropped and isinstance(self.body, MobileBlock) and self.body.adds_input):
            out: Tensor = self.body(last)
            return out
        value = self.body.path(last)
        # Whole samples are zeroed, and the rest is scaled, so that the mean stays.
        kept = torch.rand(len(last), 1, 1, 1, device=last.device) >= drop_path
        return last + value * (kept / (1 - drop_path)).to(value.dtype)


def network_blocks(spec: NetworkSpec, genotype: Genotype, norm: Normalization) -> nn.ModuleList:
    """Return the blocks of ``genotype`` under ``spec``, and the convolution behind them as the last one."""
    layouts = block_layouts(spec)
    bodies = [make_block(layout, name, norm) for layout, name in zip(layouts, names_of(genotype), strict=True)]
    head = head_convolution(layouts[-1].channels, head_channels(spec), norm)
    return nn.ModuleList(NetworkBlock(body) for body in (*bodies, head))
