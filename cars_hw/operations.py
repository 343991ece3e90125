"""The candidate operations of the DARTS space, and the two that bring a cell's inputs to its width.

Layouts and weights follow DARTS (Liu et al., ICLR 2019): ReLU, convolution, batch normalisation. Pooling is not
followed by a normalisation, in the SuperNet neither, so that what is searched is what ships. Sizes that are
odd are rounded up at a stride of 2, by every operation alike.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Normalization:
    """How batch normalisation is done: with learned scale and shift or not, with running averages or not."""

    affine: bool = True
    running: bool = True

    def layer(self, channels: int) -> nn.BatchNorm2d:
        """Return a batch normalisation over ``channels``."""
        return nn.BatchNorm2d(channels, affine=self.affine, track_running_stats=self.running)


def _for_cpu(x: Tensor) -> bool:
    """Whether ``x`` is better computed with the rearrangements that are fast in PyTorch's CPU kernels.

    Exporters want the operations themselves, which every runtime knows.
    """
    return x.device.type == "cpu" and not torch.onnx.is_in_onnx_export()


class _Concatenation(torch.autograd.Function):
    """Concatenate channels; the gradients come apart as dense tensors.

    Those of torch.cat are slices of one tensor, on which batch normalisation's CPU backward is 10 times slower.
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
        return tuple(part.contiguous(memory_format=ctx.memory_format) for part in parts)


def concatenate(states: list[Tensor]) -> Tensor:
    """Return the states (N, C, H, W) side by side along the channels."""
    if _for_cpu(states[0]) and torch.is_grad_enabled():
        out: Tensor = _Concatenation.apply(*states)
        return out
    return torch.cat(states, dim=1)


class ReLUFirst(nn.Sequential):
    """A sequence that begins with a ReLU."""

    def activated(self, x: Tensor) -> Tensor:
        """Return the output for an input whose ReLU is done already, so that users of one state share it."""
        for module in itertools.islice(self, 1, None):
            x = module(x)
        return x


class ReLUConvBN(ReLUFirst):
    """ReLU, 1x1 convolution, batch normalisation: (N, C_in, H, W) to (N, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, norm: Normalization) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(channels_in, channels_out, 1, bias=False), norm.layer(channels_out))


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
        halves = self._by_pixels(x) if _for_cpu(x) else (self.conv_1(x), self.conv_2(x[:, :, 1:, 1:]))
        out: Tensor = self.bn(concatenate(list(halves)))
        return out

    def _by_pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both halves from the pixels that each is made of.

        The backward pass of a strided 1x1 convolution on a CPU fills its whole input's gradient, and that of a
        slice does so again for each axis; here it is one copy.
        """
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2 * channels)
        even, odd = rows.unbind(2)
        first, second = even[..., :channels].contiguous(), odd[..., channels:].contiguous()
        return (
            F.conv2d(first.permute(0, 3, 1, 2), self.conv_1.weight),
            F.conv2d(second.permute(0, 3, 1, 2), self.conv_2.weight),
        )


