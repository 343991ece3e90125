"""Triton's depthwise kernels in its interpreter against PyTorch's own convolution and its gradients.

test_triton_kernels.py runs these in a process of its own, because Triton decides when it is loaded where it runs.
"""

from __future__ import annotations

import itertools
import os

import pytest
import torch
import torch.nn.functional as F
from long_runs import amount
from torch import Tensor

from cars_hw.nn import triton_depthwise as kernels

DEVICE = os.environ.get("KERNELS_ON", "cpu")
"""The check on a GPU sets it."""

torch.set_default_device(DEVICE)


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


SHAPES = [(3, (7, 5)), (4, (8, 8)), (16, (9, 16)), (40, (4, 3)), (6, (1, 2))]
CASES = list(itertools.product((1, 2), ((3, 1), (5, 1), (3, 2), (5, 2)), (False, True)))


@pytest.mark.parametrize(("stride", "window", "relu"), CASES[:: amount(8, 1)])
def test_outputs_and_gradients_are_those_of_a_plain_convolution(
    stride: int, window: tuple[int, int], relu: bool
) -> None:
    kernel, dilation = window
    generator = torch.Generator(DEVICE).manual_seed(0)
    for channels, size in SHAPES[: amount(1, len(SHAPES))]:
        x = last(torch.randn(2, channels, *size, generator=generator))
        # A gradient of zero at a zero, as in PyTorch's ReLU.
        x[0, 0, 0, 0] = 0
        weight = torch.randn(channels, 1, kernel, kernel, generator=generator)
        inputs = [x.double().requires_grad_(), weight.double().requires_grad_()]
        before = inputs[0].relu() if relu else inputs[0]
        wanted = F.conv2d(before, inputs[1], None, stride, dilation * (kernel // 2), dilation, channels)
        gradient = last(torch.randn(wanted.shape, generator=generator))
        for_x, for_weight = torch.autograd.grad(wanted, inputs, gradient.double())
        how = kernels.Window(stride, dilation, relu)
        out = kernels.depthwise(x, weight, how)
        assert out.is_contiguous(memory_format=torch.channels_last)
        close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
        torch.testing.assert_close(out, wanted.detach(), **close)
        torch.testing.assert_close(kernels.depthwise_input_gradient(gradient, x, weight, how), for_x, **close)
        found = kernels.depthwise_weight_gradient(gradient, x, weight, how)
        torch.testing.assert_close(found, for_weight, **close)


def test_in_bfloat16_sums_are_made_in_float32() -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = last(torch.randn(2, 8, 9, 9, generator=generator).bfloat16())
    weight = torch.randn(8, 1, 5, 5, generator=generator).bfloat16()
    exact = F.conv2d(x.double().relu(), weight.double(), None, 1, 4, 2, 8)
    out = kernels.depthwise(x, weight, kernels.Window(1, 2, True))
    broken = x.clone()
    broken[0, 3, 4, 4] = torch.nan
    # A ReLU passes a number that is none, so that a network that diverged is seen.
    assert kernels.depthwise(broken, weight, kernels.Window(1, 2, True))[0, 3].isnan().any()
    assert out.dtype == torch.bfloat16
    # Rounded once, at the end, by less than a unit: the interpreter cuts off, a GPU rounds to the nearest.
    assert torch.all((out.double() - exact).abs() <= 2**-7 * exact.abs())
    gradient = kernels.depthwise_weight_gradient(out, x, weight, kernels.Window(1, 2, True))
    assert gradient.dtype == torch.bfloat16
    again = kernels.depthwise_weight_gradient(out, x, weight, kernels.Window(1, 2, True))
    assert torch.equal(gradient, again)


def test_the_gradient_of_weights_takes_all_parts_of_many_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Several blocks in each of several parts, and the last one not full.
    monkeypatch.setattr(kernels, "PIXELS", 16)
    monkeypatch.setattr(kernels, "PARTS", 3)
    x = last(torch.ones(3, 4, 6, 6))
    gradient = last(torch.ones(3, 4, 6, 6))
    found = kernels.depthwise_weight_gradient(gradient, x, torch.zeros(4, 1, 3, 3), kernels.Window())
    # The number of pixels that a place of the window meets.
    assert found[0, 0].tolist() == [[75, 90, 75], [90, 108, 90], [75, 90, 75]]
