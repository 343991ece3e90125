"""Blocks of a SuperNet: every choice for a block, with weights of its own or as a part of the largest."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from cars_hw.config.training import WeightSharing
from cars_hw.nn.blocks import make_block
from cars_hw.nn.mobile import MobileBlock
from cars_hw.nn.paths import SHARED
from cars_hw.nn.skeletons import Skeleton, named_weights, on_no_device
from cars_hw.space.blocks import BlockLayout
from cars_hw.space.families import SKIP, BlockFamily
from cars_hw.space.operations.operation import narrowed


class SuperBlock(nn.Module):
    """One block with every choice.

    If ``share`` is ``kernels``, only the choice with the largest kernel and expansion, and with the squeeze, has
    weights. Another one has the centres of its filters, its first channels, and the squeeze or not.
    """

    def __init__(self, layout: BlockLayout, share: WeightSharing) -> None:
        super().__init__()
        self.layout = layout
        names = (largest_choice(layout.family),) if share == "kernels" else layout.family.operations
        self.choices = nn.ModuleDict({name: make_block(layout, name, SHARED) for name in names if name != SKIP})

    def owner(self, name: str) -> nn.Module:
        """Return the module that has the weights of the choice ``name``, which is not ``skip``."""
        return self.choices[name if name in self.choices else largest_choice(self.layout.family)]

    def block(self, name: str) -> nn.Module:
        """Return the choice ``name``; it reads the present weights."""
        if name == SKIP:
            return nn.Identity()
        if name in self.choices:
            return self.choices[name]
        skeleton, shapes = _skeleton(self.layout, name)
        views = narrowed(named_weights(self.owner(name)), shapes)
        return skeleton.bound(iter([views[weight] for weight in shapes]))


def largest_choice(family: BlockFamily) -> str:
    """Return the name of the choice whose weights contain those of all others."""
    return f"k{max(family.kernels)}_e{max(family.expansions)}_se"


@lru_cache(maxsize=4096)
def block_template(layout: BlockLayout, name: str) -> nn.Module:
    """Return the choice ``name`` at ``layout`` as shared blocks are, without memory for its weights."""
    return on_no_device(lambda: make_block(layout, name, SHARED))


@lru_cache(maxsize=4096)
def _skeleton(layout: BlockLayout, name: str) -> tuple[Skeleton, dict[str, torch.Size]]:
    template = block_template(layout, name)
    assert isinstance(template, MobileBlock)
    skeleton, weights = Skeleton.of(template), named_weights(template)
    return skeleton, {weight: weights[weight].shape for weight in skeleton.names()}
