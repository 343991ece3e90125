"""The TFLite files: their operators, what they say of themselves, and that a wrong one is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.errors import ExportError, InputError
from cars_hw.export.card import Figures, ModelCard, Preprocessing, card_path
from cars_hw.export.export import export_model
from cars_hw.export.graph import Graph, Layer
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.parity import PARITY_BOUND, check_parity
from cars_hw.export.tflite import TFLITE
from cars_hw.export.tflite_writer import SIGNATURE, tflite_bytes
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
PREPROCESSING = Preprocessing(mean=(0.3,), std=(0.25,), resolution=(28, 28))
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
