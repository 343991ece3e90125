"""The building blocks of the candidate operations and of a cell's preprocessing.

Weights and layouts follow DARTS (Liu et al., ICLR 2019): ReLU, convolution, batch normalisation. At a stride of 2
every block rounds odd sizes up. On a CPU some blocks replace PyTorch's kernels by rearranged ones that are faster
and numerically equal.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.fused import relu_depthwise


@dataclass(frozen=True)
class Normalization:
    """How batch normalisation is done: with learned scale and shift or not, with running averages or not."""

    affine: bool = True
    running: bool = True

    def layer(self, channels: int) -> nn.BatchNorm2d:
        """Return a batch normalisation over ``channels``."""
        return nn.BatchNorm2d(channels, affine=self.affine, track_running_stats=self.running)


def _is_recorded() -> bool:
    """Whether an exporter records the operations: ONNX's, torch.export, or a trace.

    Exporters want the operations themselves, which every runtime knows, in any memory format.
    """
    # PyTorch gives is_tracing no types.
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced or torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()


def _for_cpu(x: Tensor) -> bool:
    """Whether ``x`` is better computed with the rearrangements that are fast in PyTorch's CPU kernels."""
    return device_kind(x) == "cpu" and not _is_recorded()


def _rearranged(x: Tensor) -> bool:
    """Whether ``x`` is better computed with rearrangements that keep channels_last on a CPU and on a GPU."""
    return device_kind(x) in ("cpu", "cuda") and not _is_recorded()


def _for_training(x: Tensor) -> bool:
    return torch.is_grad_enabled() and _rearranged(x)


