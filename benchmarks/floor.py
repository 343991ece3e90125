"""The floor: how long work takes at the least, by what this machine reaches on a large product and a large copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import seconds
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Machine:
    """Floating-point operations and bytes a second; the bytes of a copy are those read and those written."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """What a call computes and moves."""

    flops: int
    bytes: int

    def floor_seconds(self, machine: Machine) -> float:
        """Return how long it takes at least if computing hides moving, or the other way round."""
        return max(self.flops / machine.flops, self.bytes / machine.bytes)


def measure_machine(device: torch.device, dtype: torch.dtype, wait: Callable[[], object]) -> Machine:
    """Return the best of some large matrix products and copies."""
    side, count = (8192, 1 << 30) if device.type == "cuda" else (2048, 1 << 28)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(count // 4, device=device)
    target = torch.empty_like(source)
    product = min(seconds(lambda: torch.mm(a, b), wait) for _ in range(6))
    copy = min(seconds(lambda: target.copy_(source), wait) for _ in range(6))
    return Machine(2 * side**3 / product, 2 * count / copy)


class _Bytes(TorchDispatchMode):
    """Adds up what every operation reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    # Its types are torch's own.
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 -- torch's own
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in str(func) and "detach" not in str(func):
            for one in pytree.tree_leaves((args, kwargs, out)):
                if isinstance(one, Tensor):
                    self.total += one.numel() * one.element_size()
        return out


def count(run: Callable[[], object]) -> Work:
    """Return what ``run`` computes and moves, operation by operation as PyTorch issues them."""
    with FlopCounterMode(display=False) as flops:
        run()
    with _Bytes() as moved:
        run()
    return Work(flops.get_total_flops(), moved.total)
