"""Triton kernels: poolings of 3x3 pixels in channels_last, and their gradients, which add in a fixed order.

See :mod:`cars_hw.nn.triton_separable` about the import, and :mod:`cars_hw.nn.fused_plain` about what the functions
compute.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cars_hw.nn.fused_parts import lanes_of

_PIXELS = 64


@triton.jit
def _pool(
    x,
    out,
    places,
    total,
    channels,
    height,
    width,
    out_height,
    out_width,
    stride: tl.constexpr,
    largest: tl.constexpr,
    keep: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
):
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    lane = tl.arange(0, lanes)
    column = pixel % out_width
    row = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    present = (pixel < total)[:, None] & (lane < channels)[None, :]
    made = tl.zeros((pixels, lanes), dtype=tl.float32)
    if largest:
        made += float("-inf")
    place = tl.zeros((pixels, lanes), dtype=tl.int32)
    count = tl.zeros((pixels,), dtype=tl.float32)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            y = row * stride - 1 + down
            z = column * stride - 1 + right
            inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
            there = inside[:, None] & present
            source = ((image * height + y) * width + z).to(tl.int64)[:, None] * channels + lane[None, :]
            if largest:
                value = tl.load(x + source, mask=there, other=float("-inf")).to(tl.float32)
                # The first of equal pixels, as in PyTorch. A number that is none wins.
                better = (value > made) | (value != value)
                made = tl.where(better, value, made)
                place = tl.where(better, down * 3 + right, place)
            else:
                made += tl.load(x + source, mask=there, other=0.0).to(tl.float32)
                count += inside.to(tl.float32)
    if not largest:
        made = made / count[:, None]
    target = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
    tl.store(out + target, made.to(out.dtype.element_ty), mask=present)
    if keep:
        tl.store(places + target, place.to(tl.uint8), mask=present)


@triton.jit
def _pool_gradient(
    gradient,
    places,
    into,
    total,
    channels,
    height,
    width,
    out_height,
    out_width,
    stride: tl.constexpr,
    largest: tl.constexpr,
    add: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
):
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    lane = tl.arange(0, lanes)
    column = pixel % width
    row = (pixel // width) % height
    image = pixel // (width * height)
    present = (pixel < total)[:, None] & (lane < channels)[None, :]
    made = tl.zeros((pixels, lanes), dtype=tl.float32)
    for down in tl.static_range(3):
        for right in tl.static_range(3):
            # The output whose window has this pixel at (down, right), if the stride meets it.
            above = row + 1 - down
            left = column + 1 - right
            met = (above >= 0) & (left >= 0) & (above % stride == 0) & (left % stride == 0)
            above = above // stride
            left = left // stride
            met = met & (above < out_height) & (left < out_width)
            there = met[:, None] & present
            source = ((image * out_height + above) * out_width + left).to(tl.int64)
            source = source[:, None] * channels + lane[None, :]
            passed = tl.load(gradient + source, mask=there, other=0.0).to(tl.float32)
            if largest:
                place = tl.load(places + source, mask=there, other=255).to(tl.int32)
                made += tl.where(place == down * 3 + right, passed, 0.0)
            else:
                top = above * stride - 1
                side = left * stride - 1
                high = tl.minimum(top + 3, height) - tl.maximum(top, 0)
                wide = tl.minimum(side + 3, width) - tl.maximum(side, 0)
                count = tl.where(met, high * wide, 1).to(tl.float32)
                made += passed / count[:, None]
    target = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
    if add:
        made += tl.load(into + target, mask=present, other=0.0).to(tl.float32)
    tl.store(into + target, made.to(into.dtype.element_ty), mask=present)


def max_pool(x: Tensor, stride: int, places: bool) -> tuple[Tensor, Tensor]:
    """Return the largest of 3x3 pixels, and the places in the windows, uint8, if ``places`` are wanted."""
    return _pooled(x, stride, largest=True, keep=places)


def avg_pool(x: Tensor, stride: int) -> Tensor:
    """Return the mean of 3x3 pixels, without the padding."""
    return _pooled(x, stride, largest=False, keep=False)[0]


def max_pool_gradient(gradient: Tensor, places: Tensor, stride: int, into: Tensor, add: bool) -> None:
    """Write or ``add`` the gradient of the input of :func:`max_pool` to ``into``."""
    _gradient(gradient, places, stride, into, largest=True, add=add)


def avg_pool_gradient(gradient: Tensor, stride: int, into: Tensor, add: bool) -> None:
    """Write or ``add`` the gradient of the input of :func:`avg_pool` to ``into``."""
    _gradient(gradient, gradient, stride, into, largest=False, add=add)


def _pooled(x: Tensor, stride: int, *, largest: bool, keep: bool) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    shape = batch, channels, -(-height // stride), -(-width // stride)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    places = torch.empty_like(out, dtype=torch.uint8) if keep else x.new_empty(0)
    total = out.numel() // channels
    _pool[(triton.cdiv(total, _PIXELS),)](
        x,
        out,
        places,
        total,
        channels,
        height,
        width,
        shape[2],
        shape[3],
        stride=stride,
        largest=largest,
        keep=keep,
        pixels=_PIXELS,
        lanes=lanes_of(channels),
    )
    return out, places


def _gradient(gradient: Tensor, places: Tensor, stride: int, into: Tensor, *, largest: bool, add: bool) -> None:
    _, channels, height, width = into.shape
    total = into.numel() // channels
    _pool_gradient[(triton.cdiv(total, _PIXELS),)](
        gradient,
        places,
        into,
        total,
        channels,
        height,
        width,
        gradient.shape[2],
        gradient.shape[3],
        stride=stride,
        largest=largest,
        add=add,
        pixels=_PIXELS,
        lanes=lanes_of(channels),
    )
