"""Weights for untrained networks: the same for the same network, and as large as trained weights."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from torch import nn

Module = TypeVar("Module", bound="nn.Module")

_SEEDING: Final = threading.Lock()
"""Several devices are profiled in threads, and torch's generator is one for all of them."""


def seeded(make: Callable[[], Module], name: str) -> Module:
    """Return what ``make`` makes, in eval mode, with weights that follow from ``name`` alone.

    A fresh network's signal shrinks at every convolution, and after twenty cells its numbers are so small that
    a processor computes them a hundred times slower. Shifts in the normalisations keep it at the size that
    it has in a trained network.
    """
    import torch
    from torch import nn

    with _SEEDING, torch.random.fork_rng(devices=()):
        torch.manual_seed(zlib.crc32(name.encode()))
        module = make().eval()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0.0, 0.5)
    return module
