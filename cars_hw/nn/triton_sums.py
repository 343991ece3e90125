"""Parts of Triton kernels that several share: sums over pixels, and the normalisation where a state is read.

The functions are called by kernels only. ``lane`` are the channels of a block.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moments(stats, parts, channels, lane, epsilon, most: tl.constexpr):
    """Return the mean and the inverse deviation of each channel from statistics in parts (parts, 3, channels)."""
    part = tl.arange(0, most)
    present = (part < parts)[:, None] & (lane < channels)[None, :]
    place = part[:, None] * (3 * channels) + lane[None, :]
    means = tl.load(stats + place, mask=present, other=0.0)
    squares = tl.load(stats + place + channels, mask=present, other=0.0)
    counts = tl.load(stats + place + 2 * channels, mask=present, other=0.0)
    total = tl.maximum(tl.sum(counts, axis=0), 1.0)
    mean = tl.sum(counts * means, axis=0) / total
    away = means - mean[None, :]
    variance = (tl.sum(squares, axis=0) + tl.sum(counts * away * away, axis=0)) / total
    return mean, 1.0 / tl.sqrt(variance + epsilon)


@triton.jit
def added(sums, parts, channels, lane, most: tl.constexpr):
    """Return both sums of each channel from sums in parts (parts, 2, channels)."""
    part = tl.arange(0, most)
    present = (part < parts)[:, None] & (lane < channels)[None, :]
    place = part[:, None] * (2 * channels) + lane[None, :]
    first = tl.load(sums + place, mask=present, other=0.0)
    second = tl.load(sums + place + channels, mask=present, other=0.0)
    return tl.sum(first, axis=0), tl.sum(second, axis=0)


@triton.jit
def joined(count, mean, squares, value, valid):
    """Return the statistics so far, joined by those of a block ``value`` (pixels, lanes) (Chan et al., 1979)."""
    here = tl.sum(valid.to(tl.float32), axis=0)
    own = tl.sum(tl.where(valid[:, None], value, 0.0), axis=0) / tl.maximum(here, 1.0)
    away = tl.where(valid[:, None], value - own[None, :], 0.0)
    total = count + here
    apart = own - mean
    share = here / tl.maximum(total, 1.0)
    return total, mean + apart * share, squares + tl.sum(away * away, axis=0) + apart * apart * count * share


@triton.jit
def store_statistics(stats, part, channels, lane, present, count, mean, squares):
    """Write the statistics of a part."""
    place = stats + part * (3 * channels) + lane
    tl.store(place, mean, mask=present)
    tl.store(place + channels, squares, mask=present)
    tl.store(place + 2 * channels, tl.zeros_like(mean) + count, mask=present)


@triton.jit
def behind_norm(gradient, y, place, there, mean, scale, ones, products, total):
    """Return the gradient of ``y`` for that of its normalised values, at ``place``; ``ones`` and ``products`` are
    the sums over all ``total`` pixels."""
    passed = tl.load(gradient + place, mask=there, other=0.0).to(tl.float32)
    value = (tl.load(y + place, mask=there, other=0.0).to(tl.float32) - mean[None, :]) * scale[None, :]
    made = (passed - ones[None, :] / total - value * (products[None, :] / total)) * scale[None, :]
    return tl.where(there, made, 0.0)


@triton.jit
def read(x, place, there, mean, scale, normalized: tl.constexpr):
    """Return a block of a state, normalised if ``normalized``; what is not there is 0."""
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if normalized:
        value = tl.where(there, (value - mean[None, :]) * scale[None, :], 0.0)
    return value


@triton.jit
def positive(value):
    """Return the ReLU. A number that is none passes, as in PyTorch."""
    return tl.where(value <= 0, 0.0, value)
