from unittest import mock

import numpy as np
import pytest
import torch
from long_runs import amount
from torch import nn

from cars_hw.nn.cost import Cost, network_cost, published_cost
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.operations import make_operation
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

# Millions of parameters as the paper prints them: CIFAR-10 in Table 1, ImageNet in Table 2.
PRINTED = {
    "CARS_A": ("2.4", "3.7"),
    "CARS_B": ("2.7", "4.0"),
    "CARS_C": ("2.8", "4.2"),
    "CARS_D": ("2.9", "4.3"),
    "CARS_E": ("3.0", "4.4"),
    "CARS_F": ("3.1", "4.5"),
    "CARS_G": ("3.2", "4.7"),
    "CARS_H": ("3.3", "4.8"),
    "CARS_I": ("3.6", "5.1"),
}
# Few cells, odd sizes at every reduction, and images that are not square.
SPECS = {
    "cifar": NetworkSpec(channels=4, layers=4, resolution=(16, 16), classes=7),
    "cifar, odd": NetworkSpec(channels=6, layers=3, resolution=(15, 13), in_channels=1),
    "imagenet": NetworkSpec(channels=4, layers=3, resolution=(64, 64), classes=11, stem="imagenet"),
    "imagenet, odd": NetworkSpec(channels=2, layers=4, resolution=(57, 71), stem="imagenet"),
}


def counted(module: nn.Module, shape: tuple[int, ...]) -> Cost:
    """What a forward pass over one image really computes."""
    multiply_adds = 0

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal multiply_adds
        weight = module.get_parameter("weight")
        # Each output value takes as many multiply-adds as its filter has weights.
        multiply_adds += output.numel() * weight[0].numel()

    handles = [
        part.register_forward_hook(count) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    x = torch.zeros(1, *shape, device=next(module.parameters(), torch.empty(0)).device)
    # As an exporter sees the network: every convolution is a module's, none is rearranged for the CPU.
    with mock.patch("torch.onnx.is_in_onnx_export", return_value=True), torch.no_grad():
        module.eval()(x)
    for handle in handles:
        handle.remove()
    return Cost(sum(parameter.numel() for parameter in module.parameters()), multiply_adds)


def graph_of(network: Network, spec: NetworkSpec) -> tuple[int, int]:
    """The parameters that the logits depend on, and how many of them are scales of normalisations."""
    images = torch.randn(2, *spec.input_shape)
    network.train()(images).sum().backward()
    read = [(name, one.numel()) for name, one in network.named_parameters() if one.grad is not None]
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return sum(size for _, size in read), sum(size for name, size in read if name.removesuffix(".weight") in norms)


@pytest.mark.parametrize("name", PRINTED)
def test_parameters_are_those_that_the_paper_prints(name: str) -> None:
    genotype = zoo()[name].genotype
    millions = tuple(
        f"{published_cost(NETWORKS[network], genotype).parameters / 1e6:.1f}" for network in ("cifar", "imagenet")
    )
    assert millions == PRINTED[name]


def test_cars_a_exactly() -> None:
    genotype = zoo()["CARS_A"].genotype
    assert published_cost(NETWORKS["cifar"], genotype).parameters == 2_432_206
    assert published_cost(NETWORKS["imagenet"], genotype) == Cost(3_687_712, 410_524_032)


@pytest.mark.parametrize("name", ["CARS_A", "CARS_I", "DARTS_V2", "SNAS_aggressive"])
@pytest.mark.parametrize("network", ["cifar", "imagenet"])
def test_published_networks_counted_from_the_module(name: str, network: str) -> None:
    spec, genotype = NETWORKS[network], zoo()[name].genotype
    # Too large to compute: on the meta device a pass has shapes and no values.
    with torch.device("meta"):
        module = Network(spec, genotype)
    assert counted(module, spec.input_shape) == published_cost(spec, genotype)


@pytest.mark.parametrize("name", SPECS)
def test_closed_form_is_what_the_module_counts(name: str) -> None:
    spec, space, rng = SPECS[name], SearchSpace(), np.random.default_rng(list(SPECS).index(name))
    genotypes = [space.sample(rng) for _ in range(amount(15, 200))]
    absent = [
        not edge.is_real for genotype in genotypes for node in genotype.normal + genotype.reduce for edge in node
    ]
    assert any(absent)
    for genotype in genotypes:
        network, cost = Network(spec, genotype), network_cost(spec, genotype)
        assert counted(network, spec.input_shape) == published_cost(spec, genotype)
        # Weights that an image's logits depend on have a gradient.
        read, scales = graph_of(network, spec)
        assert (cost.trained_parameters, cost.folded) == (read, scales)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "none"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_each_operation_is_what_its_module_counts(operation: str, stride: int, size: tuple[int, int]) -> None:
    module = make_operation(operation, 6, stride, Normalization())
    shape = Shape(6, *size)
    cost = OPERATIONS[operation].cost(shape, stride)
    assert counted(module, shape) == Cost(cost.trained_parameters, cost.multiply_adds)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert cost.folded == sum(norm.num_features for norm in norms)


def test_an_absent_edge_costs_nothing() -> None:
    assert OPERATIONS["none"].cost(Shape(16, 32, 32), 1) == OPERATIONS["none"].cost(Shape(16, 32, 32), 2) == Cost()


def test_a_separable_convolution_worked_out_by_hand() -> None:
    # Twice: 16 filters of 9, 16 x 16 of 1, a bias and the folded scale; 64 pixels in, 16 out.
    weights = 16 * 9 + 16 * 16
    assert OPERATIONS["sep_conv_3x3"].cost(Shape(16, 8, 8), 2) == Cost(2 * (weights + 16), 2 * weights * 16, 2 * 16)


def test_an_auxiliary_head_is_not_counted() -> None:
    spec = NetworkSpec(channels=4, layers=5, resolution=(32, 32))
    genotype = zoo()["CARS_A"].genotype
    network = Network(spec, genotype, auxiliary=True)
    assert network.auxiliary is not None
    head = sum(parameter.numel() for parameter in network.auxiliary.parameters())
    assert (
        sum(parameter.numel() for parameter in network.parameters()) - head
        == published_cost(spec, genotype).parameters
    )
