"""What a CUDA graph does, on a CPU: operations are written down with their tensors, and run again on the same ones.

Whatever a pass takes from Python (a number, a shape, a fresh tensor) is frozen at recording, as it is in a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

SYNCHRONISING = ("_local_scalar_dense", "nonzero", "item", "masked_select")


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.overwritten: dict[int, tuple[Tensor, Tensor]] = {}

    # Its types are torch's own.
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        for one in pytree.tree_leaves((args, kwargs) if func._schema.is_mutable else _averages(func, args)):
            if isinstance(one, Tensor):
                self.overwritten.setdefault(id(one), (one, one.detach().clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def _averages(func: Any, args: Any) -> Any:  # noqa: ANN401
    """Return the running averages that a batch normalisation changes, of which its schema says nothing."""
    return args[3:5] if func is torch.ops.aten.native_batch_norm.default else ()


class EmulatedRecorder:
    """Records as :class:`cars_hw.training.recorder.CudaRecorder` does."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run ``work``, record it without an effect, and return its replay."""
        work()
        numbers = torch.get_rng_state()
        with _Tape() as tape:
            work()
        # A real recording does not run anything, and draws no random numbers.
        torch.set_rng_state(numbers)
        with torch.no_grad():
            # The earliest copy last: a later one of another view has values that were written in between.
            for tensor, before in reversed(tape.overwritten.values()):
                tensor.detach().copy_(before)
        self.recorded += 1
        for func, *_ in tape.calls:
            assert not any(name in str(func) for name in SYNCHRONISING), f"{func} makes a GPU wait for Python"

        def replay() -> None:
            self.replayed += 1
            # What is recorded lies below autograd, which has had its say when it was.
            with torch._C._AutoDispatchBelowAutograd():
                for func, args, kwargs, out in tape.calls:
                    _again(func, args, kwargs, out)

        return replay


def _again(func: Any, args: Any, kwargs: Any, out: Any) -> None:  # noqa: ANN401
    """Run one operation once more; its results go where they went when it was recorded."""
    if func.is_view:
        return
    results = [one for one in pytree.tree_leaves(func(*args, **kwargs)) if isinstance(one, Tensor)]
    targets = [one for one in pytree.tree_leaves(out) if isinstance(one, Tensor)]
    # What an operation changes may be among its results.
    changed = [argument.alias_info is not None for argument in func._schema.returns]
    if any(changed):
        return
    for result, target in zip(results, targets, strict=True):
        if result is not target:
            target.copy_(result)
