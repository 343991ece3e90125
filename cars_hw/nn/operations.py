"""The torch modules of the candidate operations."""

from __future__ import annotations

from torch import nn

from cars_hw.nn import layers
from cars_hw.nn.layers import Normalization
from cars_hw.space.operations import OPERATIONS


def make_operation(name: str, channels: int, stride: int, norm: Normalization) -> nn.Module:
    """Return the operation ``name`` from (N, C, H, W) to the same shape, or to half of it at ``stride`` 2.

    ``none`` has no module: an absent edge is not computed, so asking for one is a ValueError.
    """
    if name not in OPERATIONS:
        raise ValueError(f"no module computes '{name}'")
    module: nn.Module = OPERATIONS[name].module(layers, channels, stride, norm)
    return module
