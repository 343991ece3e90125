"""The TFLite files: their operators, what they say of themselves, and that a wrong one is found."""

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
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from genotypes import EMPTY_NODES_FIRST, EVERY_OPERATION, ONE_NODE
from torch import Tensor, nn

from cars_hw.devices.host.litert_runtime import from_quantised, interpreter, to_quantised
from cars_hw.errors import ExportError
from cars_hw.export.card import Figures, ModelCard, Preprocessing, card_path
from cars_hw.export.export import export_model
from cars_hw.export.graph import Concat, Graph, Layer, Relu, Zeros
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.parity import PARITY_BOUND, check_parity
from cars_hw.export.quantize import quantize
from cars_hw.export.tflite import TFLITE
from cars_hw.export.tflite_writer import SIGNATURE, tflite_bytes
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.operations import make_operation
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

Season = Callable[[nn.Module, Tensor], nn.Module]

SMALL_IMAGENET = NetworkSpec(channels=4, layers=3, resolution=(65, 97), classes=7, stem="imagenet")
PREPROCESSING = Preprocessing.of(mean=(0.3,), std=(0.25,), resolution=(28, 28))
NAMES = [f"class {number}" for number in range(10)]


def opened(model: bytes) -> Any:  # noqa: ANN401 -- the schema has no types
    return schema.ModelT.InitFromPackedBuf(model)


def operators(model: bytes) -> list[int]:
    found = opened(model)
    return [found.operatorCodes[operator.opcodeIndex].builtinCode for operator in found.subgraphs[0].operators]


