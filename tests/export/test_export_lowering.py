"""The graph itself: what is lowered, what is left out, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cars_hw.errors import ExportError
from cars_hw.export.graph import Concat, Conv, Graph, Identity, Linear, Relu, Shift, Zeros
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.nn.cost import network_cost, published_cost
from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUConvBN
from cars_hw.nn.network import AuxiliaryHead, Network
from cars_hw.nn.operations import make_operation
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

SPECS = [
    NETWORKS["quick"],
    NetworkSpec(channels=4, layers=3, resolution=(65, 97), classes=7, stem="imagenet"),
    NetworkSpec(channels=6, layers=4, resolution=(9, 12)),
]


def genotypes(count: int) -> list[Genotype]:
    return [SearchSpace().sample(np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("spec", SPECS, ids=["quick", "imagenet", "odd"])
def test_multiply_adds_and_weights_are_those_of_the_cost_model(spec: NetworkSpec) -> None:
    for genotype in (*genotypes(6), zoo()["CARS_A"].genotype):
        graph = lower_network(Network(spec, genotype))
        cost = network_cost(spec, genotype)
        assert graph.multiply_adds == cost.multiply_adds
        weighted = [layer for layer in graph.layers if isinstance(layer, Conv | Linear)]
        weights = sum(layer.weight.size for layer in weighted)
        biases = sum(layer.bias.size for layer in weighted if layer.bias is not None)
        # A normalisation's scale is folded away; its shift becomes the convolution's bias.
        assert weights + biases == cost.parameters


def test_multiply_adds_by_hand() -> None:
    graph = lower_module(make_operation("sep_conv_3x3", 4, 2, Normalization()), Shape(4, 7, 8))
    assert graph.multiply_adds == 2 * (4 * 9 + 16) * 4 * 4


def test_what_nothing_reads_is_left_out() -> None:
    spec = NETWORKS["quick"]
    # Both cells live on input 1 alone.
    node = (Edge("sep_conv_3x3", 1), Edge("none", 0))
    genotype = Genotype((node,) * 4, (node,) * 4)
    graph = lower_network(Network(spec, genotype))
    assert not any("preprocess_0" in layer.output for layer in graph.layers)
    assert graph.multiply_adds == network_cost(spec, genotype).multiply_adds
    assert graph.multiply_adds < published_cost(spec, genotype).multiply_adds
    assert graph.without_dead_layers().layers == graph.layers


def test_a_relu_is_computed_once() -> None:
    node = (Edge("sep_conv_3x3", 0), Edge("dil_conv_5x5", 1))
    genotype = Genotype((node,) * 4, (node,) * 4)
    graph = lower_network(Network(NETWORKS["quick"], genotype))
    sources = [layer.inputs[0] for layer in graph.layers if isinstance(layer, Relu)]
    assert len(sources) == len(set(sources))
    # One for each of two inputs, before and behind their preprocessing, and one within each of four sep_convs.
    assert sum(source.startswith("cells.4/") for source in sources) == 2 + 4


def test_empty_nodes_are_one_zeros() -> None:
    graph = lower_network(Network(NETWORKS["quick"], zoo()["SNAS_aggressive"].genotype))
    zeros = [layer.output for layer in graph.layers if isinstance(layer, Zeros)]
    assert zeros == ["cells.1/zeros", "cells.3/zeros"]
    joined = next(layer for layer in graph.layers if layer.output == "cells.1")
    assert isinstance(joined, Concat)
    assert joined.inputs[2:] == ("cells.1/zeros", "cells.1/zeros")


def test_shapes_are_those_of_torch() -> None:
    for height, width in ((8, 8), (7, 7), (8, 5), (1, 1)):
        module = FactorizedReduce(4, 6, Normalization())
        graph = lower_module(module, Shape(4, height, width))
        with torch.no_grad():
            expected = module(torch.zeros(2, 4, height, width)).shape[1:]
        assert tuple(graph.shape(graph.outputs[0])) == tuple(expected)
        shift = next(layer for layer in graph.layers if isinstance(layer, Shift))
        assert shift.shape[1:] == (height - (height % 2 == 0), width - (width % 2 == 0))


def test_folding_does_not_depend_on_the_mode_nor_change_the_network() -> None:
    network = Network(NETWORKS["quick"], zoo()["CARS_A"].genotype).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = [layer.weight for layer in lower_network(network).layers if isinstance(layer, Conv)]
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    evaluating = [layer.weight for layer in lower_network(network.eval()).layers if isinstance(layer, Conv)]
    assert all(np.array_equal(*pair) for pair in zip(training, evaluating, strict=True))


def test_the_auxiliary_head_is_left_out() -> None:
    spec = NETWORKS["cifar"].with_changes(channels=4, layers=3)
    genotype = zoo()["CARS_A"].genotype
    graph = lower_network(Network(spec, genotype, auxiliary=True))
    assert graph.multiply_adds == network_cost(spec, genotype).multiply_adds


def test_a_skip_is_no_layer_in_a_network_and_one_alone() -> None:
    standalone = lower_module(make_operation("skip_connect", 4, 1, Normalization()), Shape(4, 5, 5))
    assert [type(layer) for layer in standalone.layers] == [Identity]
    network = Network(NETWORKS["quick"], zoo()["DARTS_V2"].genotype)
    assert not any(isinstance(layer, Identity) for layer in lower_network(network).layers)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Tanh(), "Tanh"),
        (nn.Sequential(nn.ReLU(), nn.GELU()), "GELU"),
        (nn.BatchNorm2d(4), "BatchNorm2d"),
        (AuxiliaryHead(4, 8, 8, 10), "pooling"),
        (nn.MaxPool2d(2), "pooling"),
        (nn.MaxPool2d(3, 1, 1, dilation=2), "pooling"),
        (nn.AvgPool2d(3, 2, 1), "pooling"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True), "pooling"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, dilation=(1, 2))), "the same dilation on both axes"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")), "padding"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "padding"),
        (ReLUConvBN(5, 4, Normalization()), "5 channels are expected, not 4"),
        (nn.Linear(5, 10), "5 channels are expected, not 4"),
        (ReLUConvBN(4, 4, Normalization(running=False)), "running averages"),
        (FactorizedReduce(4, 4, Normalization(affine=False, running=False)), "running averages"),
    ],
)
def test_what_cannot_be_exported_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        lower_module(module, Shape(4, 8, 8))


def test_a_network_without_running_averages_is_refused() -> None:
    network = Network(NETWORKS["quick"], zoo()["CARS_A"].genotype, norm=Normalization(affine=False, running=False))
    with pytest.raises(ExportError, match="stem: its normalisation keeps no running averages"):
        lower_network(network)


def test_a_graph_is_in_order_and_names_are_unique() -> None:
    shape = Shape(1, 2, 2)
    first = Relu(output="first", inputs=("input",), shape=shape)
    second = Relu(output="second", inputs=("first",), shape=shape)
    assert Graph((("input", shape),), (first, second), ("second",)).shape("first") == shape
    with pytest.raises(ValueError, match="first is used before"):
        Graph((("input", shape),), (second, first), ("second",))
    with pytest.raises(ValueError, match="two values are called first"):
        Graph((("input", shape),), (first, first), ("first",))
    with pytest.raises(ValueError, match="third is used before"):
        Graph((("input", shape),), (first,), ("third",))
