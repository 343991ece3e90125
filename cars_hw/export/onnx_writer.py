"""A graph as an ONNX model of float32.

Written by hand and not by torch: its exporters trace, one of them takes a second an operation and the other is
deprecated, and what they make of a 3x3 average pool changes with the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, checker, defs, helper, numpy_helper

from cars_hw.errors import ExportError
from cars_hw.export.format import NO_METADATA
from cars_hw.export.graph import (
    VECTORS,
    Add,
    AvgPool,
    Concat,
    Conv,
    GlobalAveragePool,
    Graph,
    Identity,
    Layer,
    Linear,
    MaxPool,
    PixelMean,
    Relu,
    Relu6,
    Scale,
    Shift,
    Sigmoid,
    Zeros,
)
from cars_hw.space.shape import Shape
from cars_hw.version import own_version

OPSET: Final = 17
"""Nothing here needs a newer one, and every ONNX Runtime since 1.12 reads it."""

IR_VERSION: Final = 8
"""The file format that came with the opset."""


_PLAIN: Final[dict[type[Layer], str]] = {
    Relu: "Relu",
    Sigmoid: "Sigmoid",
    PixelMean: "GlobalAveragePool",
    Scale: "Mul",
    Add: "Add",
    Identity: "Identity",
}
"""What ONNX calls the layers that are one node without attributes of their own."""

_CLIP: Final = {"min": 0.0, "max": 6.0}


def onnx_bytes(graph: Graph, *, dynamic_batch: bool = False, metadata: Mapping[str, str] = NO_METADATA) -> bytes:
    """Return ``graph`` as an ONNX model: images (N, C, H, W) and vectors (N, C) of float32.

    N is 1, or with ``dynamic_batch`` a dimension called ``batch``. ``metadata`` is stored in the model. The same
    graph and metadata give the same bytes. Every value's shape is stored too, for people with a viewer, and is
    checked against what ONNX infers.

    Raises:
        ExportError: the model does not pass ONNX's own checker.
    """
    batch = "batch" if dynamic_batch else 1
    writer = _Writer(graph)
    for layer in graph.layers:
        writer.write(layer)
    write_out_defaults(writer.nodes)
    infos = {
        layer.output: _info(layer.output, layer.shape, batch, isinstance(layer, VECTORS)) for layer in graph.layers
    }
    body = helper.make_graph(
        writer.nodes,
        "network",
        [_info(name, shape, batch, False) for name, shape in graph.inputs],
        [infos[name] for name in graph.outputs],
        writer.initializers,
        value_info=[info for name, info in infos.items() if name not in graph.outputs],
    )
    model = helper.make_model(
        body,
        producer_name="cars-hw",
        producer_version=own_version(),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(sorted(metadata.items())))
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the model is not valid ONNX, please report this: {error}") from error
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def write_out_defaults(nodes: Iterable[NodeProto]) -> None:
    """Give every node the attributes that it leaves at their defaults, which some readers do not know."""
    for node in nodes:
        written = {attribute.name for attribute in node.attribute}
        defaults = [one.default_value for one in defs.get_schema(node.op_type, OPSET).attributes.values()]
        # The default of an attribute that has none is a value without a name.
        node.attribute.extend(one for one in defaults if one.name and one.name not in written)


def _info(name: str, shape: Shape, batch: str | int, vector: bool) -> ValueInfoProto:
    sizes = [batch, shape.channels] if vector else [batch, *shape]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


class _Writer:
    """The nodes and constants so far. Every node is called by the value that it computes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def node(
        self, kind: str, inputs: Sequence[str], output: str, **attributes: int | list[int] | TensorProto
    ) -> None:
        node = helper.make_node(kind, inputs, [output], output)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def write(self, layer: Layer) -> None:
        """Add the nodes that compute ``layer``."""
        inputs, output = layer.inputs, layer.output
        match layer:
            case Conv():
                self.conv(layer)
            case MaxPool(stride=stride):
                self.node("MaxPool", inputs, output, dilations=[1, 1], **_pooling(stride))
            case AvgPool(stride=stride):
                self.node("AveragePool", inputs, output, **_pooling(stride))
            case Shift():
                self.shift(layer)
            case Relu() | Sigmoid() | PixelMean() | Scale() | Add() | Identity():
                self.node(_PLAIN[type(layer)], inputs, output)
            case Relu6():
                bounds = [self.constant(f"{output}/{name}", np.float32(value)) for name, value in _CLIP.items()]
                self.node("Clip", [*inputs, *bounds], output)
            case Concat():
                self.node("Concat", inputs, output, axis=1)
            case Zeros():
                # The batch may be known at run time only. Where it is 1, runtimes fold this to a constant.
                self.node("Shape", inputs, f"{output}/shape")
                zero = numpy_helper.from_array(np.zeros(1, np.float32))
                self.node("ConstantOfShape", [f"{output}/shape"], output, value=zero)
            case GlobalAveragePool():
                self.node("GlobalAveragePool", inputs, f"{output}/image")
                self.node("Flatten", [f"{output}/image"], output, axis=1)
            case Linear():
                weight = self.constant(f"{output}/weight", layer.weight)
                bias = self.constant(f"{output}/bias", layer.bias)
                self.node("Gemm", [*inputs, weight, bias], output, transB=1)
            case _:
                raise ExportError(f"{output}: {type(layer).__name__} cannot be written to ONNX")

    def conv(self, layer: Conv) -> None:
        """Add a convolution."""
        inputs = [*layer.inputs, self.constant(f"{layer.output}/weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{layer.output}/bias", layer.bias))
        self.node(
            "Conv",
            inputs,
            layer.output,
            kernel_shape=list(layer.weight.shape[2:]),
            strides=[axis.stride for axis in layer.axes],
            pads=[axis.padding for axis in layer.axes] * 2,
            dilations=[layer.dilation] * 2,
            group=layer.groups,
        )

    def shift(self, layer: Shift) -> None:
        """Add a slice that drops row and column 0, of an image that is padded to even sizes first."""
        source, output = layer.inputs[0], layer.output
        _, height, width = self.graph.shape(source)
        if height % 2 or width % 2:
            pads = self.constant(f"{output}/pads", np.array([0] * 6 + [height % 2, width % 2], np.int64))
            self.node("Pad", [source, pads], f"{output}/even")
            source = f"{output}/even"
        window = {"starts": [1, 1], "ends": [height + height % 2, width + width % 2], "axes": [2, 3]}
        bounds = [self.constant(f"{output}/{name}", np.array(value, np.int64)) for name, value in window.items()]
        self.node("Slice", [source, *bounds], output)


def _pooling(stride: int) -> dict[str, list[int]]:
    return {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
