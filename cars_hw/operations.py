"""The candidate operations of the DARTS space, and the two that bring a cell's inputs to its width.

Layouts and weights follow DARTS (Liu et al., ICLR 2019): ReLU, convolution, batch normalisation. Pooling is not
followed by a normalisation, in the SuperNet neither, so that what is searched is what ships. Sizes that are
odd are rounded up at a stride of 2, by every operation alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Normalization:
    """How batch normalisation is done: with learned scale and shift or not, with running averages or not."""

    affine: bool = True
    running: bool = True

    def layer(self, channels: int) -> nn.BatchNorm2d:
        """Return a batch normalisation over ``channels``."""
        return nn.BatchNorm2d(channels, affine=self.affine, track_running_stats=self.running)


class ReLUConvBN(nn.Sequential):
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
        x = F.relu(x)
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        halves = (self.conv_1(x), self.conv_2(x[:, :, 1:, 1:]))
        out: Tensor = self.bn(torch.cat(halves, dim=1))
        return out


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
        # Exporters run with gradients on, and what is exported is the operation itself, which runtimes know.
        if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
            return super().forward(x)
        return self.by_phases(x)

    def by_phases(self, x: Tensor) -> Tensor:
        """Return the same values as the native operation, computed on the phases."""
        padding = self.kernel_size[0] // 2
        if self.stride[0] == 2:
            even = x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
            return F.conv2d(even, self.weight, None, 1, padding, 1, self.groups)
        batch, channels, height, width = x.shape
        # A row or column of zeros more is what the native padding has there anyway.
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        # In channels_last the reshuffle is a copy of whole pixels: (N, H, W, C) is what lies in memory.
        pixels = x.permute(0, 2, 3, 1).reshape(batch, rows, 2, columns, 2, channels)
        phases = pixels.permute(2, 4, 0, 1, 3, 5).reshape(4 * batch, rows, columns, channels)
        out = F.conv2d(phases.permute(0, 3, 1, 2), self.weight, None, 1, padding, 1, self.groups)
        pixels = out.permute(0, 2, 3, 1).reshape(2, 2, batch, rows, columns, channels)
        whole = pixels.permute(2, 3, 0, 4, 1, 5).reshape(batch, 2 * rows, 2 * columns, channels)
        return whole.permute(0, 3, 1, 2)[:, :, :height, :width]


class SepConv(nn.Sequential):
    """Twice: ReLU, depthwise, pointwise, batch normalisation; the stride is in the first."""

    def __init__(self, channels: int, kernel: int, stride: int, norm: Normalization) -> None:
        def depthwise(stride: int) -> nn.Conv2d:
            return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

        super().__init__(
            nn.ReLU(),
            depthwise(stride),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm.layer(channels),
            # In place is safe here and only here: nobody else holds the normalisation's output.
            nn.ReLU(inplace=True),
            depthwise(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm.layer(channels),
        )


class DilConv(nn.Sequential):
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
