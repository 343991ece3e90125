"""The operations that layers choose on a GPU compute what those on a CPU compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cars_hw.nn.device_kind import as_on, device_kind
from cars_hw.nn.fused import relu_depthwise
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec


def every_operation() -> list[Genotype]:
    """Return genotypes in which every operation reads an input, and a node."""
    names = list(FAMILIES["darts"].real_operations)
    found = []
    for shift in range(0, len(names), 2):
        turned = [*names[shift:], *names, *names]
        cell = tuple((Edge(turned[2 * node], node), Edge(turned[2 * node + 1], node + 1)) for node in range(4))
        found.append(Genotype(normal=cell, reduce=cell))
    return found


@pytest.mark.parametrize(
    "spec",
    [NetworkSpec(4, 3, (9, 11)), NetworkSpec(4, 4, (34, 36), stem="imagenet")],
    ids=["cifar", "imagenet"],
)
def test_a_network_has_the_same_outputs_and_gradients(spec: NetworkSpec) -> None:
    torch.manual_seed(0)
    supernet = SuperNet(spec).double()
    images = torch.randn(3, *spec.input_shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(3)

    def results(genotype: Genotype) -> list[Tensor | None]:
        supernet.zero_grad(set_to_none=True)
        logits = supernet(images, genotype)
        F.cross_entropy(logits, labels).backward()
        return [logits.detach(), *(one.grad for one in supernet.parameters())]

    for genotype in every_operation():
        plain = results(genotype)
        with as_on("cuda"):
            on_gpu = results(genotype)
        for mine, theirs in zip(on_gpu, plain, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_a_kind_is_pretended_inside_of_the_block_only() -> None:
    x = torch.zeros(1)
    with as_on("cuda"):
        assert device_kind(x) == "cuda"
        with as_on("cpu"):
            assert device_kind(x) == "cpu"
        assert device_kind(x) == "cuda"
    assert device_kind(x) == "cpu"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_gradients_of_a_fused_operation_are_those_of_its_parts(stride: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 7, 9, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0] = 0
    weight = torch.randn(4, 1, 5, 5, generator=generator, dtype=torch.float64)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x.relu(), weight, None, stride, 2 * dilation, dilation, 4)

    for needed in ((True, True), (True, False), (False, True)):
        found = []
        for run in (plain, lambda x, weight: relu_depthwise(x, weight, stride, dilation)):
            inputs = [one.clone().requires_grad_(wanted) for one, wanted in zip((x, weight), needed, strict=True)]
            out = run(*inputs)
            found.append(
                [out, *torch.autograd.grad(out.square().sum(), [one for one in inputs if one.requires_grad])]
            )
        torch.testing.assert_close(found[1], found[0])


def test_a_fused_operation_is_cast_under_autocast() -> None:
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = relu_depthwise(x, weight, 1, 1)
        wanted = F.conv2d(x.relu(), weight, None, 1, 1, 1, 4)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, wanted)
    (gradient,) = torch.autograd.grad(out.float().sum(), [weight])
    assert gradient.dtype == torch.float32
