"""Triton kernels for depthwise convolutions in channels_last, with and without dilation, of any stride and size.

In channels_last, cuDNN's kernels for dilated depthwise convolutions are ten times slower than the memory. Here,
every output is a sum over the pixels of its window. Sums are made in float32 and in a fixed order, so that results
are deterministic. A ReLU of the input is done where the input is read, and its gradient where the gradient is
written.

Import this module only where Triton is installed. With ``TRITON_INTERPRET=1`` in the environment, the kernels run
on a CPU.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS: Final = 128
"""Pixels of a block."""
PARTS: Final = 96
"""Parts into which the pixels are divided for a gradient of weights: several for each processor of a large GPU."""


class Window(NamedTuple):
    """How a depthwise convolution moves over its input, and whether it reads the ReLU of it."""

    stride: int = 1
    dilation: int = 1
    relu: bool = False


@triton.jit
def _forward(
    x,
    w,
    out,
    total,
    channels,
    height,
    width,
    out_height,
    out_width,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    relu: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
):
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    lane = tl.program_id(1) * lanes + tl.arange(0, lanes)
    column = pixel % out_width
    row = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    valid = pixel < total
    present = lane < channels
    padding = dilation * (kernel // 2)
    sums = tl.zeros((pixels, lanes), dtype=tl.float32)
    for down in range(kernel):
        for right in tl.static_range(kernel):
            y = row * stride - padding + down * dilation
            z = column * stride - padding + right * dilation
            inside = valid & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            place = ((image * height + y) * width + z).to(tl.int64) * channels
            value = tl.load(
                x + place[:, None] + lane[None, :], mask=inside[:, None] & present[None, :], other=0.0
            ).to(tl.float32)
            if relu:
                # A number that is none passes, as in PyTorch.
                value = tl.where(value <= 0, 0.0, value)
            weight = tl.load(w + lane * (kernel * kernel) + down * kernel + right, mask=present, other=0.0)
            sums += value * weight.to(tl.float32)[None, :]
    place = pixel.to(tl.int64) * channels
    tl.store(
        out + place[:, None] + lane[None, :],
        sums.to(out.dtype.element_ty),
        mask=valid[:, None] & present[None, :],
    )


@triton.jit
def _for_input(
    gradient,
    x,
    w,
    out,
    total,
    channels,
    height,
    width,
    out_height,
    out_width,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    relu: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
):
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    lane = tl.program_id(1) * lanes + tl.arange(0, lanes)
    column = pixel % width
    row = (pixel // width) % height
    image = pixel // (width * height)
    valid = pixel < total
    present = lane < channels
    padding = dilation * (kernel // 2)
    sums = tl.zeros((pixels, lanes), dtype=tl.float32)
    for down in range(kernel):
        for right in tl.static_range(kernel):
            # The output whose window has this pixel at (down, right), if the stride meets it.
            y = row + padding - down * dilation
            z = column + padding - right * dilation
            met = valid & (y >= 0) & (z >= 0) & (y % stride == 0) & (z % stride == 0)
            y = y // stride
            z = z // stride
            met = met & (y < out_height) & (z < out_width)
            place = ((image * out_height + y) * out_width + z).to(tl.int64) * channels
            value = tl.load(
                gradient + place[:, None] + lane[None, :], mask=met[:, None] & present[None, :], other=0.0
            ).to(tl.float32)
            weight = tl.load(w + lane * (kernel * kernel) + down * kernel + right, mask=present, other=0.0)
            sums += value * weight.to(tl.float32)[None, :]
    place = pixel.to(tl.int64) * channels
    written = valid[:, None] & present[None, :]
    if relu:
        value = tl.load(x + place[:, None] + lane[None, :], mask=written, other=0.0)
        sums = tl.where(value <= 0, 0.0, sums)
    tl.store(out + place[:, None] + lane[None, :], sums.to(out.dtype.element_ty), mask=written)


@triton.jit
def _for_weight(
    gradient,
    x,
    out,
    total,
    blocks,
    channels,
    height,
    width,
    out_height,
    out_width,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    relu: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    columns: tl.constexpr,
):
    part = tl.program_id(0)
    down = tl.program_id(1)
    lane = tl.program_id(2) * lanes + tl.arange(0, lanes)
    present = lane < channels
    padding = dilation * (kernel // 2)
    across = tl.arange(0, columns)
    sums = tl.zeros((columns, lanes), dtype=tl.float32)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        column = pixel % out_width
        row = (pixel // out_width) % out_height
        image = pixel // (out_width * out_height)
        valid = pixel < total
        place = pixel.to(tl.int64) * channels
        passed = tl.load(
            gradient + place[:, None] + lane[None, :], mask=valid[:, None] & present[None, :], other=0.0
        ).to(tl.float32)
        y = row * stride - padding + down * dilation
        for right in tl.static_range(kernel):
            z = column * stride - padding + right * dilation
            inside = valid & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            place = ((image * height + y) * width + z).to(tl.int64) * channels
            value = tl.load(
                x + place[:, None] + lane[None, :], mask=inside[:, None] & present[None, :], other=0.0
            ).to(tl.float32)
            if relu:
                # A number that is none passes, as in PyTorch.
                value = tl.where(value <= 0, 0.0, value)
            sums += tl.where(across[:, None] == right, tl.sum(passed * value, axis=0)[None, :], 0.0)
    # Of the shape (parts, channels, kernel, kernel).
    place = ((part * channels + lane[None, :]) * kernel + down) * kernel + across[:, None]
    tl.store(out + place, sums, mask=(across[:, None] < kernel) & present[None, :])


@triton.jit
def _add_parts(sums, out, parts, total, pixels: tl.constexpr):
    place = tl.program_id(0) * pixels + tl.arange(0, pixels)
    present = place < total
    value = tl.zeros((pixels,), dtype=tl.float32)
    for part in range(parts):
        value += tl.load(sums + part * total + place, mask=present, other=0.0)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=present)


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Convolve (N, C, H, W) in channels_last, or its ReLU, with weights (C, 1, K, K). A stride of 2 rounds up."""
    batch, channels, height, width = x.shape
    out_height, out_width = -(-height // window.stride), -(-width // window.stride)
    out = _pixels_last(x, (batch, channels, out_height, out_width))
    total = batch * out_height * out_width
    lanes = _lanes(channels)
    _forward[(triton.cdiv(total, PIXELS), triton.cdiv(channels, lanes))](
        x,
        weight.contiguous(),
        out,
        total,
        channels,
        height,
        width,
        out_height,
        out_width,
        **_sizes(weight, window, lanes),
    )
    return out


def depthwise_input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the gradient of the input ``x`` of :func:`depthwise` for that of its output."""
    batch, channels, height, width = x.shape
    out = _pixels_last(x, (batch, channels, height, width))
    total = batch * height * width
    lanes = _lanes(channels)
    _for_input[(triton.cdiv(total, PIXELS), triton.cdiv(channels, lanes))](
        gradient,
        x,
        weight.contiguous(),
        out,
        total,
        channels,
        height,
        width,
        gradient.shape[2],
        gradient.shape[3],
        **_sizes(weight, window, lanes),
    )
    return out


def depthwise_weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the gradient of the weights of :func:`depthwise` for that of its output, in their type."""
    batch, channels, height, width = x.shape
    out_height, out_width = gradient.shape[2:]
    total = batch * out_height * out_width
    kernel, lanes = weight.shape[2], _lanes(channels)
    blocks = triton.cdiv(triton.cdiv(total, PIXELS), PARTS)
    parts = triton.cdiv(total, PIXELS * blocks)
    sums = torch.empty(parts, channels, 1, kernel, kernel, dtype=torch.float32, device=x.device)
    _for_weight[(parts, kernel, triton.cdiv(channels, lanes))](
        gradient,
        x,
        sums,
        total,
        blocks,
        channels,
        height,
        width,
        out_height,
        out_width,
        columns=triton.next_power_of_2(kernel),
        **_sizes(weight, window, lanes),
    )
    # Parts are added in their order, where atomic additions would have none.
    out = torch.empty(weight.shape, dtype=weight.dtype, device=x.device)
    _add_parts[(triton.cdiv(out.numel(), PIXELS),)](sums, out, parts, out.numel(), pixels=PIXELS)
    return out


def _sizes(weight: Tensor, window: Window, lanes: int) -> dict[str, Any]:
    return {
        "kernel": weight.shape[2],
        "stride": window.stride,
        "dilation": window.dilation,
        "relu": window.relu,
        "pixels": PIXELS,
        "lanes": lanes,
    }


def _lanes(channels: int) -> int:
    return min(32, max(4, int(triton.next_power_of_2(channels))))


def _pixels_last(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
