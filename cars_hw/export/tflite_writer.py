"""A graph as a TFLite model of float32: images (N, H, W, C), no transposes, no custom operators.

Written by hand over the schema that LiteRT ships. Converters from torch take half a minute a network, and make of
an average pool something that runs twenty times longer than the pool; a latency table of their files is wrong.

TFLite pads a strided window at the end of an image, torch all around. Where the two differ, at stride 2 and even
sizes, the padding is an operator of its own.

Tensors are declared with N = 1, but no operator has this number: a model computes any number of images once its
input is resized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from cars_hw.errors import ExportError
from cars_hw.export.graph import (
    VECTORS,
    Add,
    AvgPool,
    Axis,
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

SIGNATURE: Final = "serving_default"
"""What TensorFlow calls a model's only signature; quantisers and callers look for it."""

FORMAT_VERSION: Final = 3
FILE_IDENTIFIER: Final = b"TFL3"

ALIGNMENT: Final = 16
"""Of constants, in bytes."""

_OPERATORS: Final = schema.BuiltinOperator
_NO_ACTIVATION: Final = schema.ActivationFunctionType.NONE
_RELU: Final = schema.ActivationFunctionType.RELU
_ELEMENTWISE: Final[dict[type[Layer], int]] = {
    Relu: _OPERATORS.RELU,
    Relu6: _OPERATORS.RELU6,
    Sigmoid: _OPERATORS.LOGISTIC,
}
_RELU6: Final = schema.ActivationFunctionType.RELU6


def tflite_bytes(
    graph: Graph, *, dynamic_batch: bool = False, metadata: Mapping[str, bytes] | None = None
) -> bytes:
    """Return ``graph`` as a TFLite model: images (1, H, W, C) and vectors (1, C) of float32.

    Inputs and outputs have the graph's names, in the signature :data:`SIGNATURE` too. ``metadata`` is stored in the
    model. The same graph and metadata give the same bytes. With ``dynamic_batch`` the tensors also say that their
    first size is open; the operators are the same.

    Raises:
        ExportError: the graph holds a layer that TFLite has no operator for.
    """
    writer = Writer(graph, dynamic_batch)
    for layer in graph.layers:
        writer.write(layer)
    return packed(writer.model(metadata or {}))


