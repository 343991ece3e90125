"""The ONNX files: what they say of themselves, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from cars_hw.devices.host import ort_runtime
from cars_hw.errors import ExportError
from cars_hw.export.graph import Graph, Layer, Relu
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.onnx_writer import IR_VERSION, OPSET, onnx_bytes
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

onnxruntime = ort_runtime.load()


def test_a_batch_is_1_or_open(tmp_path: Path) -> None:
    graph = lower_network(Network(NETWORKS["quick"], zoo()["SNAS_aggressive"].genotype))
    for dynamic, batch in ((False, 1), (True, "batch")):
        (tmp_path / "net.onnx").write_bytes(ONNX.write(graph, dynamic_batch=dynamic))
        session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
        assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", [batch, 1, 28, 28])]
        assert [(value.name, value.shape) for value in session.get_outputs()] == [("logits", [batch, 10])]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    genotype = zoo()["CARS_A"].genotype
    graph = lower_network(Network(NETWORKS["quick"], genotype))
    (tmp_path / "net.onnx").write_bytes(ONNX.write(graph, metadata={"b": "zwei", "a": "één"}))
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
        (tmp_path / "net.onnx").write_bytes(ONNX.write(Graph((("input", Shape(3, 4, 4)),), (layer,), ("relu",))))
    assert not list(tmp_path.iterdir())


def test_an_unknown_layer_is_named() -> None:
    layer = Layer(output="odd", inputs=("input",), shape=Shape(3, 4, 4))
    with pytest.raises(ExportError, match="odd: Layer cannot be written"):
        onnx_bytes(Graph((("input", Shape(3, 4, 4)),), (layer,), ("odd",)))