class _Concatenation(torch.autograd.Function):
    """Concatenate channels; the gradients come apart as dense tensors.

    Those of torch.cat are slices of one tensor. On them, batch normalisation's backward is 10 times slower on a
    CPU, and on a GPU it runs in the kernels for NCHW.
    """

    @staticmethod
    def forward(ctx: Any, *states: Tensor) -> Tensor:  # noqa: ANN401 -- PyTorch does not name its type
        """Return (N, sum of C, H, W)."""
        ctx.channels = [state.shape[1] for state in states]
        last = states[0].is_contiguous(memory_format=torch.channels_last)
        ctx.memory_format = torch.channels_last if last else torch.contiguous_format
        return torch.cat(states, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Return the gradient of each state, in the states' own order of memory."""
        parts = torch.split(gradient, ctx.channels, dim=1)
        alike = len(set(ctx.channels)) == 1 and ctx.memory_format == torch.channels_last
        if device_kind(gradient) == "cuda" and alike:
            # One copy for all: a launch costs more than a strided read.
            batch, _, height, width = gradient.shape
            pixels = gradient.permute(0, 2, 3, 1).reshape(batch, height, width, len(parts), -1)
            return tuple(part.permute(0, 3, 1, 2) for part in pixels.permute(3, 0, 1, 2, 4).contiguous().unbind())
        return tuple(part.contiguous(memory_format=ctx.memory_format) for part in parts)


def concatenate(states: list[Tensor]) -> Tensor:
    """Return the states (N, C, H, W) side by side along the channels."""
    if _for_training(states[0]):
        out: Tensor = _Concatenation.apply(*states)
        return out
    return torch.cat(states, dim=1)


class MaxPool(nn.MaxPool2d):
    """The largest of 3x3 pixels: (N, C, H, W) to the same shape, or at a stride of 2 to half of it, rounded up."""

    def __init__(self, stride: int) -> None:
        super().__init__(3, stride, padding=1)
        self._step = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled state."""
        if torch.are_deterministic_algorithms_enabled() and device_kind(x) == "cuda":
            return self._by_pixels(x)
        out: Tensor = super().forward(x)
        return out

    def _by_pixels(self, x: Tensor) -> Tensor:
        """Pool by nine shifted images, because PyTorch's backward pass on a GPU adds in no fixed order."""
        step = self._step
        height, width = ((size - 1) // step + 1 for size in x.shape[2:])
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        parts = [
            padded[
                :, :, row : row + step * (height - 1) + 1 : step, column : column + step * (width - 1) + 1 : step
            ]
            for row in range(3)
            for column in range(3)
        ]
        # The first of equal pixels gets the gradient, as in PyTorch's pooling.
        out: Tensor = torch.stack(parts).max(dim=0).values
        return out.contiguous(memory_format=torch.channels_last)


class ReLUFirst(nn.Sequential):
    """A sequence that begins with a ReLU."""

    def fuses(self, x: Tensor) -> bool:
        """Whether the ReLU of ``x`` is a part of the next operation. Then one that users share does not help."""
        return device_kind(x) == "cuda" and isinstance(self[1], Depthwise | DilatedDepthwise)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output; on a GPU, each ReLU before a depthwise convolution is a part of it."""
        fuses, done = self.fuses(x), False
        for module, following in itertools.pairwise([*self, None]):
            if fuses and isinstance(module, nn.ReLU) and isinstance(following, Depthwise | DilatedDepthwise):
                x = relu_depthwise(x, following.weight, following.stride[0], following.dilation[0])
                done = True
            elif done:
                done = False
            else:
                assert module is not None
                x = module(x)
        return x

    def activated(self, x: Tensor) -> Tensor:
        """Return the output for an input whose ReLU is done already, so that users of one state share it."""
        for module in itertools.islice(self, 1, None):
            x = module(x)
        return x


def pointwise(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(channels_in, channels_out, 1, bias=False)


class ReLUConvBN(ReLUFirst):
    """ReLU, 1x1 convolution, batch normalisation: (N, C_in, H, W) to (N, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, norm: Normalization) -> None:
        super().__init__(nn.ReLU(), pointwise(channels_in, channels_out), norm.layer(channels_out))


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing pixels: (N, C_in, H, W) to (N, C_out, ceil(H/2), ceil(W/2)).

    Two 1x1 convolutions of stride 2, one of them a pixel down and to the right, make half of the channels each.
    """

    def __init__(self, channels_in: int, channels_out: int, norm: Normalization) -> None:
        super().__init__()
        half = channels_out // 2
        self.conv_1 = nn.Conv2d(channels_in, half, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, channels_out - half, 1, stride=2, bias=False)
        self.bn = norm.layer(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reduced state."""
        return self.activated(F.relu(x))

    def activated(self, x: Tensor) -> Tensor:
        """Return the reduced state for an input whose ReLU is done already."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        halves = self._by_pixels(x) if _rearranged(x) else (self.conv_1(x), self.conv_2(x[:, :, 1:, 1:]))
        out: Tensor = self.bn(concatenate(list(halves)))
        return out

    def _by_pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both halves from the pixels that each is made of.

        The backward pass of a strided 1x1 convolution on a CPU fills its whole input's gradient, and that of a
        slice does so again for each axis. On a GPU, the slice of the second half is not in channels_last.
        """
        even, odd = _EverySecondPixel.apply(x, (0, 1))
        return F.conv2d(even, self.conv_1.weight), F.conv2d(odd, self.conv_2.weight)


def _diagonals(x: Tensor) -> Tensor:
    """Return the first and the last pixel of every square of 2x2: a view (2, N, H/2, W/2, C) of (N, C, H, W)."""
    batch, channels, height, width = x.shape
    squares = x.permute(0, 2, 3, 1).view(batch, height // 2, 2, width // 2, 2, channels)
    return squares.diagonal(dim1=2, dim2=4).permute(4, 0, 1, 2, 3)


class _MeanOfPixels(torch.autograd.Function):
    """The mean of each channel, with a gradient in channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        """Return (N, C) for (N, C, H, W)."""
        ctx.shape = x.shape
        out: Tensor = x.mean(dim=(2, 3))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        """Return the gradient, which is the same for all pixels."""
        batch, channels, height, width = ctx.shape
        each: Tensor = (gradient / (height * width))[:, None].expand(batch, height * width, channels)
        return each.contiguous().view(batch, height, width, channels).permute(0, 3, 1, 2)


def mean_of_pixels(x: Tensor) -> Tensor:
    """Return the mean of each channel: (N, C) for (N, C, H, W)."""
    if device_kind(x) == "cuda" and _for_training(x):
        out: Tensor = _MeanOfPixels.apply(x)
    else:
        out = x.mean(dim=(2, 3))
    return out


class _EverySecondPixel(torch.autograd.Function):
    """Every second pixel of every second row, from each of some starts on the diagonal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: tuple[int, ...]) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Return, for each start, about a quarter of (N, C, H, W)."""
        ctx.shape, ctx.starts = x.shape, starts
        if device_kind(x) == "cuda" and len(starts) == 2:
            # One copy for both.
            return tuple(part.permute(0, 3, 1, 2) for part in _diagonals(x).contiguous().unbind())
        return tuple(x[:, :, start::2, start::2].contiguous(memory_format=torch.channels_last) for start in starts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Return the gradient, zero for the pixels that were left out."""
        batch, channels, height, width = ctx.shape
        for_x = gradients[0].new_zeros(batch, height, width, channels).permute(0, 3, 1, 2)
        for start, gradient in zip(ctx.starts, gradients, strict=True):
            for_x[:, :, start::2, start::2] = gradient
        return for_x, None


class _DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution of stride 1 that keeps the size, with a backward pass that is fast on a CPU.

    PyTorch's is 10 to 50 times slower than its forward with dilation, and 10 times with kernels wider than 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:  # noqa: ANN401
        """Convolve (N, C, H, W) with weights (C, 1, K, K) to (N, C, H, W)."""
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _native_depthwise(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        """Return the gradients of the input and of the weights."""
        x, weight = ctx.saved_tensors
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = _native_depthwise(gradient, weight.flip(2, 3), ctx.dilation)
        if ctx.needs_input_grad[1]:
            for_weight = _weight_gradient(x, gradient, weight.shape[2], ctx.dilation)
        return for_x, for_weight, None


def _native_depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[2] // 2)
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=x.shape[1])


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: int, dilation: int) -> Tensor:
    """Return the gradient (C, 1, K, K) of a depthwise convolution's weights."""
    if dilation == 2:
        for_phases = _weight_gradient(_phases(x), _phases(gradient), kernel, 1)
        return for_phases.view(2, -1, 1, kernel, kernel).sum(0)
    if kernel != 5:
        return _native_weight_gradient(x, gradient, (kernel, kernel))
    missing = kernel - x.shape[2]
    if missing > 0:
        # oneDNN's kernel is 10 times slower on maps that are lower than the window.
        x, gradient = F.pad(x, (0, 0, 0, missing)), F.pad(gradient, (0, 0, 0, missing))
    # A 5x3 window meets a pixel's neighbours -1 to 1; with the input moved to one side of the gradient by one
    # pixel it meets -2 to 0, and moved to the other 0 to 2.
    x_before, x_behind = _gapped(x)
    gradient_before, gradient_behind = _gapped(gradient)
    left = _native_weight_gradient(x_before, gradient_behind, (5, 3))
    right = _native_weight_gradient(x_behind, gradient_before, (5, 3))
    return torch.cat((left, right[..., 1:]), dim=3)


def _native_weight_gradient(x: Tensor, gradient: Tensor, kernel: tuple[int, int]) -> Tensor:
    channels = x.shape[1]
    padding = (kernel[0] // 2, kernel[1] // 2)
    like = x.new_empty(channels, 1, *kernel)
    for_all: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, like, None, (1, 1), padding, (1, 1), False, (0, 0), channels, (False, True, False)
    )
    return for_all[1]


def _phases(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as the phases that a dilation of 2 keeps apart: (2 N, 2 C, ceil(H/2), ceil(W/2)).

    In channels_last an even and an odd pixel side by side are one pixel of twice the channels, without a copy.
    Even and odd rows go into the batch.
    """
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    pairs = x.permute(0, 2, 3, 1).reshape(batch, rows, 2, columns, 2 * channels)
    return pairs.permute(2, 0, 1, 3, 4).reshape(2 * batch, rows, columns, 2 * channels).permute(0, 3, 1, 2)


def _gapped(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` (N, C, H, W) with a column of zeros before it and with one behind it, in one copy.

    A zero pixel follows each row and one precedes the first; from one pixel further on the same memory reads the
    other way.
    """
    batch, channels, height, width = x.shape
    pixels = x.new_empty((batch * height * (width + 1) + 1) * channels)
    shape = (batch, height, width + 1, channels)
    before, behind = pixels[:-channels].view(shape), pixels[channels:].view(shape)
    before[0, 0, 0] = 0
    behind[:, :, width] = 0
    behind[:, :, :width] = x.permute(0, 2, 3, 1)
    return before.permute(0, 3, 1, 2), behind.permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve (N, C, H, W) with weights (C, 1, K, K), stride 1, to the same shape."""
    slow = dilation == 2 or weight.shape[2] == 5
    # Autocast changes types between the passes, which a function of one's own would have to follow.
    trained = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    if slow and trained and _for_cpu(x):
        out: Tensor = _DepthwiseFunction.apply(x, weight, dilation)
        return out
    return _native_depthwise(x, weight, dilation)


class Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps the size, or halves it at a stride of 2."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) to (N, C, H, W) or, at a stride of 2, to (N, C, ceil(H/2), ceil(W/2))."""
        return _depthwise(x, self.weight, 1) if self.stride[0] == 1 else super().forward(x)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with dilation 2 that keeps the size, or halves it at a stride of 2."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel,
            stride=stride,
            padding=2 * (kernel // 2),
            dilation=2,
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) to (N, C, H, W) or, at a stride of 2, to (N, C, ceil(H/2), ceil(W/2))."""
        if self.stride[0] == 1:
            return _depthwise(x, self.weight, 2)
        if _for_cpu(x) and torch.is_grad_enabled():
            # A stride of 2 over a dilation of 2 meets even rows and columns only.
            (even,) = _EverySecondPixel.apply(x, (0,))
            return _depthwise(even, self.weight, 1)
        return super().forward(x)
