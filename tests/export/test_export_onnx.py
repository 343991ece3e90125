"""The ONNX files: ONNX Runtime computes with them what torch computes with the modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cars_hw.errors import ExportError
from cars_hw.export.graph import (
    Graph,
    Layer,
    Relu,
    add_graph,
    concat_graph,
    head_graph,
    identity_graph,
)
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.onnx import IR_VERSION, OPSET, onnx_bytes, write_onnx
from cars_hw.genotype import OPERATIONS, Edge, Genotype
from cars_hw.network import Network, make_preprocessing, make_stem
from cars_hw.operations import Normalization, make_operation
from cars_hw.space import SearchSpace
from cars_hw.spec import NETWORKS, NetworkSpec, Shape
from cars_hw.zoo import zoo

Season = Callable[[nn.Module, Tensor], nn.Module]
Array = npt.NDArray[np.float32]

CLOSE = 1e-5
SMALL_IMAGENET = NetworkSpec(channels=4, layers=3, resolution=(65, 97), classes=7, stem="imagenet")


def run(graph: Graph, *inputs: Tensor) -> list[Array]:
    """Run the graph on one thread, with its batch open."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnx_bytes(graph, dynamic_batch=True)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [name for name, _ in graph.inputs]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})


def noise(count: int, shape: Shape, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Array, expected: Tensor) -> None:
    assert actual.shape == tuple(expected.shape)
    assert np.abs(actual - expected.numpy()).max() <= CLOSE * float(expected.abs().max())


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 5), (1, 1)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
def test_operations(name: str, stride: int, size: tuple[int, int], seasoned: Season) -> None:
    shape = Shape(6, *size)
    images = noise(4, shape)
    module = seasoned(make_operation(name, 6, stride, Normalization()), images)
    with torch.no_grad():
        expected = module(images)
    graph = lower_module(module, shape)
    assert_close(run(graph, images)[0], expected)
    assert tuple(graph.shape(graph.outputs[0])) == tuple(expected.shape[1:])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_padding_never_wins_in_a_pool(name: str, stride: int) -> None:
    images = noise(2, Shape(3, 7, 8)) - 10
    module = make_operation(name, 3, stride, Normalization())
    assert_close(run(lower_module(module, Shape(3, 7, 8)), images)[0], module(images))


def test_affine_free_normalisation(seasoned: Season) -> None:
    images = noise(4, Shape(6, 8, 8))
    module = seasoned(make_operation("sep_conv_3x3", 6, 1, Normalization()), images)
    plain = make_operation("sep_conv_3x3", 6, 1, Normalization(affine=False)).eval()
    plain.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        assert_close(run(lower_module(plain, Shape(6, 8, 8)), images)[0], plain(images))


@pytest.mark.parametrize("spec", [NETWORKS["quick"], SMALL_IMAGENET], ids=["cifar", "imagenet"])
def test_stems(spec: NetworkSpec, seasoned: Season) -> None:
    images = noise(4, spec.input_shape)
    stem = seasoned(make_stem(spec, Normalization()), images)
    with torch.no_grad():
        expected = stem(images)
    actual = run(lower_module(stem, spec.input_shape), images)
    assert len(actual) == (1 if spec.stem == "cifar" else 2)
    for value, truth in zip(actual, [expected] if spec.stem == "cifar" else expected, strict=True):
        assert_close(value, truth)


def test_preprocessing(seasoned: Season) -> None:
    for layout in SMALL_IMAGENET.cells():
        for module, shape in zip(make_preprocessing(layout, Normalization()), layout.inputs, strict=True):
            images = noise(4, shape)
            seasoned(module, images)
            with torch.no_grad():
                assert_close(run(lower_module(module, shape), images)[0], module(images))


def test_head() -> None:
    shape = Shape(12, 7, 5)
    images = noise(3, shape)
    linear = nn.Linear(12, 10)
    with torch.no_grad():
        assert_close(run(lower_module(linear, shape), images)[0], linear(images.mean(dim=(2, 3))))
    assert run(head_graph(shape, 10), images)[0].shape == (3, 10)


