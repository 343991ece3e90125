"""Triton's kernels on states in its interpreter against the plain operations of the same names.

test_triton_kernels.py runs these in a process of its own, because Triton decides when it is loaded where it runs.
"""

from __future__ import annotations

import itertools
import os
from types import ModuleType

import pytest
import torch
from long_runs import amount
from torch import Tensor

from cars_hw.nn import fused_plain, triton_pointwise, triton_pooling, triton_separable, triton_states
from cars_hw.nn.fused_parts import weight_parts

DEVICE = os.environ.get("KERNELS_ON", "cpu")
"""The check on a GPU sets it."""

torch.set_default_device(DEVICE)
# Convolutions of a GPU otherwise round to ten bits.
torch.backends.cudnn.allow_tf32 = False

SIZES = [(6, (5, 7)), (16, (8, 8)), (20, (3, 4)), (33, (6, 5))]


class Made:
    """Random tensors of a fixed seed."""

    def __init__(self) -> None:
        self.generator = torch.Generator(DEVICE).manual_seed(0)

    def rows(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def state(self, channels: int, size: tuple[int, int], batch: int = 3) -> Tensor:
        x = 0.5 + 2 * self.rows(batch, channels, *size)
        # A gradient of zero at a zero, as in PyTorch's ReLU.
        x[0, 0, 0, 0] = 0
        return x.contiguous(memory_format=torch.channels_last)


def normalized(made: Made, x: Tensor, parts: int = 3) -> Tensor:
    """Return statistics of ``x`` in parts of the batch's first two images, the third one, and an empty one."""
    channels = x.shape[1]
    stats = torch.zeros(parts, 3, channels)
    for number, part in enumerate((x[:2], x[2:])):
        flat = part.permute(0, 2, 3, 1).reshape(-1, channels)
        mean = flat.mean(0)
        stats[number] = torch.stack(
            [mean, (flat - mean).square().sum(0), torch.full((channels,), float(len(flat)))]
        )
    return stats


def alike(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-4)


def same_moments(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    for mine, theirs in zip(fused_plain._moments(found), fused_plain._moments(wanted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def both(kernels: ModuleType, name: str, *given: object) -> tuple[object, object]:
    return getattr(kernels, name)(*given), getattr(fused_plain, name)(*given)


CASES = list(itertools.product(SIZES, (1, 2), ((3, 1), (5, 1), (3, 2), (5, 2)), (False, True)))


@pytest.mark.parametrize(("size", "stride", "window", "lazy"), CASES[2 :: amount(31, 1)])
def test_a_separable_convolution(
    size: tuple[int, tuple[int, int]], stride: int, window: tuple[int, int], lazy: bool
) -> None:
    made, (channels, pixels), (kernel, dilation) = Made(), size, window
    x = made.state(channels, pixels)
    x_stats = normalized(made, x) if lazy else None
    depth, point = made.rows(channels, 1, kernel, kernel), made.rows(channels, channels)
    given = (x, x_stats, depth, point, stride, dilation)
    (y, stats), (wanted, wanted_stats) = both(triton_separable, "separable", *given)
    assert y.is_contiguous(memory_format=torch.channels_last)
    alike(y, wanted)
    same_moments(stats, wanted_stats)
    gradient = made.state(channels, tuple(y.shape[2:]))
    sums = fused_plain.norm_sums([gradient], [y], [stats])[0]
    total = y.numel() // channels
    found = []
    for kernels in (triton_separable, fused_plain):
        flat = torch.full((weight_parts(total, channels, y.numel(), point.numel()), point.numel() + 5), 7.0)
        parts = flat[:, 2:-3]
        out = kernels.separable_point_gradient(gradient, sums, y, stats, *given, parts)
        assert flat[:, :2].eq(7).all() and flat[:, -3:].eq(7).all()
        found.append((out, parts.sum(0)))
    alike(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-3)
    behind = found[1][0]
    for add in (False, True):
        results = []
        for kernels in (triton_separable, fused_plain):
            count = weight_parts(x.numel() // channels, channels, x.numel(), depth.numel())
            parts, into = torch.empty(count, depth.numel()), torch.ones_like(x)
            own = kernels.separable_depth_gradient(
                behind, x, x_stats, depth, stride, dilation, parts, into, add, lazy and not add
            )
            results.append((into, parts.sum(0), own.sum(0)))
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


POINTS = list(itertools.product(((6, 8), (33, 20), (16, 16)), ((5, 7), (4, 6)), (1, 2), (1, 4), (False, True)))


@pytest.mark.parametrize(("channels", "size", "weights", "states", "lazy"), POINTS[3 :: amount(17, 1)])
def test_a_pointwise_convolution(
    channels: tuple[int, int], size: tuple[int, int], weights: int, states: int, lazy: bool
) -> None:
    made, (inner, outer) = Made(), channels
    x = torch.stack([made.state(inner, size).permute(0, 2, 3, 1).contiguous() for _ in range(states)])
    x_stats = normalized(made, x[0].permute(0, 3, 1, 2)) if lazy and states == 1 else None
    half = outer // weights
    given = [made.rows(count, states * inner) for count in ((outer,) if weights == 1 else (half - 1, half + 1))]
    (y, stats), (wanted, wanted_stats) = both(triton_pointwise, "pointwise", x, x_stats, given)
    alike(y, wanted)
    same_moments(stats, wanted_stats)
    gradient = made.state(outer, tuple(y.shape[2:]))
    sums = fused_plain.norm_sums([gradient], [y], [stats])[0]
    for add in (False, True):
        results = []
        for kernels in (triton_pointwise, fused_plain):
            parts = [torch.empty(4, weight.numel()) for weight in given]
            into = torch.full_like(x, 3.0)
            kernels.pointwise_gradient(gradient, sums, y, stats, x, x_stats, given, parts, into, add)
            results.append((into, *(part.sum(0) for part in parts)))
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", SIZES[: amount(1, 4)])
def test_sums_and_means_of_states(size: tuple[int, tuple[int, int]]) -> None:
    made = Made()
    a, b = made.state(*size), made.state(*size)
    stats = normalized(made, a), normalized(made, b)
    for given in (
        (a, None, b, None),
        (a, stats[0], None, None),
        (a, stats[0], b, stats[1]),
        (a, None, b, stats[1]),
    ):
        outs = torch.zeros_like(a), torch.zeros_like(a)
        for kernels, out in zip((triton_states, fused_plain), outs, strict=True):
            kernels.sum_states(*given, out)
        alike(*outs)
    for gradients, ys, own in (([b], [a], stats[:1]), ([a, b], [b, a], stats[::-1]), ([a], [a, b], stats)):
        found, wanted = both(triton_states, "norm_sums", gradients, ys, list(own))
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine.sum(0), theirs.sum(0), rtol=1e-3, atol=1e-3)
    states = torch.stack([one.permute(0, 2, 3, 1).contiguous() for one in (a, b)])
    alike(*both(triton_states, "mean_pixels", states))
    intos, means = (torch.zeros_like(states), torch.zeros_like(states)), made.rows(3, 2 * size[0])
    for kernels, into in zip((triton_states, fused_plain), intos, strict=True):
        kernels.mean_pixels_gradient(means, into)
    alike(*intos)


@pytest.mark.parametrize("stride", [1, 2])
def test_poolings(stride: int) -> None:
    for channels, size in SIZES[: amount(1, 4)]:
        made = Made()
        x = made.state(channels, size).round()
        for places in (True, False):
            (y, place), (wanted, wanted_place) = both(triton_pooling, "max_pool", x, stride, places)
            assert torch.equal(y, wanted)
            # Of equal pixels the first, also in the gradient.
            assert torch.equal(place, wanted_place)
        y, place = triton_pooling.max_pool(x, stride, True)
        alike(*both(triton_pooling, "avg_pool", x, stride))
        gradient = made.state(channels, tuple(y.shape[2:]))
        for add in (False, True):
            intos = [torch.ones_like(x) for _ in range(4)]
            triton_pooling.max_pool_gradient(gradient, place, stride, intos[0], add)
            fused_plain.max_pool_gradient(gradient, place, stride, intos[1], add)
            triton_pooling.avg_pool_gradient(gradient, stride, intos[2], add)
            fused_plain.avg_pool_gradient(gradient, stride, intos[3], add)
            alike(intos[0], intos[1])
            alike(intos[2], intos[3])


def test_in_a_lower_precision_a_separable_convolution_is_that_of_float32_but_for_rounding() -> None:
    # The interpreter multiplies matrices of float16, but takes those of bfloat16 for whole numbers.
    made = Made()
    x = made.state(16, (8, 8)).half()
    depth, point = made.rows(16, 1, 3, 3).half(), made.rows(16, 16).half()
    y, stats = triton_separable.separable(x, None, depth, point, 1, 1)
    wanted, _ = fused_plain.separable(x.float(), None, depth.float(), point.float(), 1, 1)
    assert y.dtype == torch.float16
    # The depthwise convolution's outputs are rounded, and their sums are.
    assert float((y.float() - wanted).norm() / wanted.norm()) < 2**-9
    # Statistics are those of the numbers that are written.
    mean, _ = fused_plain._moments(stats)
    torch.testing.assert_close(mean, y.float().mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