def with_outputs(model: bytes, wanted: Callable[[str], bool]) -> bytes:
    """Return ``model`` with the values whose names are ``wanted`` among its outputs.

    Raises:
        ValueError: the bytes are no TFLite model.
    """
    if model[4:8] != FILE_IDENTIFIER:
        raise ValueError("not a TFLite model")
    opened = schema.ModelT.InitFromPackedBuf(model)
    subgraph = opened.subgraphs[0]
    # The signature would hide outputs that it does not name.
    opened.signatureDefs = []
    more = [number for number, tensor in enumerate(subgraph.tensors) if wanted(tensor.name.decode())]
    subgraph.outputs = np.array([*subgraph.outputs, *more], np.int32)
    return packed(opened)


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Aligns the content of buffers to 16 bytes, as the schema demands and its Python code forgets."""

    def CreateNumpyVector(self, x: npt.NDArray[Any]) -> int:
        """Add ``x``; only the content of buffers is bytes."""
        if x.dtype != np.uint8:
            return int(super().CreateNumpyVector(x))
        self.StartVector(1, x.size, ALIGNMENT)
        self.head -= x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        self.vectorNumElems = x.size
        return int(self.EndVector())


def packed(model: Any) -> bytes:  # noqa: ANN401 -- the schema has no types
    """Return the file of ``model``."""
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class Writer:
    """A model that is written layer by layer.

    It has the tensors, constants and operators so far; a value of the graph is the tensor of its name.
    """

    def __init__(self, graph: Graph, dynamic_batch: bool) -> None:
        self.graph = graph
        self.dynamic_batch = dynamic_batch
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}
        self.index: dict[str, int] = {}
        # A ReLU that alone reads what a convolution or a sum makes is that operator's own activation.
        readers: dict[str, int] = {}
        for name in (*graph.outputs, *(source for layer in graph.layers for source in layer.inputs)):
            readers[name] = readers.get(name, 0) + 1
        makers = {layer.output: layer for layer in graph.layers}
        self.activated = {
            layer.inputs[0]: layer.output
            for layer in graph.layers
            if isinstance(layer, Relu | Relu6)
            and readers[layer.inputs[0]] == 1
            and isinstance(makers.get(layer.inputs[0]), Conv | Add)
        }
        self.clipped = {layer.inputs[0] for layer in graph.layers if isinstance(layer, Relu6)}
        # Zeros that are only ever joined with other channels are padding of these: a constant has one batch size.
        others = {source for layer in graph.layers if not isinstance(layer, Concat) for source in layer.inputs}
        self.padding = {
            layer.output
            for layer in graph.layers
            if isinstance(layer, Zeros) and layer.output not in others.union(graph.outputs)
        }
        for name, (channels, height, width) in graph.inputs:
            self.tensor(name, (1, height, width, channels))

    def tensor(self, name: str, shape: Sequence[int], value: npt.NDArray[Any] | None = None) -> int:
        """Add a tensor, a constant if it has a ``value``, and return its number."""
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = schema.TensorType.FLOAT32
        tensor.buffer = 0
        if value is not None:
            if value.dtype == np.int32:
                tensor.type = schema.TensorType.INT32
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        elif self.dynamic_batch:
            tensor.shapeSignature = np.array([-1, *shape[1:]], np.int32)
        self.tensors.append(tensor)
        number = len(self.tensors) - 1
        self.index[name] = number
        return number

    def constant(self, name: str, value: npt.NDArray[Any]) -> int:
        """Add a constant and return its number."""
        return self.tensor(name, value.shape, value)

    def operator(
        self,
        kind: int,
        inputs: Sequence[int],
        output: str,
        shape: Sequence[int],
        options: tuple[int, Any],
        *,
        version: int = 1,
    ) -> int:
        """Add the operator that computes ``output`` and return the number of its tensor."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault((kind, version), len(self.codes))
        operator.inputs = np.array(inputs, np.int32)
        number = self.tensor(output, shape)
        operator.outputs = np.array([number], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = options
        self.operators.append(operator)
        return number

    def write(self, layer: Layer) -> None:  # noqa: PLR0912 -- a case for each kind of layer
        """Add the operators that compute ``layer``."""
        output = layer.output
        inputs = [self.index[name] for name in layer.inputs if name not in self.padding]
        channels, height, width = layer.shape
        shape = (1, channels) if isinstance(layer, VECTORS) else (1, height, width, channels)
        match layer:
            case Conv():
                self.conv(layer, shape)
            case MaxPool() | AvgPool():
                self.pool(layer, shape)
            case Shift():
                self.shift(layer, shape)
            case Relu() | Relu6() | Sigmoid():
                if self.activated.get(layer.inputs[0]) == output:
                    self.index[output] = inputs[0]
                    return
                self.operator(_ELEMENTWISE[type(layer)], inputs, output, shape, _options("NONE"))
            case Scale():
                options = _options("MulOptions", fusedActivationFunction=_NO_ACTIVATION)
                self.operator(_OPERATORS.MUL, inputs, output, shape, options)
            case Add():
                options = _options("AddOptions", fusedActivationFunction=self.activation(output))
                self.operator(_OPERATORS.ADD, inputs, output, shape, options)
            case Concat():
                self.concat(layer, shape)
            case Zeros():
                self.zeros(layer, shape)
            case Identity():
                any_batch = np.array([-1, *shape[1:]], np.int32)
                sizes = self.constant(f"{output}/shape", any_batch)
                options = _options("ReshapeOptions", newShape=any_batch)
                self.operator(_OPERATORS.RESHAPE, [*inputs, sizes], output, shape, options)
            case GlobalAveragePool() | PixelMean():
                axes = self.constant(f"{output}/axes", np.array([1, 2], np.int32))
                options = _options("ReducerOptions", keepDims=isinstance(layer, PixelMean))
                self.operator(_OPERATORS.MEAN, [*inputs, axes], output, shape, options)
            case Linear():
                weight = self.constant(f"{output}/weight", layer.weight)
                bias = self.constant(f"{output}/bias", layer.bias)
                options = _options("FullyConnectedOptions", fusedActivationFunction=_NO_ACTIVATION)
                self.operator(_OPERATORS.FULLY_CONNECTED, [*inputs, weight, bias], output, shape, options)
            case _:
                raise ExportError(f"{output}: {type(layer).__name__} cannot be written to TFLite")

    def activation(self, output: str) -> int:
        """Return the activation of the operator that computes ``output``."""
        if output not in self.activated:
            return int(_NO_ACTIVATION)
        return int(_RELU6 if output in self.clipped else _RELU)

    def conv(self, layer: Conv, shape: Sequence[int]) -> None:
        """Add a convolution, or a depthwise one."""
        source, output = layer.inputs[0], layer.output
        channels = self.graph.shape(source).channels
        inputs, padding = self.padded(source, output, layer.axes)
        depthwise = layer.groups == channels == layer.weight.shape[0] > 1
        if not depthwise and layer.groups != 1:
            raise ExportError(f"{output}: a convolution in {layer.groups} groups cannot be written to TFLite")
        # Torch has (out, in, height, width): TFLite wants the channels last, and a depthwise filter as an image.
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        weight = self.constant(f"{output}/weight", layer.weight.transpose(order))
        bias = layer.bias if layer.bias is not None else np.zeros(layer.weight.shape[0], np.float32)
        common = {
            "padding": padding,
            "strideH": layer.axes[0].stride,
            "strideW": layer.axes[1].stride,
            "dilationHFactor": layer.dilation,
            "dilationWFactor": layer.dilation,
            "fusedActivationFunction": self.activation(output),
        }
        options = (
            _options("DepthwiseConv2DOptions", depthMultiplier=1, **common)
            if depthwise
            else _options("Conv2DOptions", **common)
        )
        kind = _OPERATORS.DEPTHWISE_CONV_2D if depthwise else _OPERATORS.CONV_2D
        # A depthwise convolution that is dilated came with the operator's second version.
        version = 2 if depthwise and layer.dilation > 1 else 1
        operands = [inputs, weight, self.constant(f"{output}/bias", bias)]
        self.operator(kind, operands, output, shape, options, version=version)

    def pool(self, layer: MaxPool | AvgPool, shape: Sequence[int]) -> None:
        """Add a 3x3 pool whose padding never wins and does not count."""
        source, output, stride = layer.inputs[0], layer.output, layer.stride
        average = isinstance(layer, AvgPool)
        kind = _OPERATORS.AVERAGE_POOL_2D if average else _OPERATORS.MAX_POOL_2D
        inputs, padding = (
            self.padded(source, output, (Axis(3, stride, 1), Axis(3, stride, 1)))
            if average
            else self.extended(source, output, stride)
        )
        options = _options(
            "Pool2DOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
            filterHeight=3,
            filterWidth=3,
            fusedActivationFunction=_NO_ACTIVATION,
        )
        if not average or padding == schema.Padding.SAME:
            self.operator(kind, [inputs], output, shape, options)
            return
        # The padded zeros have been counted: make up for them where a window has some.
        pooled = self.operator(kind, [inputs], f"{output}/counted", shape, options)
        _, height, width = self.graph.shape(source)
        counts = np.outer(*(_window_sizes(size, stride) for size in (height, width))).astype(np.float32)
        weights = self.constant(f"{output}/weights", (9 / counts)[None, :, :, None])
        options = _options("MulOptions", fusedActivationFunction=_NO_ACTIVATION)
        self.operator(_OPERATORS.MUL, [pooled, weights], output, shape, options)

    def padded(self, source: str, output: str, axes: tuple[Axis, Axis]) -> tuple[int, int]:
        """Return the tensor to slide a window over, and how TFLite is to pad it with zeros."""
        channels, height, width = self.graph.shape(source)
        rows, columns = (axis.padding for axis in axes)
        if rows == columns == 0:
            return self.index[source], schema.Padding.VALID
        if all(
            2 * axis.padding == axis.window - 1 and _pads_evenly(size, axis.window, axis.stride)
            for size, axis in zip((height, width), axes, strict=True)
        ):
            return self.index[source], schema.Padding.SAME
        pads = np.array([[0, 0], [rows] * 2, [columns] * 2, [0, 0]], np.int32)
        operands = [self.index[source], self.constant(f"{output}/pads", pads)]
        shape = (1, height + 2 * rows, width + 2 * columns, channels)
        padded = self.operator(_OPERATORS.PAD, operands, f"{output}/padded", shape, _options("PadOptions"))
        return padded, schema.Padding.VALID

    def extended(self, source: str, output: str, stride: int) -> tuple[int, int]:
        """Return the tensor to slide a maximum's 3x3 window over, and how TFLite is to pad it.

        Where it has to start a pixel early, the image's edges come twice: their copies never win alone. Padding
        with minus infinity would do the same, but XNNPACK has no such operator, and int8 has no such number.
        """
        channels, height, width = self.graph.shape(source)
        if all(_pads_evenly(size, 3, stride) for size in (height, width)):
            return self.index[source], schema.Padding.SAME
        image, sizes = self.index[source], [1, height, width, channels]
        for axis, name in ((1, "row"), (2, "column")):
            # Of an even size, the last window ends with the image.
            ends = {"first": 0, "last": sizes[axis] - 1} if sizes[axis] % 2 else {"first": 0}
            edge = [1 if other == axis else size for other, size in enumerate(sizes)]
            copies = [
                self.sliced(
                    image, f"{output}/{end}_{name}", [at if other == axis else 0 for other in range(4)], edge
                )
                for end, at in ends.items()
            ]
            sizes[axis] += len(copies)
            image = self.joined([copies[0], image, *copies[1:]], axis, f"{output}/{name}s", sizes)
        return image, schema.Padding.VALID

    def sliced(self, image: int, output: str, begin: Sequence[int], size: Sequence[int]) -> int:
        """Add a part of ``image``: of every image of a batch, which the masks say."""
        ends = [first + count for first, count in zip(begin, size, strict=True)]
        bounds = [
            self.constant(f"{output}/{name}", np.array(value, np.int32))
            for name, value in (("begin", begin), ("end", ends), ("strides", [1] * 4))
        ]
        options = _options("StridedSliceOptions", beginMask=1, endMask=1)
        return self.operator(_OPERATORS.STRIDED_SLICE, [image, *bounds], output, size, options)

    def shift(self, layer: Layer, shape: Sequence[int]) -> None:
        """Add a slice that drops row and column 0, of an image that is padded to even sizes first."""
        source, output = layer.inputs[0], layer.output
        channels, height, width = self.graph.shape(source)
        image = self.index[source]
        if height % 2 or width % 2:
            pads = self.constant(
                f"{output}/pads", np.array([[0, 0], [0, height % 2], [0, width % 2], [0, 0]], np.int32)
            )
            even = (1, height + height % 2, width + width % 2, channels)
            image = self.operator(_OPERATORS.PAD, [image, pads], f"{output}/even", even, _options("PadOptions"))
        self.sliced(image, output, [0, 1, 1, 0], shape)

    def joined(self, parts: Sequence[int], axis: int, output: str, shape: Sequence[int]) -> int:
        """Add the tensors ``parts`` one after the other."""
        options = _options("ConcatenationOptions", axis=axis, fusedActivationFunction=_NO_ACTIVATION)
        return self.operator(_OPERATORS.CONCATENATION, parts, output, shape, options)

    def concat(self, layer: Concat, shape: Sequence[int]) -> None:
        """Add a concatenation of channels. Zeros among them pad the input before them, or else the first one."""
        parts: list[str] = []
        pads: list[list[int]] = []
        leading = 0
        for name in layer.inputs:
            channels = self.graph.shape(name).channels
            if name not in self.padding:
                parts.append(name)
                pads.append([leading if len(parts) == 1 else 0, 0])
            elif parts:
                pads[-1][1] += channels
            else:
                leading += channels
        if not parts:
            raise ExportError(f"{layer.output}: zeros alone cannot be joined in TFLite")
        if len(parts) == 1:
            self.beside_zeros(parts[0], pads[0], layer.output)
            return
        padded = [
            self.beside_zeros(name, pad, f"{layer.output}/part{number}")
            for number, (name, pad) in enumerate(zip(parts, pads, strict=True))
        ]
        self.joined(padded, 3, layer.output, shape)

    def beside_zeros(self, source: str, pad: Sequence[int], output: str) -> int:
        """Return the tensor of ``source`` with so many channels of zeros before and behind it."""
        if not any(pad):
            return self.index[source]
        channels, height, width = self.graph.shape(source)
        pads = self.constant(f"{output}/pads", np.array([[0, 0], [0, 0], [0, 0], pad], np.int32))
        shape = (1, height, width, channels + sum(pad))
        return self.operator(_OPERATORS.PAD, [self.index[source], pads], output, shape, _options("PadOptions"))

    def zeros(self, layer: Layer, shape: Sequence[int]) -> None:
        """Add zeros, but those that become padding."""
        output = layer.output
        if output in self.padding:
            return
        nothing = self.constant(f"{output}/nothing", np.zeros((1,), np.float32))
        options = _options("MulOptions", fusedActivationFunction=_NO_ACTIVATION)
        self.operator(_OPERATORS.MUL, [self.index[layer.inputs[0]], nothing], output, shape, options)

    def model(self, metadata: Mapping[str, bytes]) -> Any:  # noqa: ANN401 -- the schema has no types
        """Return the model that has been written."""
        subgraph = schema.SubGraphT()
        subgraph.name = b"network"
        subgraph.tensors = self.tensors
        subgraph.operators = self.operators
        inputs = [name for name, _ in self.graph.inputs]
        subgraph.inputs = np.array([self.index[name] for name in inputs], np.int32)
        subgraph.outputs = np.array([self.index[name] for name in self.graph.outputs], np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE.encode()
        signature.subgraphIndex = 0
        signature.inputs = [self.named(name) for name in inputs]
        signature.outputs = [self.named(name) for name in self.graph.outputs]
        model = schema.ModelT()
        model.version = FORMAT_VERSION
        model.description = b"cars-hw"
        model.subgraphs = [subgraph]
        model.signatureDefs = [signature]
        model.operatorCodes = [_code(kind, version) for kind, version in self.codes]
        model.metadata = [self.stored(name, data) for name, data in sorted(metadata.items())]
        model.buffers = self.buffers
        return model

    def named(self, name: str) -> Any:  # noqa: ANN401 -- the schema has no types
        """Return the entry of the value ``name`` in the signature."""
        found = schema.TensorMapT()
        found.name = name.encode()
        found.tensorIndex = self.index[name]
        return found

    def stored(self, name: str, data: bytes) -> Any:  # noqa: ANN401 -- the schema has no types
        """Return the entry ``name`` of the metadata, whose content becomes a buffer."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        entry = schema.MetadataT()
        entry.name = name.encode()
        entry.buffer = len(self.buffers)
        self.buffers.append(buffer)
        return entry


def _options(name: str, **fields: Any) -> tuple[int, Any]:  # noqa: ANN401 -- the schema has no types
    """Return the kind and the value of an operator's options."""
    if name == "NONE":
        return schema.BuiltinOptions.NONE, None
    options = getattr(schema, f"{name}T")()
    for field, value in fields.items():
        setattr(options, field, value)
    return getattr(schema.BuiltinOptions, name), options


def _code(kind: int, version: int) -> Any:  # noqa: ANN401 -- the schema has no types
    code = schema.OperatorCodeT()
    code.builtinCode = kind
    # Readers from before there were more than 127 operators look here.
    code.deprecatedBuiltinCode = min(kind, 127)
    code.version = version
    return code


def _pads_evenly(size: int, window: int, stride: int) -> bool:
    """Return whether TFLite's own padding of ``size`` pixels is the same on both sides and all that torch pads."""
    steps = -(-size // stride)
    return (steps - 1) * stride + window - size == window - 1


def _window_sizes(size: int, stride: int) -> npt.NDArray[np.int_]:
    """Return how many of ``size`` pixels each window of three covers, one pixel being padded on both sides."""
    starts = np.arange(-1, size - 1, stride)
    sizes: npt.NDArray[np.int_] = np.minimum(starts + 3, size) - np.maximum(starts, 0)
    return sizes
