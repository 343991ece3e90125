from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.nn.device_kind import as_on
from cars_hw.nn.layers import (
    Depthwise,
    DilatedDepthwise,
    FactorizedReduce,
    MaxPool,
    Normalization,
    ReLUConvBN,
    ReLUFirst,
    concatenate,
)
from cars_hw.nn.operations import make_operation
from cars_hw.space.operations import OPERATIONS
from cars_hw.training.determinism import deterministic_algorithms

REAL = [name for name in OPERATIONS if name != "none"]
SIZES = [(8, 8), (7, 7), (6, 9), (5, 4), (3, 2), (1, 1)]


def images(channels: int, size: tuple[int, int], last: bool = True) -> Tensor:
    # In double precision: what is compared differs in the order of its sums only, and that is then 1e-16.
    x = torch.randn(3, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size)))
    return x.contiguous(memory_format=torch.channels_last) if last else x


def values_and_gradients(
    run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> tuple[Tensor, list[Tensor]]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = run(x)
    # A gradient that differs from pixel to pixel, and is laid out as a slice of a larger one.
    weights = torch.arange(2 * out.numel(), dtype=out.dtype).reshape(out.shape[0], -1, *out.shape[2:]).sin()
    loss = (out * weights[:, : out.shape[1]]).sum()
    return out.detach(), list(torch.autograd.grad(loss, [x, *module.parameters()]))


def assert_same(
    one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]], tolerance: float = 1e-12
) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    assert len(one[1]) == len(other[1])
    for ours, theirs in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "NCHW"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_dilated_is_the_native_operation(kernel: int, stride: int, size: tuple[int, int], last: bool) -> None:
    module = DilatedDepthwise(4, kernel, stride).double()
    x = images(4, size, last)

    def native(x: Tensor) -> Tensor:
        return F.conv2d(x, module.weight, None, stride, 2 * (kernel // 2), 2, 4)

    assert_same(values_and_gradients(module, module, x), values_and_gradients(native, module, x))
    with torch.no_grad():
        torch.testing.assert_close(module(x), native(x))


@pytest.mark.parametrize("make", [DilatedDepthwise, Depthwise])
@pytest.mark.parametrize("stride", [1, 2])
def test_exporters_and_other_devices_get_the_native_operation(
    make: Callable[[int, int, int], nn.Conv2d], stride: int
) -> None:
    module = make(4, 5, stride)
    x = torch.randn(1, 4, 8, 8)
    # An exporter runs with gradients on, and wants the operation itself.
    with mock.patch("torch.onnx.is_in_onnx_export", return_value=True):
        assert module(x).grad_fn.name() == "ConvolutionBackward0"
    assert module.to("meta")(x.to("meta")).grad_fn.name() == "ConvolutionBackward0"


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "NCHW"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_is_the_native_operation(kernel: int, stride: int, size: tuple[int, int], last: bool) -> None:
    module = Depthwise(4, kernel, stride).double()
    x = images(4, size, last)

    def native(x: Tensor) -> Tensor:
        return F.conv2d(x, module.weight, None, stride, kernel // 2, 1, 4)

    assert_same(values_and_gradients(module, module, x), values_and_gradients(native, module, x))


@pytest.mark.parametrize("make", [DilatedDepthwise, Depthwise])
def test_depthwise_with_frozen_weights_or_input(make: Callable[[int, int, int], nn.Conv2d]) -> None:
    module = make(4, 5, 1).double()
    x = images(4, (8, 8))
    (only_weight,) = torch.autograd.grad(module(x).square().sum(), [module.weight])
    x.requires_grad_()
    both = torch.autograd.grad(module(x).square().sum(), [x, module.weight])
    torch.testing.assert_close(only_weight, both[1])
    module.weight.requires_grad_(False)
    (only_input,) = torch.autograd.grad(module(x).square().sum(), [x])
    torch.testing.assert_close(only_input, both[0])


@pytest.mark.parametrize("make", [DilatedDepthwise, Depthwise])
def test_depthwise_under_autocast(make: Callable[[int, int, int], nn.Conv2d]) -> None:
    module = make(4, 5, 1)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("size", SIZES)
def test_factorized_reduce_makes_its_halves_of_shifted_pixels(size: tuple[int, int]) -> None:
    module = FactorizedReduce(4, 6, Normalization(affine=False)).double()
    module.bn = nn.Identity()  # type: ignore[assignment]
    x = images(4, size)

    def by_hand(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x.relu(), (0, width % 2, 0, height % 2))
        halves = (x[:, :, ::2, ::2], module.conv_1.weight), (x[:, :, 1::2, 1::2], module.conv_2.weight)
        return torch.cat(
            [torch.einsum("nchw,kc->nkhw", pixels, weight[:, :, 0, 0]) for pixels, weight in halves], 1
        )

    assert_same(values_and_gradients(module, module, x), values_and_gradients(by_hand, module, x))
    with mock.patch("torch.onnx.is_in_onnx_export", return_value=True):
        assert_same(values_and_gradients(module, module, x), values_and_gradients(by_hand, module, x))


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("grad", [True, False], ids=["training", "evaluation"])
def test_operations_keep_or_halve_the_size_and_leave_their_input_alone(
    name: str, stride: int, size: tuple[int, int], grad: bool
) -> None:
    module = make_operation(name, 4, stride, Normalization())
    x = images(4, size).float()
    before = x.clone()
    with torch.set_grad_enabled(grad):
        out = module(x)
    assert out.shape == (3, 4, *(-(-pixels // stride) for pixels in size))
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(8, 8), (7, 7)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("grad", [True, False], ids=["training", "evaluation"])
def test_operations_stay_in_channels_last(name: str, stride: int, size: tuple[int, int], grad: bool) -> None:
    # A bottleneck has a quarter of the channels, and one channel has both layouts.
    module = make_operation(name, 8, stride, Normalization()).to(memory_format=torch.channels_last)
    x = images(8, size).float().requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        out = module(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    if grad:
        out.square().sum().backward()
        assert x.grad is not None
        assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "make",
    [
        lambda norm: ReLUConvBN(4, 6, norm),
        lambda norm: FactorizedReduce(4, 6, norm),
        *(lambda norm, name=name: make_operation(name, 4, 2, norm) for name in REAL if "conv" in name),
    ],
)
def test_an_activated_input_needs_no_relu(make: Callable[[Normalization], ReLUFirst | FactorizedReduce]) -> None:
    module = make(Normalization(affine=False, running=False)).double()
    x = images(4, (7, 8))
    shared = values_and_gradients(lambda x: module.activated(x.relu()), module, x)
    assert_same(values_and_gradients(module, module, x), shared)
    # And it does begin with one: negative values are nothing to it.
    torch.testing.assert_close(module(x), module(x.clamp(min=0)))


def test_average_pooling_does_not_count_the_padding() -> None:
    pool = make_operation("avg_pool_3x3", 1, 2, Normalization())
    torch.testing.assert_close(pool(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 3, 3))


def test_max_pooling_ignores_the_padding() -> None:
    pool = make_operation("max_pool_3x3", 1, 1, Normalization())
    torch.testing.assert_close(pool(-torch.ones(1, 1, 4, 4)), -torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_deterministic_max_pooling_is_that_of_pytorch(stride: int, size: tuple[int, int]) -> None:
    pool = MaxPool(stride)
    # Many pixels are equal, as after a ReLU. The first of them has the gradient.
    x = images(4, size).round().relu()
    native = values_and_gradients(pool, pool, x)
    with as_on("cuda"), deterministic_algorithms(True):
        assert pool(x.clone().requires_grad_()).grad_fn.name() == "CloneBackward0"
        assert_same(values_and_gradients(pool, pool, x), native)
        assert pool(x).is_contiguous(memory_format=torch.channels_last)
    assert pool(x.clone().requires_grad_()).grad_fn.name() == "MaxPool2DWithIndicesBackward0"


def test_a_skip_is_the_input_itself() -> None:
    x = images(4, (8, 8))
    assert make_operation("skip_connect", 4, 1, Normalization())(x) is x


@pytest.mark.parametrize("name", ["none", "conv_7x1"])
def test_what_is_not_computed_has_no_module(name: str) -> None:
    with pytest.raises(ValueError, match=f"no module computes '{name}'"):
        make_operation(name, 4, 1, Normalization())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_normalization_is_done_as_asked(affine: bool, running: bool) -> None:
    module = make_operation("sep_conv_3x3", 4, 1, Normalization(affine, running))
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 2
    for layer in layers:
        assert (layer.weight is not None, layer.bias is not None) == (affine, affine)
        assert (layer.running_mean is not None) == running


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "NCHW"])
def test_concatenation_is_torchs_and_its_gradients_are_dense(last: bool) -> None:
    layout = torch.channels_last if last else torch.contiguous_format
    states = [images(channels, (4, 5), last).requires_grad_() for channels in (2, 3, 4)]
    weights = torch.arange(3 * 9 * 20, dtype=torch.float64).reshape(3, 9, 4, 5)
    out = concatenate(states)
    expected = torch.cat(states, dim=1)
    assert torch.equal(out, expected)
    ours = torch.autograd.grad((out * weights).sum(), states)
    for mine, theirs in zip(ours, torch.autograd.grad((expected * weights).sum(), states), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [(16, 16), (9, 6), (4, 4), (2, 5)])
@pytest.mark.parametrize("make", [Depthwise, DilatedDepthwise])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_in_single_precision(
    make: Callable[[int, int, int], nn.Conv2d], kernel: int, size: tuple[int, int]
) -> None:
    # oneDNN has no double precision: these are the kernels that training really uses.
    module = make(16, kernel, 1)
    x = images(16, size).float()

    def native(x: Tensor) -> Tensor:
        return F.conv2d(x, module.weight, None, 1, module.padding, module.dilation, 16)

    assert_same(values_and_gradients(module, module, x), values_and_gradients(native, module, x), tolerance=1e-4)
