"""Triton kernels: ReLU, depthwise and pointwise convolution in one, with statistics of the output.

Import this module only where Triton is installed. With ``TRITON_INTERPRET=1`` in the environment, the kernels run
on a CPU. The functions compute what those of the same names in :mod:`cars_hw.nn.fused_plain` do.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cars_hw.nn.fused_parts import EPSILON, Parts, lanes_of, parts_of, warps_of
from cars_hw.nn.triton_sums import added, behind_norm, joined, moments, positive, read, store_statistics

Optional = Tensor | None


@triton.jit
def _windows(
    x,
    depth,
    pixel,
    lane,
    total,
    channels,
    height,
    width,
    out_height,
    out_width,
    mean,
    scale,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    normalized: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
):
    column = pixel % out_width
    row = (pixel // out_width) % out_height
    image = pixel // (out_width * out_height)
    padding = dilation * (kernel // 2)
    present = lane < channels
    sums = tl.zeros((pixels, lanes), dtype=tl.float32)
    for down in range(kernel):
        for right in tl.static_range(kernel):
            y = row * stride - padding + down * dilation
            z = column * stride - padding + right * dilation
            inside = (pixel < total) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            place = ((image * height + y) * width + z).to(tl.int64)[:, None] * channels + lane[None, :]
            value = positive(read(x, place, inside[:, None] & present[None, :], mean, scale, normalized))
            weight = tl.load(depth + lane * (kernel * kernel) + down * kernel + right, mask=present, other=0.0)
            sums += value * weight.to(tl.float32)[None, :]
    return sums


@triton.jit(do_not_specialize=("total", "blocks", "x_parts"))
def _separable(
    x,
    x_stats,
    depth,
    point,
    out,
    stats,
    total,
    blocks,
    x_parts,
    channels,
    height,
    width,
    out_height,
    out_width,
    epsilon,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    normalized: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    most: tl.constexpr,
):
    part = tl.program_id(0)
    lane = tl.arange(0, lanes)
    present = lane < channels
    mean = tl.zeros((lanes,), dtype=tl.float32)
    scale = mean
    if normalized:
        mean, scale = moments(x_stats, x_parts, channels, lane, epsilon, most)
    # (in, out) of the weights (out, in).
    weight = tl.load(
        point + lane[None, :] * channels + lane[:, None], mask=present[:, None] & present[None, :], other=0.0
    )
    count = 0.0
    own_mean = tl.zeros((lanes,), dtype=tl.float32)
    squares = tl.zeros((lanes,), dtype=tl.float32)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        valid = pixel < total
        middle = _windows(
            x,
            depth,
            pixel,
            lane,
            total,
            channels,
            height,
            width,
            out_height,
            out_width,
            mean,
            scale,
            kernel,
            stride,
            dilation,
            normalized,
            pixels,
            lanes,
        )
        made = tl.dot(middle.to(weight.dtype), weight, input_precision="ieee").to(out.dtype.element_ty)
        place = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
        tl.store(out + place, made, mask=valid[:, None] & present[None, :])
        count, own_mean, squares = joined(count, own_mean, squares, made.to(tl.float32), valid)
    store_statistics(stats, part, channels, lane, present, count, own_mean, squares)


@triton.jit(do_not_specialize=("total", "blocks", "sums_parts", "stats_parts", "x_parts", "parts_stride"))
def _point_gradient(
    gradient,
    sums,
    y,
    stats,
    x,
    x_stats,
    depth,
    point,
    out,
    parts,
    total,
    blocks,
    sums_parts,
    stats_parts,
    x_parts,
    parts_stride,
    channels,
    height,
    width,
    out_height,
    out_width,
    epsilon,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    normalized: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    sums_most: tl.constexpr,
    stats_most: tl.constexpr,
    x_most: tl.constexpr,
):
    part = tl.program_id(0)
    lane = tl.arange(0, lanes)
    present = lane < channels
    square = present[:, None] & present[None, :]
    mean = tl.zeros((lanes,), dtype=tl.float32)
    scale = mean
    if normalized:
        mean, scale = moments(x_stats, x_parts, channels, lane, epsilon, x_most)
    own_mean, own_scale = moments(stats, stats_parts, channels, lane, epsilon, stats_most)
    ones, products = added(sums, sums_parts, channels, lane, sums_most)
    # (out, in), as it lies.
    weight = tl.load(point + lane[:, None] * channels + lane[None, :], mask=square, other=0.0)
    found = tl.zeros((lanes, lanes), dtype=tl.float32)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        there = (pixel < total)[:, None] & present[None, :]
        place = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
        before = behind_norm(gradient, y, place, there, own_mean, own_scale, ones, products, total)
        before = before.to(weight.dtype)
        made = tl.dot(before, weight, input_precision="ieee")
        tl.store(out + place, made.to(out.dtype.element_ty), mask=there)
        middle = _windows(
            x,
            depth,
            pixel,
            lane,
            total,
            channels,
            height,
            width,
            out_height,
            out_width,
            mean,
            scale,
            kernel,
            stride,
            dilation,
            normalized,
            pixels,
            lanes,
        )
        found += tl.dot(tl.trans(before), middle.to(weight.dtype), input_precision="ieee")
    place = part.to(tl.int64) * parts_stride + lane[:, None] * channels + lane[None, :]
    tl.store(parts + place, found, mask=square)


@triton.jit(do_not_specialize=("total", "blocks", "x_parts", "parts_stride"))
def _depth_gradient(
    gradient,
    x,
    x_stats,
    depth,
    parts,
    into,
    sums,
    total,
    blocks,
    x_parts,
    parts_stride,
    channels,
    height,
    width,
    out_height,
    out_width,
    epsilon,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    dilation: tl.constexpr,
    normalized: tl.constexpr,
    add: tl.constexpr,
    sum_up: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    taps: tl.constexpr,
    most: tl.constexpr,
):
    part = tl.program_id(0)
    lane = tl.arange(0, lanes)
    present = lane < channels
    mean = tl.zeros((lanes,), dtype=tl.float32)
    scale = mean
    if normalized:
        mean, scale = moments(x_stats, x_parts, channels, lane, epsilon, most)
    padding = dilation * (kernel // 2)
    tap = tl.arange(0, taps)
    found = tl.zeros((taps, lanes), dtype=tl.float32)
    ones = tl.zeros((lanes,), dtype=tl.float32)
    products = tl.zeros((lanes,), dtype=tl.float32)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        column = pixel % width
        row = (pixel // width) % height
        image = pixel // (width * height)
        there = (pixel < total)[:, None] & present[None, :]
        own = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
        value = read(x, own, there, mean, scale, normalized)
        passed = positive(value)
        made = tl.zeros((pixels, lanes), dtype=tl.float32)
        for down in range(kernel):
            for right in tl.static_range(kernel):
                # The output whose window has this pixel at (down, right), if the stride meets it.
                above = row + padding - down * dilation
                left = column + padding - right * dilation
                met = (pixel < total) & (above >= 0) & (left >= 0)
                met = met & (above % stride == 0) & (left % stride == 0)
                above = above // stride
                left = left // stride
                met = met & (above < out_height) & (left < out_width)
                place = ((image * out_height + above) * out_width + left).to(tl.int64)
                behind = tl.load(
                    gradient + place[:, None] * channels + lane[None, :],
                    mask=met[:, None] & present[None, :],
                    other=0.0,
                ).to(tl.float32)
                number = down * kernel + right
                weight = tl.load(depth + lane * (kernel * kernel) + number, mask=present, other=0.0)
                made += behind * weight.to(tl.float32)[None, :]
                here = tl.sum(behind * passed, axis=0)
                found += tl.where(tap[:, None] == number, here[None, :], 0.0)
        made = tl.where(value <= 0, 0.0, made)
        if add:
            made += tl.load(into + own, mask=there, other=0.0).to(tl.float32)
        rounded = made.to(into.dtype.element_ty)
        tl.store(into + own, rounded, mask=there)
        if sum_up:
            kept = rounded.to(tl.float32)
            ones += tl.sum(kept, axis=0)
            products += tl.sum(kept * value, axis=0)
    place = part.to(tl.int64) * parts_stride + lane[None, :] * (kernel * kernel) + tap[:, None]
    tl.store(parts + place, found, mask=(tap < kernel * kernel)[:, None] & present[None, :])
    if sum_up:
        tl.store(sums + part * (2 * channels) + lane, ones, mask=present)
        tl.store(sums + part * (2 * channels) + channels + lane, products, mask=present)


def separable(
    x: Tensor, x_stats: Optional, depth: Tensor, point: Tensor, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """Return the pointwise convolution of the depthwise convolution of the ReLU of ``x``, and its statistics."""
    batch, channels, height, width = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    out = torch.empty(
        (batch, channels, rows, columns), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    total = batch * rows * columns
    parts = parts_of(total, channels)
    stats = torch.empty(parts.count, 3, channels, dtype=torch.float32, device=x.device)
    _separable[(parts.count,)](
        x,
        x if x_stats is None else x_stats,
        depth,
        point,
        out,
        stats,
        total,
        parts.blocks,
        part_count(x_stats),
        channels,
        height,
        width,
        rows,
        columns,
        EPSILON,
        kernel=depth.shape[2],
        stride=stride,
        dilation=dilation,
        normalized=x_stats is not None,
        pixels=parts.pixels,
        lanes=lanes_of(channels),
        most=most_parts(x_stats),
        num_warps=warps_of(channels, x.element_size()),
    )
    return out, stats


def separable_point_gradient(
    gradient: Tensor,
    sums: Tensor,
    y: Tensor,
    stats: Tensor,
    x: Tensor,
    x_stats: Optional,
    depth: Tensor,
    point: Tensor,
    stride: int,
    dilation: int,
    parts: Tensor,
) -> Tensor:
    """Return the gradient behind the depthwise convolution; that of ``point`` goes to ``parts``."""
    batch, channels, rows, columns = y.shape
    total = batch * rows * columns
    divided = divided_in(total, channels, len(parts))
    out = torch.empty_like(y)
    _point_gradient[(len(parts),)](
        gradient,
        sums,
        y,
        stats,
        x,
        x if x_stats is None else x_stats,
        depth,
        point,
        out,
        parts,
        total,
        divided.blocks,
        len(sums),
        len(stats),
        part_count(x_stats),
        parts.stride(0),
        channels,
        x.shape[2],
        x.shape[3],
        rows,
        columns,
        EPSILON,
        kernel=depth.shape[2],
        stride=stride,
        dilation=dilation,
        normalized=x_stats is not None,
        pixels=divided.pixels,
        lanes=lanes_of(channels),
        sums_most=most_parts(sums),
        stats_most=most_parts(stats),
        x_most=most_parts(x_stats),
        num_warps=warps_of(channels, x.element_size()),
    )
    return out


def separable_depth_gradient(
    gradient: Tensor,
    x: Tensor,
    x_stats: Optional,
    depth: Tensor,
    stride: int,
    dilation: int,
    parts: Tensor,
    into: Tensor,
    add: bool,
    sums: bool,
) -> Tensor:
    """Write or ``add`` the gradient of ``x`` to ``into``, that of ``depth`` to ``parts``; return the ``sums``."""
    batch, channels, height, width = x.shape
    total = batch * height * width
    divided = divided_in(total, channels, len(parts))
    kernel = depth.shape[2]
    made = torch.empty((len(parts), 2, channels) if sums else 0, dtype=torch.float32, device=x.device)
    _depth_gradient[(len(parts),)](
        gradient,
        x,
        x if x_stats is None else x_stats,
        depth,
        parts,
        into,
        made,
        total,
        divided.blocks,
        part_count(x_stats),
        parts.stride(0),
        channels,
        height,
        width,
        gradient.shape[2],
        gradient.shape[3],
        EPSILON,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        normalized=x_stats is not None,
        add=add,
        sum_up=sums,
        pixels=divided.pixels,
        lanes=lanes_of(channels),
        taps=triton.next_power_of_2(kernel * kernel),
        most=most_parts(x_stats),
        num_warps=warps_of(channels, x.element_size()),
    )
    return made


def divided_in(total: int, channels: int, count: int) -> Parts:
    """Return ``total`` pixels in exactly ``count`` parts."""
    pixels = parts_of(total, channels).pixels
    return Parts(count, -(-total // (pixels * count)), pixels)


def part_count(parts: Optional) -> int:
    """Return how many parts there are; 0 without any."""
    return 0 if parts is None else len(parts)


def most_parts(parts: Optional) -> int:
    """Return the power of two within which the parts are read."""
    return int(triton.next_power_of_2(max(1, part_count(parts))))
