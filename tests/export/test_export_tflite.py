"""The TFLite files: LiteRT computes with them what torch computes with the modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from cars_hw.devices.litert_runtime import interpreter
from cars_hw.errors import ExportError, InputError
from cars_hw.export.card import ModelCard, Preprocessing, card_path
from cars_hw.export.export import export_model
from cars_hw.export.graph import Graph, Layer, Zeros, add_graph, concat_graph, head_graph, identity_graph
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.parity import PARITY_BOUND, check_tflite
from cars_hw.export.tflite import SIGNATURE, tflite_bytes, write_tflite
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
PREPROCESSING = Preprocessing(mean=(0.3,), std=(0.25,), resolution=(28, 28))
NAMES = [f"class {number}" for number in range(10)]


def run(graph: Graph, *inputs: Tensor) -> list[Array]:
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


def opened(model: bytes) -> Any:  # noqa: ANN401 -- the schema has no types
    return schema.ModelT.InitFromPackedBuf(model)


def operators(model: bytes) -> list[int]:
    found = opened(model)
    return [found.operatorCodes[operator.opcodeIndex].builtinCode for operator in found.subgraphs[0].operators]


def noise(count: int, shape: Shape, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Array, expected: Tensor) -> None:
    assert actual.shape == tuple(expected.shape)
    assert np.abs(actual - expected.numpy()).max() <= CLOSE * float(expected.abs().max())


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 5), (5, 8), (1, 1), (2, 2)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
def test_operations(name: str, stride: int, size: tuple[int, int], seasoned: Season) -> None:
    shape = Shape(6, *size)
    images = noise(4, shape)
    module = seasoned(make_operation(name, 6, stride, Normalization()), images)
    with torch.no_grad():
        expected = module(images)
    assert_close(run(lower_module(module, shape), images)[0], expected)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (7, 8)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_padding_never_wins_in_a_pool(name: str, stride: int, size: tuple[int, int]) -> None:
    images = noise(2, Shape(3, *size)) - 10
    module = make_operation(name, 3, stride, Normalization())
    assert_close(run(lower_module(module, Shape(3, *size)), images)[0], module(images))


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
def test_networks(spec: NetworkSpec, genotype: Genotype, seasoned: Season) -> None:
    images = noise(8, spec.input_shape)
    torch.manual_seed(2)
    network = seasoned(Network(spec, genotype), images)
    assert isinstance(network, Network)
    with torch.no_grad():
        expected = network(images[:3])
    assert_close(run(lower_network(network), images[:3])[0], expected)


def test_no_operator_is_a_transpose_or_custom() -> None:
    for seed in range(5):
        genotype = SearchSpace().sample(np.random.default_rng(seed))
        for spec in (NETWORKS["quick"], SMALL_IMAGENET):
            found = set(operators(tflite_bytes(lower_network(Network(spec, genotype)))))
            assert not found & {schema.BuiltinOperator.TRANSPOSE, schema.BuiltinOperator.CUSTOM}


def test_a_relu_that_nobody_else_waits_for_is_part_of_its_convolution() -> None:
    separable = make_operation("sep_conv_3x3", 4, 1, Normalization()).eval()
    # The first ReLU is of the input; the one between the two halves is fused.
    depthwise, pointwise = schema.BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOperator.CONV_2D
    expected = [schema.BuiltinOperator.RELU, depthwise, pointwise, depthwise, pointwise]
    assert operators(tflite_bytes(lower_module(separable, Shape(4, 6, 6)))) == expected


def test_the_file_says_what_it_is() -> None:
    graph = lower_network(Network(NETWORKS["quick"], zoo()["CARS_A"].genotype))
    model = tflite_bytes(graph, metadata={"b": "zwei", "a": "één"})
    loaded = interpreter(model, 1)
    assert loaded.get_signature_list() == {SIGNATURE: {"inputs": ["image"], "outputs": ["logits"]}}
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    assert (source["name"], source["shape"].tolist(), source["dtype"]) == ("image", [1, 28, 28, 1], np.float32)
    assert (target["name"], target["shape"].tolist()) == ("logits", [1, 10])
    found = opened(model)
    stored = {entry.name.decode(): bytes(found.buffers[entry.buffer].data).decode() for entry in found.metadata}
    assert stored == {"a": "één", "b": "zwei"}
    assert model == tflite_bytes(graph, metadata={"a": "één", "b": "zwei"})
    assert model != tflite_bytes(graph)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    shape = Shape(4, 4, 4)
    odd = Layer(output="odd", inputs=("input",), shape=shape)
    with pytest.raises(ExportError, match="odd: Layer cannot be written"):
        write_tflite(Graph((("input", shape),), (odd,), ("odd",)), tmp_path / "net.tflite")
    grouped = nn.Conv2d(4, 4, 1, groups=2, bias=False)
    norm = nn.BatchNorm2d(4)
    graph = lower_module(nn.Sequential(nn.ReLU(), grouped, norm).eval(), shape)
    with pytest.raises(ExportError, match="in 2 groups"):
        write_tflite(graph, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def trained(seasoned: Season) -> Network:
    torch.manual_seed(0)
    network = seasoned(Network(NETWORKS["quick"], zoo()["CARS_A"].genotype), noise(8, Shape(1, 28, 28)))
    assert isinstance(network, Network)
    return network


def tamper(model: bytes, part: str) -> bytes:
    """Return the model with one number changed by a hundredth of the largest, in the constant ``part``."""
    found = opened(model)
    tensor = next(tensor for tensor in found.subgraphs[0].tensors if part in tensor.name.decode() and tensor.buffer)
    buffer = found.buffers[tensor.buffer]
    values = np.frombuffer(bytes(buffer.data), np.float32).copy()
    values[0] += 1e-2 * np.abs(values).max()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(found.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_faithful_model_passes_and_one_changed_weight_is_found(tmp_path: Path, seasoned: Season) -> None:
    network, path = trained(seasoned), tmp_path / "net.tflite"
    write_tflite(lower_network(network), path)
    assert 0 < check_tflite(network, path) <= PARITY_BOUND
    good = path.read_bytes()
    for part in ("stem/conv/weight", "cells.0/preprocess_1", "cells.2/node3", "logits/bias"):
        path.write_bytes(tamper(good, part))
        with pytest.raises(ExportError, match=r"off by \d\.\de-0\d, allowed is 1e-05"):
            check_tflite(network, path)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x20\0\0\0TFL3" + bytes(64)])
def test_no_model_is_an_export_error(content: bytes | None, tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot run"):
        check_tflite(trained(seasoned), path)


def test_export_puts_model_and_card_in_place(tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.tflite"
    card = export_model(
        trained(seasoned), path, "tflite", preprocessing=PREPROCESSING, class_names=NAMES, accuracy=0.9
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.tflite", "net.tflite.json"]
    assert ModelCard.read(card_path(path)) == card
    assert card.preprocessing.layout == "NHWC"
    assert "ai-edge-litert" in card.versions
    found = opened(path.read_bytes())
    stored = {entry.name.decode(): bytes(found.buffers[entry.buffer].data).decode() for entry in found.metadata}
    assert json.loads(stored["class_names"]) == NAMES
    assert Genotype.from_dict(json.loads(stored["genotype"])) == zoo()["CARS_A"].genotype


def test_only_onnx_has_a_dynamic_batch(tmp_path: Path, seasoned: Season) -> None:
    with pytest.raises(InputError, match="one image at a time"):
        export_model(
            trained(seasoned),
            tmp_path / "net.tflite",
            "tflite",
            preprocessing=PREPROCESSING,
            class_names=NAMES,
            dynamic_batch=True,
        )
    assert not list(tmp_path.iterdir())
