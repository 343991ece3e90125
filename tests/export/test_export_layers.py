"""What ONNX Runtime and LiteRT compute with the files is what torch computes with the modules, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from cars_hw.devices.host import ort_runtime
from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.export.graph import Graph, Zeros, add_graph, concat_graph, head_graph, identity_graph
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.onnx_writer import onnx_bytes
from cars_hw.export.tflite_writer import SIGNATURE, tflite_bytes
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network, make_preprocessing, make_stem
from cars_hw.nn.operations import make_operation
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

onnxruntime = ort_runtime.load()

Season = Callable[[nn.Module, Tensor], nn.Module]
Array = npt.NDArray[np.float32]
Run = Callable[..., list[Array]]

CLOSE = 1e-5
SMALL_IMAGENET = NetworkSpec(channels=4, layers=3, resolution=(65, 97), classes=7, stem="imagenet")


def run_onnx(graph: Graph, *inputs: Tensor) -> list[Array]:
    """Run the graph on one thread, with its batch open."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnx_bytes(graph, dynamic_batch=True)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [name for name, _ in graph.inputs]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})


def run_tflite(graph: Graph, *inputs: Tensor) -> list[Array]:
    """Run the graph, image by image, and return its outputs as torch lays them out."""
    signature = interpreter(tflite_bytes(graph), 1).get_signature_runner(SIGNATURE)
    results: list[list[Array]] = [[] for _ in graph.outputs]
    for images in zip(*inputs, strict=True):
        feeds = {
            name: image.permute(1, 2, 0)[None].numpy()
            for (name, _), image in zip(graph.inputs, images, strict=True)
        }
        found = signature(**feeds)
        for values, name in zip(results, graph.outputs, strict=True):
            value = found[name]
            values.append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
    return [np.concatenate(values) for values in results]


@pytest.fixture(params=[run_onnx, run_tflite], ids=["onnx", "tflite"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a graph on its inputs, through a file of either format."""
    function: Run = request.param
    return function


def noise(count: int, shape: Shape, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Array, expected: Tensor) -> None:
    assert actual.shape == tuple(expected.shape)
    assert np.abs(actual - expected.numpy()).max() <= CLOSE * float(expected.abs().max())


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 5), (5, 8), (1, 1), (2, 2)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
def test_operations(run: Run, name: str, stride: int, size: tuple[int, int], seasoned: Season) -> None:
    shape = Shape(6, *size)
    images = noise(4, shape)
    module = seasoned(make_operation(name, 6, stride, Normalization()), images)
    with torch.no_grad():
        expected = module(images)
    graph = lower_module(module, shape)
    assert_close(run(graph, images)[0], expected)
    assert tuple(graph.shape(graph.outputs[0])) == tuple(expected.shape[1:])


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (7, 8)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_padding_never_wins_in_a_pool(run: Run, name: str, stride: int, size: tuple[int, int]) -> None:
    images = noise(2, Shape(3, *size)) - 10
    module = make_operation(name, 3, stride, Normalization())
    assert_close(run(lower_module(module, Shape(3, *size)), images)[0], module(images))


def test_affine_free_normalisation(run: Run, seasoned: Season) -> None:
    images = noise(4, Shape(6, 8, 8))
    module = seasoned(make_operation("sep_conv_3x3", 6, 1, Normalization()), images)
    plain = make_operation("sep_conv_3x3", 6, 1, Normalization(affine=False)).eval()
    plain.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        assert_close(run(lower_module(plain, Shape(6, 8, 8)), images)[0], plain(images))


@pytest.mark.parametrize("spec", [NETWORKS["quick"], SMALL_IMAGENET], ids=["cifar", "imagenet"])
def test_stems(run: Run, spec: NetworkSpec, seasoned: Season) -> None:
    images = noise(4, spec.input_shape)
    stem = seasoned(make_stem(spec, Normalization()), images)
    with torch.no_grad():
        expected = stem(images)
    actual = run(lower_module(stem, spec.input_shape), images)
    assert len(actual) == (1 if spec.stem == "cifar" else 2)
    for value, truth in zip(actual, [expected] if spec.stem == "cifar" else expected, strict=True):
        assert_close(value, truth)


def test_preprocessing(run: Run, seasoned: Season) -> None:
    for layout in SMALL_IMAGENET.cells():
        for module, shape in zip(make_preprocessing(layout, Normalization()), layout.inputs, strict=True):
            images = noise(4, shape)
            seasoned(module, images)
            with torch.no_grad():
                assert_close(run(lower_module(module, shape), images)[0], module(images))


def test_head(run: Run) -> None:
    shape = Shape(12, 7, 5)
    images = noise(3, shape)
    linear = nn.Linear(12, 10)
    with torch.no_grad():
        assert_close(run(lower_module(linear, shape), images)[0], linear(images.mean(dim=(2, 3))))
    assert run(head_graph(shape, 10), images)[0].shape == (3, 10)


def test_glue(run: Run) -> None:
    shape = Shape(3, 4, 5)
    parts = [noise(2, shape, seed) for seed in range(4)]
    assert_close(run(add_graph(shape), *parts[:2])[0], parts[0] + parts[1])
    assert_close(run(concat_graph(shape, 4), *parts)[0], torch.cat(parts, dim=1))
    assert_close(run(identity_graph(shape), parts[0])[0], parts[0])
    zeros = Graph((("input", shape),), (Zeros(output="zeros", inputs=("input",), shape=shape),), ("zeros",))
    assert not run(zeros, parts[0])[0].any()


LAZY = Genotype(
    ((Edge("sep_conv_3x3", 1), Edge("none", 0)),) * 4, ((Edge("max_pool_3x3", 0), Edge("none", 1)),) * 4
)
"""Cells that read one of their inputs only, so that others are dead."""


@pytest.mark.parametrize(
    "genotype",
    [
        *(SearchSpace().sample(np.random.default_rng(seed)) for seed in range(4)),
        LAZY,
        zoo()["SNAS_aggressive"].genotype,
    ],
    ids=["0", "1", "2", "3", "lazy", "snas"],
)
@pytest.mark.parametrize("spec", [NETWORKS["quick"], SMALL_IMAGENET], ids=["quick", "imagenet"])
def test_networks(run: Run, spec: NetworkSpec, genotype: Genotype, seasoned: Season) -> None:
    images = noise(8, spec.input_shape)
    torch.manual_seed(2)
    network = seasoned(Network(spec, genotype), images)
    assert isinstance(network, Network)
    with torch.no_grad():
        expected = network(images[:3])
    # Logits that hardly depend on the image would hide what the first cells do.
    assert float(expected.std(dim=0).max()) > 0.01 * float(expected.abs().max())
    assert_close(run(lower_network(network), images[:3])[0], expected)
