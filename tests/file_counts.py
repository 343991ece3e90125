"""What a model file has and computes, counted from the file alone: no code of the package is used.

A parameter is an element of a constant that a convolution or a linear layer takes as weight or bias. TFLite wants a
bias of every convolution: one of zeros only is no parameter. Constants of other operators (of pooling, of padding,
of slices) are no parameters. One multiply-add is one product of a weight and a value; padded pixels count.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper, shape_inference


class Counts(NamedTuple):
    """Of a whole file."""

    parameters: int
    multiply_adds: int


ONNX_WITHOUT_WEIGHTS = (
    *("Add", "AveragePool", "Concat", "ConstantOfShape", "Flatten", "GlobalAveragePool", "MaxPool", "Pad"),
    *("Relu", "Shape", "Slice"),
    # Of torch's exporter only.
    *("Clip", "Constant", "ReduceMean", "Reshape"),
)
TFLITE_WITHOUT_WEIGHTS = [
    getattr(schema.BuiltinOperator, name)
    for name in (
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "MAX_POOL_2D",
        "MEAN",
        "MUL",
        "PAD",
        "RELU",
        "STRIDED_SLICE",
    )
]


def count_onnx(path: Path) -> Counts:
    """Count an ONNX file."""
    model = shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True)
    graph = model.graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    values = [*graph.value_info, *graph.output]
    shapes = {one.name: [axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in values}
    parameters, multiply_adds = set(), 0
    for node in graph.node:
        if node.op_type == "Conv":
            _batch, _channels, *pixels = shapes[node.output[0]]
            multiply_adds += weights[node.input[1]].size * math.prod(pixels)
        elif node.op_type == "Gemm":
            multiply_adds += weights[node.input[1]].size
        elif node.op_type in ONNX_WITHOUT_WEIGHTS:
            continue
        else:
            raise ValueError(f"it is not known what {node.op_type} computes")
        parameters.update(node.input[1:])
    return Counts(sum(weights[name].size for name in parameters), multiply_adds)


def count_tflite(path: Path) -> Counts:
    """Count a TFLite file."""
    model: Any = schema.Model.GetRootAs(path.read_bytes())
    assert model.SubgraphsLength() == 1
    graph = model.Subgraphs(0)
    kinds = schema.BuiltinOperator
    parameters: dict[int, int] = {}
    multiply_adds = 0
    for position in range(graph.OperatorsLength()):
        operator = graph.Operators(position)
        kind = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if kind in TFLITE_WITHOUT_WEIGHTS:
            continue
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
            raise ValueError(f"it is not known what operator {kind} computes")
        _input, weight, bias = operator.InputsAsNumpy().tolist()
        # A filter of (out, height, width, in) or (1, height, width, out) is applied at each pixel of the output.
        shape = graph.Tensors(operator.Outputs(0)).ShapeAsNumpy().tolist()
        pixels = 1 if kind == kinds.FULLY_CONNECTED else shape[1] * shape[2]
        elements = {name: _constant(model, graph.Tensors(name)) for name in (weight, bias)}
        multiply_adds += elements[weight].size * pixels
        parameters[weight] = elements[weight].size
        if elements[bias].any():
            parameters[bias] = elements[bias].size
    return Counts(sum(parameters.values()), multiply_adds)


def _constant(model: Any, tensor: Any) -> np.ndarray[Any, np.dtype[np.float32]]:  # noqa: ANN401 -- has no types
    assert tensor.Type() == schema.TensorType.FLOAT32
    found = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.float32)
    assert found.size == math.prod(tensor.ShapeAsNumpy().tolist()) > 0
    return found
