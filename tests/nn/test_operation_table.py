"""What the operations say of themselves, compared with their modules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUFirst
from cars_hw.nn.operations import make_operation
from cars_hw.space.operations import NONE, OPERATIONS
from cars_hw.space.operations.bottleneck import Bottleneck

REAL = [name for name in OPERATIONS if name != NONE]
WIDE = 8
NARROW = (3, 4, 5)
SHARED = Normalization(affine=False, running=False)


def noise(channels: int, height: int = 7, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(4, channels, height, width, dtype=torch.float64, generator=generator)


def made(name: str, channels: int, stride: int, norm: Normalization = SHARED) -> nn.Module:
    torch.manual_seed(0)
    return make_operation(name, channels, stride, norm).double()


def narrowed(name: str, wide: nn.Module, channels: int, stride: int) -> nn.Module:
    """Return the narrower module with the weights that the operation takes for it from ``wide``."""
    torch.manual_seed(1)
    narrow = made(name, channels, stride)
    shapes = {key: value.shape for key, value in narrow.state_dict().items()}
    narrow.load_state_dict(OPERATIONS[name].narrowed(wide.state_dict(), shapes))
    return narrow.eval()


def without_other_channels(module: nn.Module, channels: int) -> nn.Module:
    """Return ``module`` with the weights that read another input channel than the first ones set to zero."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d) and layer.groups == 1:
                layer.weight[:, channels:] = 0
    return module.eval()


@pytest.mark.parametrize("channels", NARROW)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "name", [name for name in REAL if name != "skip_connect" and not isinstance(OPERATIONS[name], Bottleneck)]
)
def test_the_first_channels_of_a_module_are_the_narrower_module(name: str, stride: int, channels: int) -> None:
    wide, x = made(name, WIDE, stride), noise(WIDE)
    narrow = narrowed(name, wide, channels, stride)
    with torch.no_grad():
        expected = without_other_channels(wide, channels)(x)[:, :channels]
        found = narrow(x[:, :channels])
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", NARROW)
def test_the_first_channels_of_each_half_of_a_reduction_are_the_narrower_reduction(channels: int) -> None:
    wide, x = made("skip_connect", WIDE, 2), noise(WIDE)
    narrow = narrowed("skip_connect", wide, channels, 2)
    first = channels // 2
    kept = [*range(first), *range(WIDE // 2, WIDE // 2 + channels - first)]
    with torch.no_grad():
        expected = without_other_channels(wide, channels)(x)[:, kept]
        found = narrow(x[:, :channels])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert made("skip_connect", WIDE, 1)(x) is x


def test_a_narrower_bottleneck_has_a_quarter_of_its_own_channels() -> None:
    wide, x = made("conv_3x3", WIDE, 1), noise(WIDE)
    narrow = narrowed("conv_3x3", wide, 4, 1)
    assert [tuple(one.weight.shape[:2]) for one in wide if isinstance(one, nn.Conv2d)] == [(2, 8), (2, 2), (8, 2)]  # type: ignore[union-attr]
    assert [tuple(one.weight.shape[:2]) for one in narrow if isinstance(one, nn.Conv2d)] == [(1, 4), (1, 1), (4, 1)]  # type: ignore[union-attr]
    with torch.no_grad():
        for layer in wide:  # type: ignore[union-attr]
            if isinstance(layer, nn.Conv2d):
                # The first quarter of the channels of either side is what the narrower module has.
                layer.weight[:, 1 if layer.in_channels == 2 else 4 :] = 0
        expected = wide.eval()(x)[:, :4]
        torch.testing.assert_close(narrow(x[:, :4]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REAL)
def test_narrowed_weights_are_views_through_which_gradients_reach_the_shared_ones(name: str) -> None:
    wide, narrow = made(name, WIDE, 2), made(name, 4, 2)
    parameters = dict(wide.named_parameters())
    shapes = {key: value.shape for key, value in narrow.named_parameters()}
    views = OPERATIONS[name].narrowed(parameters, shapes)
    assert views.keys() == parameters.keys()
    out = torch.func.functional_call(narrow, views, noise(4))
    if not parameters:
        return
    out.square().sum().backward()
    for key, parameter in parameters.items():
        assert views[key].data_ptr() == parameter.data_ptr()
        assert parameter.grad is not None
        inside = tuple(slice(size) for size in shapes[key])
        assert parameter.grad.count_nonzero() == parameter.grad[inside].count_nonzero() > 0


def functions(out: Tensor) -> Iterator[str]:
    """Yield the names of the autograd functions behind ``out``."""
    waiting, seen = [out.grad_fn], set()
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            yield type(function).__name__
            waiting += [source for source, _ in function.next_functions]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REAL)
def test_an_operation_says_what_its_module_is(name: str, stride: int) -> None:
    operation, module = OPERATIONS[name], made(name, 4, stride)
    assert operation.begins_with_relu(stride) == isinstance(module, ReLUFirst | FactorizedReduce)
    assert operation.is_computed(stride) != isinstance(module, nn.Identity)
    x = noise(4).contiguous(memory_format=torch.channels_last).requires_grad_()
    rearranged = {"_DepthwiseFunctionBackward", "_EverySecondPixelBackward"}
    assert operation.has_cpu_kernel(stride) == bool(rearranged & set(functions(module(x))))
    assert operation.title
    assert operation.short


def test_no_edge_is_neither_computed_nor_counted() -> None:
    assert not OPERATIONS[NONE].is_computed(1)
    assert not OPERATIONS[NONE].begins_with_relu(1)
    with pytest.raises(ValueError, match="no module computes 'none'"):
        make_operation(NONE, 4, 1, SHARED)


def test_what_keeps_most_for_the_backward_pass_is_known() -> None:
    """The order of ``kept_maps`` is that of the bytes that autograd saves."""
    saved = {}
    for name in REAL:
        x = noise(8, 16, 16).float().requires_grad_()
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        module = made(name, 8, 1).float()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            module(x)
        saved[name] = sum(kept.values())
    for (first, more), (second, less) in itertools.permutations(saved.items(), 2):
        if OPERATIONS[first].kept_maps > OPERATIONS[second].kept_maps:
            assert more >= less, (first, second, saved)
