"""A small Triton kernel that tells whether Triton works on this machine.

See :mod:`cars_hw.nn.triton_separable` about the import.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _count(out, lanes: tl.constexpr):
    lane = tl.arange(0, lanes)
    tl.store(out + lane, lane)


def launch() -> None:
    """Launch a kernel on the present GPU, and wait for it.

    Raises:
        RuntimeError: the kernel has written something else than it should. Triton raises what it likes.
    """
    out = torch.zeros(16, dtype=torch.int32, device="cuda")
    _count[(1,)](out, lanes=16)
    if out.tolist() != list(range(16)):
        raise RuntimeError("a small kernel has written wrong numbers")
