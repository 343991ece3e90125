"""Triton kernels: ReLU and 1x1 convolution of several states in one, with statistics of the output.

A second weight halves the resolution: each of the two makes its own channels from its own pixel of every square of
2x2. See :mod:`cars_hw.nn.triton_separable` about the import, and :mod:`cars_hw.nn.fused_plain` about what the
functions compute.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cars_hw.nn.fused_parts import EPSILON, lanes_of, parts_of, warps_of
from cars_hw.nn.triton_separable import divided_in, most_parts, part_count
from cars_hw.nn.triton_sums import added, behind_norm, joined, moments, positive, read, store_statistics

Optional = Tensor | None


@triton.jit(do_not_specialize=("total", "blocks", "x_parts"))
def _pointwise(
    x,
    x_stats,
    first,
    second,
    out,
    stats,
    total,
    blocks,
    x_parts,
    x_channels,
    channels,
    first_channels,
    height,
    width,
    out_height,
    out_width,
    epsilon,
    states: tl.constexpr,
    step: tl.constexpr,
    normalized: tl.constexpr,
    pixels: tl.constexpr,
    x_lanes: tl.constexpr,
    lanes: tl.constexpr,
    most: tl.constexpr,
):
    part = tl.program_id(0)
    half = tl.program_id(1)
    x_lane = tl.arange(0, x_lanes)
    lane = tl.arange(0, lanes)
    x_present = x_lane < x_channels
    own = first_channels + half * (channels - 2 * first_channels)
    present = lane < own
    mean = tl.zeros((x_lanes,), dtype=tl.float32)
    scale = mean
    if normalized:
        mean, scale = moments(x_stats, x_parts, x_channels, x_lane, epsilon, most)
    count = 0.0
    own_mean = tl.zeros((lanes,), dtype=tl.float32)
    squares = tl.zeros((lanes,), dtype=tl.float32)
    state_pixels = (total // (out_height * out_width)) * height * width
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        column = (pixel % out_width) * step + half
        row = ((pixel // out_width) % out_height) * step + half
        image = pixel // (out_width * out_height)
        valid = pixel < total
        inside = valid & (row < height) & (column < width)
        source = ((image * height + row) * width + column).to(tl.int64)
        made = tl.zeros((pixels, lanes), dtype=tl.float32)
        for state in range(states):
            place = (source + state * state_pixels)[:, None] * x_channels + x_lane[None, :]
            value = positive(read(x, place, inside[:, None] & x_present[None, :], mean, scale, normalized))
            # (in, out) of the weights (out, in).
            there = x_present[:, None] & present[None, :]
            place = lane[None, :] * (states * x_channels) + state * x_channels + x_lane[:, None]
            weight = tl.load(first + place, mask=there & (half == 0), other=0.0)
            if step == 2:
                weight += tl.load(second + place, mask=there & (half == 1), other=0.0)
            made += tl.dot(value.to(weight.dtype), weight, input_precision="ieee")
        rounded = made.to(out.dtype.element_ty)
        place = pixel.to(tl.int64)[:, None] * channels + half * first_channels + lane[None, :]
        tl.store(out + place, rounded, mask=valid[:, None] & present[None, :])
        count, own_mean, squares = joined(count, own_mean, squares, rounded.to(tl.float32), valid)
    store_statistics(stats, part, channels, half * first_channels + lane, present, count, own_mean, squares)


@triton.jit(
    do_not_specialize=("total", "blocks", "sums_parts", "stats_parts", "x_parts", "first_stride", "second_stride")
)
def _pointwise_gradient(
    gradient,
    sums,
    y,
    stats,
    x,
    x_stats,
    first,
    second,
    first_parts,
    second_parts,
    into,
    total,
    blocks,
    sums_parts,
    stats_parts,
    x_parts,
    first_stride,
    second_stride,
    x_channels,
    channels,
    first_channels,
    height,
    width,
    out_height,
    out_width,
    epsilon,
    states: tl.constexpr,
    step: tl.constexpr,
    normalized: tl.constexpr,
    add: tl.constexpr,
    pixels: tl.constexpr,
    x_lanes: tl.constexpr,
    lanes: tl.constexpr,
    sums_most: tl.constexpr,
    stats_most: tl.constexpr,
    x_most: tl.constexpr,
):
    part = tl.program_id(0)
    state = tl.program_id(1)
    half = tl.program_id(2)
    x_lane = tl.arange(0, x_lanes)
    lane = tl.arange(0, lanes)
    x_present = x_lane < x_channels
    own = first_channels + half * (channels - 2 * first_channels)
    present = lane < own
    begin = half * first_channels
    # Channels of the other half are beyond the last one.
    named = tl.where(present, begin + lane, channels)
    mean = tl.zeros((x_lanes,), dtype=tl.float32)
    scale = mean
    if normalized:
        mean, scale = moments(x_stats, x_parts, x_channels, x_lane, epsilon, x_most)
    own_mean, own_scale = moments(stats, stats_parts, channels, named, epsilon, stats_most)
    ones, products = added(sums, sums_parts, channels, named, sums_most)
    square = present[:, None] & x_present[None, :]
    # (out, in), as it lies.
    lies = lane[:, None] * (states * x_channels) + state * x_channels + x_lane[None, :]
    weight = tl.load(first + lies, mask=square & (half == 0), other=0.0)
    if step == 2:
        weight += tl.load(second + lies, mask=square & (half == 1), other=0.0)
    found = tl.zeros((lanes, x_lanes), dtype=tl.float32)
    state_pixels = (total // (out_height * out_width)) * height * width
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        column = (pixel % out_width) * step + half
        row = ((pixel // out_width) % out_height) * step + half
        image = pixel // (out_width * out_height)
        valid = pixel < total
        place = pixel.to(tl.int64)[:, None] * channels + begin + lane[None, :]
        there = valid[:, None] & present[None, :]
        before = behind_norm(gradient, y, place, there, own_mean, own_scale, ones, products, total)
        before = before.to(weight.dtype)
        source = ((image * height + row) * width + column).to(tl.int64) + state * state_pixels
        inside = (valid & (row < height) & (column < width))[:, None] & x_present[None, :]
        place = source[:, None] * x_channels + x_lane[None, :]
        value = read(x, place, inside, mean, scale, normalized)
        found += tl.dot(tl.trans(before), positive(value).to(weight.dtype), input_precision="ieee")
        made = tl.where(value <= 0, 0.0, tl.dot(before, weight, input_precision="ieee"))
        if add:
            made += tl.load(into + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(into + place, made.to(into.dtype.element_ty), mask=inside)
        if step == 2 and not add:
            # The other pixel of this row of the square has no reader.
            other = column + 1 - 2 * half
            beside = (valid & (row < height) & (other < width))[:, None] & x_present[None, :]
            place = (source + 1 - 2 * half)[:, None] * x_channels + x_lane[None, :]
            tl.store(into + place, tl.zeros((pixels, x_lanes), dtype=into.dtype.element_ty), mask=beside)
    tl.store(first_parts + part.to(tl.int64) * first_stride + lies, found, mask=square & (half == 0))
    if step == 2:
        tl.store(second_parts + part.to(tl.int64) * second_stride + lies, found, mask=square & (half == 1))


def pointwise(x: Tensor, x_stats: Optional, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the 1x1 convolution of the ReLU of the states ``x`` (S, N, H, W, C), and its statistics."""
    states, batch, height, width, x_channels = x.shape
    step = len(weights)
    channels = sum(len(weight) for weight in weights)
    rows, columns = -(-height // step), -(-width // step)
    out = torch.empty(
        (batch, channels, rows, columns), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    total = batch * rows * columns
    parts = parts_of(total, channels)
    divided = divided_in(total, max(channels, x_channels), parts.count)
    stats = torch.empty(parts.count, 3, channels, dtype=torch.float32, device=x.device)
    _pointwise[(parts.count, step)](
        x,
        x if x_stats is None else x_stats,
        weights[0],
        weights[-1],
        out,
        stats,
        total,
        divided.blocks,
        part_count(x_stats),
        x_channels,
        channels,
        len(weights[0]),
        height,
        width,
        rows,
        columns,
        EPSILON,
        states=states,
        step=step,
        normalized=x_stats is not None,
        pixels=divided.pixels,
        x_lanes=lanes_of(x_channels),
        lanes=lanes_of(max(len(weight) for weight in weights)),
        most=most_parts(x_stats),
        num_warps=warps_of(max(channels, x_channels), x.element_size()),
    )
    return out, stats


def pointwise_gradient(
    gradient: Tensor,
    sums: Tensor,
    y: Tensor,
    stats: Tensor,
    x: Tensor,
    x_stats: Optional,
    weights: list[Tensor],
    parts: list[Tensor],
    into: Tensor,
    add: bool,
) -> None:
    """Write or ``add`` the gradient of the states ``x`` to ``into``, and those of ``weights`` to ``parts``."""
    states, _, height, width, x_channels = x.shape
    batch, channels, rows, columns = y.shape
    step = len(weights)
    total = batch * rows * columns
    divided = divided_in(total, max(channels, x_channels), len(parts[0]))
    _pointwise_gradient[(divided.count, states, step)](
        gradient,
        sums,
        y,
        stats,
        x,
        x if x_stats is None else x_stats,
        weights[0],
        weights[-1],
        parts[0],
        parts[-1],
        into,
        total,
        divided.blocks,
        len(sums),
        len(stats),
        part_count(x_stats),
        parts[0].stride(0),
        parts[-1].stride(0),
        x_channels,
        channels,
        len(weights[0]),
        height,
        width,
        rows,
        columns,
        EPSILON,
        states=states,
        step=step,
        normalized=x_stats is not None,
        add=add,
        pixels=divided.pixels,
        x_lanes=lanes_of(x_channels),
        lanes=lanes_of(max(len(weight) for weight in weights)),
        sums_most=most_parts(sums),
        stats_most=most_parts(stats),
        x_most=most_parts(x_stats),
        num_warps=warps_of(max(channels, x_channels), x.element_size()),
    )