class _FiveByFive(torch.autograd.Function):
    """A depthwise 5x5 convolution of stride 1 that keeps the size, with a fast gradient of the weights.

    oneDNN's kernel for that gradient is 10 times slower for widths above 3 than for 3, so it is computed as two
    5x3 kernels that share their middle column.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401 -- PyTorch does not name its type
        """Convolve (N, C, H, W) with weights (C, 1, 5, 5) to (N, C, H, W)."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        """Return the gradients of the input and of the weights."""
        x, weight = ctx.saved_tensors
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x, _ = _depthwise_backward(gradient, x, weight, (True, False))
        if ctx.needs_input_grad[1]:
            for_weight = _five_by_five_weight_gradient(x, gradient)
        return for_x, for_weight


def _depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    both: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), x.shape[1], (*wanted, False)
    )
    return both[0], both[1]


def _five_by_five_weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    # A 5x3 kernel meets a pixel's neighbours -1 to 1; with the input moved to one side of the gradient by one
    # pixel it meets -2 to 0, and moved to the other 0 to 2.
    like = gradient.new_empty(x.shape[1], 1, 5, 3)
    missing = 5 - x.shape[2]
    if missing > 0:
        # And 10 times slower it is again on maps that are lower than the kernel.
        x, gradient = F.pad(x, (0, 0, 0, missing)), F.pad(gradient, (0, 0, 0, missing))
    x_before, x_behind = _gapped(x)
    gradient_before, gradient_behind = _gapped(gradient)
    _, left = _depthwise_backward(gradient_behind, x_before, like, (False, True))
    _, right = _depthwise_backward(gradient_before, x_behind, like, (False, True))
    return torch.cat((left, right[..., 1:]), dim=3)


def _gapped(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` (N, C, H, W) with a column of zeros before it and with one behind it, in one copy.

    Every row is followed by a zero pixel, and so is nothing by the first; from one pixel further on the same
    memory reads the other way.
    """
    batch, channels, height, width = x.shape
    pixels = x.new_zeros((batch * height * (width + 1) + 1) * channels)
    shape = (batch, height, width + 1, channels)
    before, behind = pixels[:-channels].view(shape), pixels[channels:].view(shape)
    behind[:, :, :width] = x.permute(0, 2, 3, 1)
    return before.permute(0, 3, 1, 2), behind.permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (N, C, H, W) with weights (C, 1, K, K), stride 1, to the same shape."""
    kernel = weight.shape[2]
    trainable = weight.requires_grad and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    if kernel == 5 and trainable and _for_cpu(x):
        out: Tensor = _FiveByFive.apply(x, weight)
        return out
    return F.conv2d(x, weight, padding=kernel // 2, groups=x.shape[1])


class Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps the size, or halves it at a stride of 2."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) to (N, C, H, W) or, at a stride of 2, to (N, C, ceil(H/2), ceil(W/2))."""
        return _depthwise(x, self.weight) if self.stride[0] == 1 else super().forward(x)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with dilation 2 whose backward pass is fast on a CPU as well.

    PyTorch's CPU backward of a dilated depthwise convolution is 10 to 50 times slower than its forward. The
    even and the odd rows and columns of the input never meet in such a convolution, so on a CPU the four
    phases go into the batch and are convolved without dilation; at a stride of 2 only one phase is wanted.
    """

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
        return self.by_phases(x) if _for_cpu(x) and torch.is_grad_enabled() else super().forward(x)

    def by_phases(self, x: Tensor) -> Tensor:
        """Return the same values as the native operation, computed on the phases."""
        if self.stride[0] == 2:
            # Sliced as (N, H, W, C), for a slice's gradient is made in the plain order of its input's axes.
            even = x.permute(0, 2, 3, 1)[:, ::2, ::2].contiguous().permute(0, 3, 1, 2)
            return _depthwise(even, self.weight)
        batch, channels, height, width = x.shape
        # A row or column of zeros more is what the native padding has there anyway.
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        # In channels_last (N, H, W, C) is what lies in memory: an even and an odd pixel side by side are one pixel
        # of twice the channels, without a copy; even and odd rows go into the batch, row by row.
        pairs = x.permute(0, 2, 3, 1).reshape(batch, rows, 2, columns, 2 * channels)
        phases = pairs.permute(2, 0, 1, 3, 4).reshape(2 * batch, rows, columns, 2 * channels)
        out = _depthwise(phases.permute(0, 3, 1, 2), self.weight.repeat(2, 1, 1, 1))
        pairs = out.permute(0, 2, 3, 1).reshape(2, batch, rows, columns, 2 * channels)
        whole = pairs.permute(1, 2, 0, 3, 4).reshape(batch, 2 * rows, 2 * columns, channels)
        return whole.permute(0, 3, 1, 2)[:, :, :height, :width]


class SepConv(ReLUFirst):
    """Twice: ReLU, depthwise, pointwise, batch normalisation; the stride is in the first."""

    def __init__(self, channels: int, kernel: int, stride: int, norm: Normalization) -> None:
        super().__init__(
            nn.ReLU(),
            Depthwise(channels, kernel, stride),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm.layer(channels),
            # In place is safe here and only here: nobody else holds the normalisation's output.
            nn.ReLU(inplace=True),
            Depthwise(channels, kernel, 1),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm.layer(channels),
        )


class DilConv(ReLUFirst):
    """ReLU, dilated depthwise, pointwise, batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, norm: Normalization) -> None:
        super().__init__(
            nn.ReLU(),
            DilatedDepthwise(channels, kernel, stride),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm.layer(channels),
        )


def make_operation(name: str, channels: int, stride: int, norm: Normalization) -> nn.Module:
    """Return the operation ``name`` from (N, C, H, W) to the same shape, or to half of it at ``stride`` 2.

    ``none`` has no module: an absent edge is not computed, so asking for one is a ValueError.
    """
    kernel = 5 if name.endswith("5x5") else 3
    match name:
        case "max_pool_3x3":
            return nn.MaxPool2d(kernel, stride, padding=1)
        case "avg_pool_3x3":
            return nn.AvgPool2d(kernel, stride, padding=1, count_include_pad=False)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, norm)
        case "sep_conv_3x3" | "sep_conv_5x5":
            return SepConv(channels, kernel, stride, norm)
        case "dil_conv_3x3" | "dil_conv_5x5":
            return DilConv(channels, kernel, stride, norm)
        case _:
            raise ValueError(f"no module computes '{name}'")
