"""Operations for GPUs that do the work of several of PyTorch's in one kernel.

They are registered with PyTorch, so that what is dispatched can be counted and replayed. A GPU with Triton runs its
kernels; everything else runs PyTorch's own operations, which are also what the kernels are tested against.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import lru_cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SWITCH: Final = "CARS_HW_TRITON"
"""The environment variable that, as 0, has PyTorch's own operations run in place of Triton's kernels."""

_LOG: Final = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Return whether Triton is installed and not switched off; PyTorch for CUDA on Linux brings it along."""
    return os.environ.get(SWITCH) != "0" and importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=1)
def _launches() -> bool:
    """Return whether Triton can launch a kernel, which needs a C compiler and a folder for its cache, too.

    A small kernel is launched once. If that fails, a warning says why.
    """
    try:
        from cars_hw.nn.triton_trial import launch

        launch()
    except Exception as error:  # noqa: BLE001 -- whatever Triton, its compilers and the driver raise
        reason = " ".join(f"{error}".split()) or type(error).__name__
        _LOG.warning(
            "Triton cannot launch its kernels (%s). PyTorch's own operations run, which are slower; Triton needs a "
            "C compiler and a folder that it may write (TRITON_CACHE_DIR). %s=0 leaves Triton out.",
            reason[:200],
            SWITCH,
        )
        return False
    return True


def by_triton(x: Tensor) -> bool:
    """Return whether Triton's kernels compute what reads ``x``."""
    # The kernels add in float32, which would be a loss in double precision.
    return x.is_cuda and x.dtype != torch.float64 and has_triton() and _launches()


def _relu_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    if by_triton(x):
        from cars_hw.nn.triton_depthwise import Window, depthwise

        with torch.cuda.device(x.device):
            return depthwise(_pixels_last(x), weight, Window(stride, dilation, relu=True))
    padding = dilation * (weight.shape[2] // 2)
    return F.conv2d(F.relu(x), weight, None, stride, padding, dilation, x.shape[1])


def _relu_depthwise_backward(  # noqa: PLR0917 -- PyTorch passes all by their places
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    none = x.new_empty(0)
    if by_triton(x):
        from cars_hw.nn import triton_depthwise as kernels

        window = kernels.Window(stride, dilation, relu=True)
        with torch.cuda.device(x.device):
            given = _pixels_last(gradient), _pixels_last(x), weight, window
            for_x = kernels.depthwise_input_gradient(*given) if mask[0] else none
            for_weight = kernels.depthwise_weight_gradient(*given) if mask[1] else none
        return for_x, for_weight
    padding = dilation * (weight.shape[2] // 2)
    sizes = (stride, stride), (padding, padding), (dilation, dilation), False, (0, 0), x.shape[1]
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, F.relu(x), weight, None, *sizes, (*mask, False)
    )
    for_x = none if found[0] is None else torch.where(x <= 0, 0, found[0])
    return for_x, none if found[1] is None else found[1]


def _library() -> Any:  # noqa: ANN401 -- PyTorch does not type it
    library: Any = torch.library
    made = library.Library("cars_hw", "DEF")
    given = "Tensor x, Tensor weight, int stride, int dilation"
    made.define(f"relu_depthwise({given}) -> Tensor")
    made.define(f"relu_depthwise_backward(Tensor gradient, {given}, bool[2] mask) -> (Tensor, Tensor)")
    made.impl("relu_depthwise", _relu_depthwise, "CompositeExplicitAutograd")
    made.impl("relu_depthwise_backward", _relu_depthwise_backward, "CompositeExplicitAutograd")
    return made


_LIBRARY: Final = _library()
"""The operations exist for as long as this does."""


def _pixels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class _ReLUDepthwise(torch.autograd.Function):
    """The depthwise convolution of a ReLU; the ReLU is not kept, but done again on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:  # noqa: ANN401
        """Convolve the ReLU of (N, C, H, W) with weights (C, 1, K, K)."""
        ctx.save_for_backward(x, weight)
        ctx.sizes = stride, dilation
        out: Tensor = torch.ops.cars_hw.relu_depthwise(x, weight, stride, dilation)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        """Return the gradients of the input and of the weights."""
        x, weight = ctx.saved_tensors
        mask = list(ctx.needs_input_grad[:2])
        found = torch.ops.cars_hw.relu_depthwise_backward(gradient, x, weight, *ctx.sizes, mask)
        for_x, for_weight = (value if needed else None for value, needed in zip(found, mask, strict=True))
        return for_x, for_weight, None, None


def relu_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Convolve the ReLU of (N, C, H, W) with weights (C, 1, K, K), each channel with its own.

    The size stays, or at a ``stride`` of 2 half of it, rounded up, is left. Under autocast both are cast, as for a
    convolution of PyTorch.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        low = torch.get_autocast_dtype(kind)
        x, weight = x.to(low), weight.to(low)
    if torch.is_grad_enabled():
        out: Tensor = _ReLUDepthwise.apply(x, weight, stride, dilation)
    else:
        out = torch.ops.cars_hw.relu_depthwise(x, weight, stride, dilation)
    return out
