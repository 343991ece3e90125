"""The ONNX files: what they say of themselves, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from genotypes import EVERY_OPERATION

from cars_hw.devices.host import ort_runtime
from cars_hw.errors import ExportError
from cars_hw.export.graph import Graph, Layer, Relu, identity_graph
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.onnx_writer import IR_VERSION, OPSET, onnx_bytes
from cars_hw.nn.layers import FactorizedReduce, Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.operations import make_operation
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.operations import OPERATIONS
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


LEFT_OUT = {("Shape", "end")}
"""Optional attributes that have no value which says the same: the end of the list of sizes."""


@pytest.mark.parametrize("size", [(8, 8), (15, 14), (33, 65)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_attribute_is_written_out(channels: int, size: tuple[int, int]) -> None:
    models = [
        onnx_bytes(lower_module(make_operation(name, 4, stride, Normalization()).eval(), Shape(4, *size)))
        for name in OPERATIONS
        for stride in (1, 2)
        if name != "none"
    ]
    for stem in ("cifar", "imagenet") if min(size) > 14 else ("cifar",):
        spec = NetworkSpec(4, 5, size, channels, classes=3, stem=stem)
        # The second has nodes without any edge, the third has every operation.
        models += [
            onnx_bytes(lower_network(Network(spec, genotype)))
            for genotype in (zoo()["CARS_A"].genotype, zoo()["SNAS_aggressive"].genotype, EVERY_OPERATION)
        ]
    models += [onnx_bytes(identity_graph(Shape(4, *size)))]
    seen = set()
    for node in (node for model in models for node in onnx.load_from_string(model).graph.node):
        known = onnx.defs.get_schema(node.op_type, OPSET).attributes
        written = [attribute.name for attribute in node.attribute]
        assert len(written) == len(set(written))
        assert set(written) == {name for name in known if (node.op_type, name) not in LEFT_OUT}, node.name
        for attribute in node.attribute:
            assert attribute.type == int(known[attribute.name].type)
        seen.add(node.op_type)
    odd = {"Pad"} if size[0] % 2 or size[1] % 2 else set()
    assert seen - {"Pad"} == {
        *("Add", "AveragePool", "Concat", "ConstantOfShape", "Conv", "Flatten", "Gemm", "GlobalAveragePool"),
        *("Identity", "MaxPool", "Relu", "Shape", "Slice"),
    }
    assert odd <= seen


def test_a_pad_says_how_it_pads() -> None:
    # pnnx refuses a Pad without its mode.
    model = onnx.load_from_string(onnx_bytes(lower_module(FactorizedReduce(4, 4, Normalization()), Shape(4, 7, 8))))
    (pad,) = (node for node in model.graph.node if node.op_type == "Pad")
    assert [(one.name, one.s) for one in pad.attribute] == [("mode", b"constant")]