def test_glue() -> None:
    shape = Shape(3, 4, 5)
    parts = [noise(2, shape, seed) for seed in range(4)]
    assert_close(run(add_graph(shape), *parts[:2])[0], parts[0] + parts[1])
    assert_close(run(concat_graph(shape, 4), *parts)[0], torch.cat(parts, dim=1))
    assert_close(run(identity_graph(shape), parts[0])[0], parts[0])


def random_genotype(seed: int) -> Genotype:
    return SearchSpace().sample(np.random.default_rng(seed))


LAZY = Genotype(
    ((Edge("sep_conv_3x3", 1), Edge("none", 0)),) * 4, ((Edge("max_pool_3x3", 0), Edge("none", 1)),) * 4
)
"""Cells that read one of their inputs only, so that others are dead."""


@pytest.mark.parametrize(
    "genotype",
    [*map(random_genotype, range(4)), LAZY, zoo()["SNAS_aggressive"].genotype],
    ids=["0", "1", "2", "3", "lazy", "snas"],
)
@pytest.mark.parametrize("spec", [NETWORKS["quick"], SMALL_IMAGENET], ids=["quick", "imagenet"])
def test_networks(spec: NetworkSpec, genotype: Genotype, seasoned: Season) -> None:
    images = noise(8, spec.input_shape)
    torch.manual_seed(2)
    network = seasoned(Network(spec, genotype), images)
    assert isinstance(network, Network)
    with torch.no_grad():
        expected = network(images[:3])
    # Logits that hardly depend on the image would hide what the first cells do.
    assert float(expected.std(dim=0).max()) > 0.01 * float(expected.abs().max())
    assert_close(run(lower_network(network), images[:3])[0], expected)


def test_a_batch_is_1_or_open(tmp_path: Path) -> None:
    graph = lower_network(Network(NETWORKS["quick"], zoo()["SNAS_aggressive"].genotype))
    for dynamic, batch in ((False, 1), (True, "batch")):
        write_onnx(graph, tmp_path / "net.onnx", dynamic_batch=dynamic)
        session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
        assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", [batch, 1, 28, 28])]
        assert [(value.name, value.shape) for value in session.get_outputs()] == [("logits", [batch, 10])]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    genotype = zoo()["CARS_A"].genotype
    graph = lower_network(Network(NETWORKS["quick"], genotype))
    write_onnx(graph, tmp_path / "net.onnx", metadata={"b": "zwei", "a": "één"})
    meta = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"]).get_modelmeta()
    assert meta.custom_metadata_map == {"a": "één", "b": "zwei"}
    assert meta.producer_name == "cars-hw"
    model = onnx.load(tmp_path / "net.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
    assert {node.domain for node in model.graph.node} == {""}
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names))
    kernels = [node.name for node in model.graph.node if node.op_type == "Conv"]
    for number, node in enumerate(genotype.normal):
        for edge in node:
            if "conv" in edge.operation:
                path = f"cells.2/node{number}/{edge.operation}.from_{edge.source}"
                assert {f"{path}/depthwise", f"{path}/pointwise"} <= set(kernels)


def test_the_same_graph_gives_the_same_bytes() -> None:
    network = Network(NETWORKS["quick"], zoo()["CARS_A"].genotype)
    first = onnx_bytes(lower_network(network), metadata={"a": "1", "b": "2"})
    assert first == onnx_bytes(lower_network(network), metadata={"b": "2", "a": "1"})
    assert first != onnx_bytes(lower_network(network), metadata={"a": "1", "b": "3"})


def test_a_wrong_shape_is_found_before_anything_is_written(tmp_path: Path) -> None:
    layer = Relu(output="relu", inputs=("input",), shape=Shape(3, 4, 5))
    with pytest.raises(ExportError, match="not valid ONNX"):
        write_onnx(Graph((("input", Shape(3, 4, 4)),), (layer,), ("relu",)), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_layer_is_named() -> None:
    layer = Layer(output="odd", inputs=("input",), shape=Shape(3, 4, 4))
    with pytest.raises(ExportError, match="odd: Layer cannot be written"):
        onnx_bytes(Graph((("input", Shape(3, 4, 4)),), (layer,), ("odd",)))