def noise(count: int, shape: Shape, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


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
    model = tflite_bytes(graph, metadata={"b": b"zwei", "a": "één".encode()})
    loaded = interpreter(model, 1)
    assert loaded.get_signature_list() == {SIGNATURE: {"inputs": ["image"], "outputs": ["logits"]}}
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    assert (source["name"], source["shape"].tolist(), source["dtype"]) == ("image", [1, 28, 28, 1], np.float32)
    assert (target["name"], target["shape"].tolist()) == ("logits", [1, 10])
    found = opened(model)
    stored = {entry.name.decode(): bytes(found.buffers[entry.buffer].data).decode() for entry in found.metadata}
    assert stored == {"a": "één", "b": "zwei"}
    assert model == tflite_bytes(graph, metadata={"a": "één".encode(), "b": b"zwei"})
    assert model != tflite_bytes(graph)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    shape = Shape(4, 4, 4)
    odd = Layer(output="odd", inputs=("input",), shape=shape)
    with pytest.raises(ExportError, match="odd: Layer cannot be written"):
        (tmp_path / "net.tflite").write_bytes(TFLITE.write(Graph((("input", shape),), (odd,), ("odd",))))
    grouped = nn.Conv2d(4, 4, 1, groups=2, bias=False)
    norm = nn.BatchNorm2d(4)
    graph = lower_module(nn.Sequential(nn.ReLU(), grouped, norm).eval(), shape)
    with pytest.raises(ExportError, match="in 2 groups"):
        (tmp_path / "net.tflite").write_bytes(TFLITE.write(graph))
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
    path.write_bytes(TFLITE.write(lower_network(network)))
    assert 0 < check_parity(network, path, TFLITE) <= PARITY_BOUND
    good = path.read_bytes()
    for part in ("stem/conv/weight", "cells.0/preprocess_1", "cells.2/node3", "logits/bias"):
        path.write_bytes(tamper(good, part))
        with pytest.raises(ExportError, match=r"off by \d\.\de-0\d, allowed is 1e-05"):
            check_parity(network, path, TFLITE)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x20\0\0\0TFL3" + bytes(64)])
def test_no_model_is_an_export_error(content: bytes | None, tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot run"):
        check_parity(trained(seasoned), path, TFLITE)


def test_export_puts_model_and_card_in_place(tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.tflite"
    card = export_model(
        trained(seasoned),
        path,
        "tflite",
        preprocessing=PREPROCESSING,
        class_names=NAMES,
        figures=Figures(accuracy=0.9),
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.tflite", "net.tflite.json"]
    assert ModelCard.read(card_path(path)) == card
    assert card.preprocessing.layout == "NHWC"
    assert "ai-edge-litert" in card.versions
    found = opened(path.read_bytes())
    stored = {entry.name.decode(): bytes(found.buffers[entry.buffer].data) for entry in found.metadata}
    assert json.loads(stored["class_names"]) == NAMES
    assert Genotype.from_dict(json.loads(stored["genotype"])) == zoo()["CARS_A"].genotype


BATCHED = {
    "every-operation": EVERY_OPERATION,
    "empty-nodes-last": zoo()["SNAS_aggressive"].genotype,
    "empty-nodes-first": EMPTY_NODES_FIRST,
    "one-node": ONE_NODE,
}


def resized(model: bytes, batch: int, delegated: bool, *, strict: bool = False) -> Any:  # noqa: ANN401
    """Return an interpreter for so many images, with XNNPACK or without."""
    kind = OpResolverType.BUILTIN if delegated else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    loaded = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=kind)
    (source,) = loaded.get_input_details()
    loaded.resize_tensor_input(source["index"], [batch, *source["shape"][1:]], strict=strict)
    loaded.allocate_tensors()
    assert (parts_for_xnnpack(loaded) > 0) == delegated
    return loaded


def parts_for_xnnpack(loaded: Any) -> int:  # noqa: ANN401
    """Return into how many parts the operators are split that XNNPACK takes."""
    return sum(operator["op_name"] == "DELEGATE" for operator in loaded._get_ops_details())


def outputs(loaded: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # noqa: ANN401
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    loaded.set_tensor(source["index"], to_quantised(images, source))
    loaded.invoke()
    return from_quantised(loaded.get_tensor(target["index"]), target)


@pytest.mark.parametrize("delegated", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize(
    "spec", [NetworkSpec(4, 5, (16, 15), 1, classes=3), SMALL_IMAGENET], ids=["cifar", "imagenet"]
)
@pytest.mark.parametrize("name", BATCHED)
def test_a_resized_batch_is_its_images_one_by_one(name: str, spec: NetworkSpec, delegated: bool) -> None:
    graph = lower_network(seeded(lambda: Network(spec, BATCHED[name]), name))
    images = noise(7, spec.input_shape).permute(0, 2, 3, 1).numpy()
    model = tflite_bytes(graph)
    one = resized(model, 1, delegated)
    # XNNPACK takes all operators.
    assert parts_for_xnnpack(one) == delegated
    expected = np.concatenate([outputs(one, image[None]) for image in images])
    for batch in (1, 4, 7):
        found = outputs(resized(model, batch, delegated), images[:batch])
        assert found.shape == (batch, spec.classes)
        assert np.abs(found - expected[:batch]).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("delegated", [True, False], ids=["xnnpack", "builtin"])
def test_a_resized_batch_in_int8(delegated: bool) -> None:
    spec = NetworkSpec(4, 3, (16, 15), 3, classes=3)
    graph = lower_network(seeded(lambda: Network(spec, EVERY_OPERATION), "int8"))
    images = noise(4, spec.input_shape).permute(0, 2, 3, 1).numpy()
    for dynamic_batch in (False, True):
        model = quantize(
            tflite_bytes(graph, dynamic_batch=dynamic_batch), TFLITE, [{"image": image[None]} for image in images]
        )
        one = resized(model, 1, delegated)
        expected = np.concatenate([outputs(one, image[None]) for image in images])
        found = outputs(resized(model, 4, delegated, strict=dynamic_batch), images)
        np.testing.assert_array_equal(found, expected)


def test_a_dynamic_batch_is_what_the_file_declares() -> None:
    graph = lower_network(Network(SMALL_IMAGENET, zoo()["SNAS_aggressive"].genotype))
    fixed, free = tflite_bytes(graph), tflite_bytes(graph, dynamic_batch=True)
    assert operators(fixed) == operators(free)
    with pytest.raises(RuntimeError, match="only allows mutating unknown dimensions"):
        resized(fixed, 4, delegated=True, strict=True)
    loaded = resized(free, 4, delegated=True, strict=True)
    signatures = {
        detail["name"]: detail["shape_signature"].tolist()
        for detail in (*loaded.get_input_details(), *loaded.get_output_details())
    }
    assert signatures == {"image": [-1, 65, 97, 3], "logits": [-1, 7]}
    before, after = (
        [(tensor.name, tensor.shape.tolist()) for tensor in opened(model).subgraphs[0].tensors]
        for model in (fixed, free)
    )
    assert before == after


def test_zeros_are_the_padding_of_the_node_beside_them() -> None:
    kinds = schema.BuiltinOperator
    shape = Shape(2, 3, 3)
    relu = Relu(output="relu", inputs=("input",), shape=shape)
    zeros = Zeros(output="zeros", inputs=("relu",), shape=shape)
    images = noise(2, shape)
    for inputs, expected in (
        (("zeros", "zeros", "relu", "input", "zeros"), [kinds.RELU, kinds.PAD, kinds.PAD, kinds.CONCATENATION]),
        (("relu", "zeros", "zeros", "input"), [kinds.RELU, kinds.PAD, kinds.CONCATENATION]),
        (("zeros", "relu", "zeros"), [kinds.RELU, kinds.PAD]),
    ):
        joined = Concat(output="joined", inputs=inputs, shape=shape._replace(channels=2 * len(inputs)))
        model = tflite_bytes(Graph((("input", shape),), (relu, zeros, joined), ("joined",)))
        assert operators(model) == expected
        values = {"input": images, "relu": images.relu(), "zeros": torch.zeros(images.shape)}
        truth = torch.cat([values[name] for name in inputs], dim=1).permute(0, 2, 3, 1).numpy()
        found = outputs(resized(model, 2, delegated=True), images.permute(0, 2, 3, 1).numpy().copy())
        np.testing.assert_array_equal(found, truth)
