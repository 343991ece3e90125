"""Triton kernels: sums of states, sums for the gradient of a normalisation, and means of all pixels.

See :mod:`cars_hw.nn.triton_separable` about the import, and :mod:`cars_hw.nn.fused_plain` about what the functions
compute.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cars_hw.nn.fused_parts import EPSILON, lanes_of, parts_of
from cars_hw.nn.triton_separable import divided_in, most_parts, part_count
from cars_hw.nn.triton_sums import moments, read

Optional = Tensor | None


@triton.jit(do_not_specialize=("total", "blocks", "a_parts", "b_parts"))
def _sum(
    a,
    a_stats,
    b,
    b_stats,
    out,
    total,
    blocks,
    a_parts,
    b_parts,
    channels,
    epsilon,
    two: tl.constexpr,
    a_normalized: tl.constexpr,
    b_normalized: tl.constexpr,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    a_most: tl.constexpr,
    b_most: tl.constexpr,
):
    part = tl.program_id(0)
    lane = tl.arange(0, lanes)
    mean = tl.zeros((lanes,), dtype=tl.float32)
    scale = mean
    other_mean = mean
    other_scale = mean
    if a_normalized:
        mean, scale = moments(a_stats, a_parts, channels, lane, epsilon, a_most)
    if b_normalized:
        other_mean, other_scale = moments(b_stats, b_parts, channels, lane, epsilon, b_most)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        there = (pixel < total)[:, None] & (lane < channels)[None, :]
        place = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
        made = read(a, place, there, mean, scale, a_normalized)
        if two:
            made += read(b, place, there, other_mean, other_scale, b_normalized)
        tl.store(out + place, made.to(out.dtype.element_ty), mask=there)


@triton.jit
def _sums_of(
    gradient,
    y,
    stats,
    out,
    total,
    blocks,
    stats_parts,
    channels,
    epsilon,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    most: tl.constexpr,
):
    part = tl.program_id(0)
    lane = tl.arange(0, lanes)
    mean, scale = moments(stats, stats_parts, channels, lane, epsilon, most)
    ones = tl.zeros((lanes,), dtype=tl.float32)
    products = tl.zeros((lanes,), dtype=tl.float32)
    for block in range(blocks):
        pixel = (part * blocks + block) * pixels + tl.arange(0, pixels)
        there = (pixel < total)[:, None] & (lane < channels)[None, :]
        place = pixel.to(tl.int64)[:, None] * channels + lane[None, :]
        passed = tl.load(gradient + place, mask=there, other=0.0).to(tl.float32)
        ones += tl.sum(passed, axis=0)
        products += tl.sum(passed * read(y, place, there, mean, scale, True), axis=0)
    tl.store(out + part * (2 * channels) + lane, ones, mask=lane < channels)
    tl.store(out + part * (2 * channels) + channels + lane, products, mask=lane < channels)


@triton.jit(do_not_specialize=("total", "blocks", "first_parts", "second_parts"))
def _norm_sums(
    first_gradient,
    first,
    first_stats,
    first_out,
    second_gradient,
    second,
    second_stats,
    second_out,
    total,
    blocks,
    first_parts,
    second_parts,
    channels,
    epsilon,
    pixels: tl.constexpr,
    lanes: tl.constexpr,
    most: tl.constexpr,
):
    if tl.program_id(1) == 0:
        _sums_of(
            first_gradient,
            first,
            first_stats,
            first_out,
            total,
            blocks,
            first_parts,
            channels,
            epsilon,
            pixels,
            lanes,
            most,
        )
    else:
        _sums_of(
            second_gradient,
            second,
            second_stats,
            second_out,
            total,
            blocks,
            second_parts,
            channels,
            epsilon,
            pixels,
            lanes,
            most,
        )


@triton.jit
def _mean_pixels(x, out, batch, size, channels, states, pixels: tl.constexpr, lanes: tl.constexpr):
    image = tl.program_id(0)
    state = tl.program_id(1)
    lane = tl.arange(0, lanes)
    begin = (state * batch + image).to(tl.int64) * size
    sums = tl.zeros((lanes,), dtype=tl.float32)
    for block in range(tl.cdiv(size, pixels)):
        pixel = block * pixels + tl.arange(0, pixels)
        there = (pixel < size)[:, None] & (lane < channels)[None, :]
        place = (begin + pixel)[:, None] * channels + lane[None, :]
        sums += tl.sum(tl.load(x + place, mask=there, other=0.0).to(tl.float32), axis=0)
    place = (image * states + state) * channels + lane
    tl.store(out + place, (sums / size).to(out.dtype.element_ty), mask=lane < channels)


@triton.jit
def _mean_pixels_gradient(gradient, into, batch, size, channels, states, pixels: tl.constexpr, lanes: tl.constexpr):
    image = tl.program_id(0)
    state = tl.program_id(1)
    lane = tl.arange(0, lanes)
    begin = (state * batch + image).to(tl.int64) * size
    # A name of its own: what is carried into a loop keeps its type there, and places of pixels are of 64 bits.
    mean = (image * states + state) * channels + lane
    each = tl.load(gradient + mean, mask=lane < channels, other=0.0).to(tl.float32) / size
    made = tl.zeros((pixels, lanes), dtype=tl.float32) + each[None, :]
    for block in range(tl.cdiv(size, pixels)):
        pixel = block * pixels + tl.arange(0, pixels)
        there = (pixel < size)[:, None] & (lane < channels)[None, :]
        place = (begin + pixel)[:, None] * channels + lane[None, :]
        tl.store(into + place, made.to(into.dtype.element_ty), mask=there)


def sum_states(a: Tensor, a_stats: Optional, b: Optional, b_stats: Optional, out: Tensor) -> None:
    """Write the sum of ``a`` and ``b``, each normalised if it has statistics, to ``out``."""
    channels = a.shape[1]
    total = a.numel() // channels
    parts = parts_of(total, channels)
    _sum[(parts.count,)](
        a,
        a if a_stats is None else a_stats,
        a if b is None else b,
        a if b_stats is None else b_stats,
        out,
        total,
        parts.blocks,
        part_count(a_stats),
        part_count(b_stats),
        channels,
        EPSILON,
        two=b is not None,
        a_normalized=a_stats is not None,
        b_normalized=b_stats is not None,
        pixels=parts.pixels,
        lanes=lanes_of(channels),
        a_most=most_parts(a_stats),
        b_most=most_parts(b_stats),
    )


def norm_sums(gradients: list[Tensor], ys: list[Tensor], stats: list[Tensor]) -> list[Tensor]:
    """Return the sums for the gradients of one or two normalisations; one gradient may be that of both."""
    channels = ys[0].shape[1]
    total = ys[0].numel() // channels
    # As many parts for both, whatever the parts of their statistics.
    count = parts_of(total, channels).count
    parts = divided_in(total, channels, count)
    made = [torch.empty(count, 2, channels, dtype=torch.float32, device=own.device) for own in stats]
    _norm_sums[(count, len(ys))](
        gradients[0],
        ys[0],
        stats[0],
        made[0],
        gradients[-1],
        ys[-1],
        stats[-1],
        made[-1],
        total,
        parts.blocks,
        len(stats[0]),
        len(stats[-1]),
        channels,
        EPSILON,
        pixels=parts.pixels,
        lanes=lanes_of(channels),
        most=max(most_parts(own) for own in stats),
    )
    return made


def mean_pixels(x: Tensor) -> Tensor:
    """Return the means (N, S C) of states (S, N, H, W, C)."""
    states, batch, height, width, channels = x.shape
    out = torch.empty(batch, states * channels, dtype=x.dtype, device=x.device)
    _mean_pixels[(batch, states)](
        x, out, batch, height * width, channels, states, pixels=32, lanes=lanes_of(channels)
    )
    return out


def mean_pixels_gradient(gradient: Tensor, into: Tensor) -> None:
    """Write the gradient of the states of :func:`mean_pixels` to ``into``."""
    states, batch, height, width, channels = into.shape
    _mean_pixels_gradient[(batch, states)](
        gradient.contiguous(),
        into,
        batch,
        height * width,
        channels,
        states,
        pixels=32,
        lanes=lanes_of(channels),
    )
