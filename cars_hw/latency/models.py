"""From keys and genotypes to model files, with weights that make a runtime do its ordinary work."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, get_args

import numpy as np

from cars_hw.config.files import replacing
from cars_hw.config.measurement import Precision
from cars_hw.errors import InputError
from cars_hw.latency.keys import OpKey
from cars_hw.space.genotype import NODES, Genotype
from cars_hw.space.network_spec import NetworkSpec, Shape

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from cars_hw.devices import ModelFormat
    from cars_hw.export.graph import Graph

Module = TypeVar("Module", bound="nn.Module")

PRECISIONS: Final = get_args(Precision)
NOISE_IMAGES: Final = 2

_SEEDING: Final = threading.Lock()
"""Several devices are profiled in threads, and torch's generator is one for all of them."""

OVERHEAD_SHAPE = Shape(1, 1, 1)
"""The identity on it is what it takes to run nothing."""


def build_model(key: OpKey, path: Path, model_format: ModelFormat, precision: Precision = "fp32") -> None:
    """Write the model that runs ``key`` and nothing else to ``path``; the same key gives the same file.

    In a network a runtime fuses across operations; that is alike from network to network and left to the
    predictor's correction.

    Raises:
        InputError: no model of that format can be written.
    """
    write_graph(_key_graph(key), path, model_format, precision)


def build_network(
    spec: NetworkSpec, genotype: Genotype, path: Path, model_format: ModelFormat, precision: Precision = "fp32"
) -> None:
    """Write the network of ``genotype`` under ``spec``, with fresh weights, to ``path``; always the same file.

    Raises:
        InputError: no model of that format can be written.
    """
    from cars_hw.export.lower import lower_network
    from cars_hw.nn.network import Network

    network = seeded(lambda: Network(spec, genotype), repr(genotype))
    write_graph(lower_network(network), path, model_format, precision)


def build_overhead(path: Path, model_format: ModelFormat, precision: Precision = "fp32") -> None:
    """Write the model that does nothing to ``path``.

    Raises:
        InputError: no model of that format can be written.
    """
    from cars_hw.export.graph import identity_graph

    write_graph(identity_graph(OVERHEAD_SHAPE), path, model_format, precision)


def write_graph(graph: Graph, path: Path, model_format: ModelFormat, precision: Precision = "fp32") -> None:
    """Write ``graph`` for batch 1 to ``path``; int8 is calibrated on images of noise.

    Raises:
        InputError: no model of that format or precision can be written.
        ExportError: it cannot be quantised.
    """
    if model_format not in ("onnx", "tflite") or precision not in PRECISIONS:
        raise InputError(f"{model_format} models of precision {precision} cannot be written in this version")
    if model_format == "tflite":
        from cars_hw.export.tflite import tflite_bytes

        model = tflite_bytes(graph)
    else:
        from cars_hw.export.onnx import onnx_bytes

        model = onnx_bytes(graph)
    if precision == "int8":
        from cars_hw.export.quantize import quantize

        model = quantize(model, model_format, _noise(graph, model_format))
    with replacing(path) as temporary:
        temporary.write_bytes(model)


def _noise(graph: Graph, model_format: ModelFormat) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Return a few inputs of noise, laid out as the format wants them."""
    rng = np.random.default_rng(0)
    feeds = []
    for _ in range(NOISE_IMAGES):
        feed = {}
        for name, (channels, height, width) in graph.inputs:
            shape = (1, channels, height, width) if model_format == "onnx" else (1, height, width, channels)
            feed[name] = rng.standard_normal(shape, np.float32)
        feeds.append(feed)
    return feeds


def _key_graph(key: OpKey) -> Graph:
    from cars_hw.export.graph import Graph, Relu, Zeros, add_graph, concat_graph, head_graph
    from cars_hw.export.lower import lower_module

    match key.kind:
        case "add":
            return add_graph(key.source)
        case "concat":
            return concat_graph(key.source, NODES)
        case "relu":
            relu = Relu(output="relu", inputs=("input",), shape=key.source)
            return Graph((("input", key.source),), (relu,), ("relu",))
        case "zeros":
            layer = Zeros(output="zeros", inputs=("input",), shape=key.source)
            return Graph((("input", key.source),), (layer,), ("zeros",))
        case "head":
            return head_graph(key.source, key.channels)
        case _:
            return _without_first_relu(lower_module(seeded(lambda: _key_module(key), str(key)), key.source))


def _without_first_relu(graph: Graph) -> Graph:
    """Return ``graph`` with its input in the place of its input's ReLU."""
    from cars_hw.export.graph import Graph, Relu

    (image, _), *_ = graph.inputs
    relus = {layer.output for layer in graph.layers if isinstance(layer, Relu) and layer.inputs == (image,)}
    layers = [
        replace(layer, inputs=tuple(image if name in relus else name for name in layer.inputs))
        for layer in graph.layers
        if layer.output not in relus
    ]
    return Graph(graph.inputs, tuple(layers), graph.outputs)


def _key_module(key: OpKey) -> nn.Module:
    from cars_hw.nn.network import CifarStem, ImageNetStem
    from cars_hw.nn.operations import FactorizedReduce, Normalization, ReLUConvBN, make_operation

    norm = Normalization()
    channels_in, height, width = key.source
    match key.kind:
        case "relu_conv_bn":
            return ReLUConvBN(channels_in, key.channels, norm)
        case "factorized_reduce":
            return FactorizedReduce(channels_in, key.channels, norm)
        case "stem_cifar":
            return CifarStem(NetworkSpec(key.channels // 3, 3, (height, width), channels_in), norm)
        case "stem_quarter":
            return ImageNetStem(_imagenet(key.channels, (height, width), channels_in), norm).quarter
        case "stem_eighth":
            return ImageNetStem(_imagenet(key.channels, (4 * height, 4 * width), 3), norm).eighth
        case _:
            return make_operation(key.kind, key.channels, key.stride, norm)


def _imagenet(channels: int, resolution: tuple[int, int], in_channels: int) -> NetworkSpec:
    return NetworkSpec(channels, 3, resolution, in_channels, stem="imagenet")


def seeded(make: Callable[[], Module], name: str) -> Module:
    """Return what ``make`` makes, in eval mode, with weights that follow from ``name`` alone.

    A fresh network's signal shrinks at every convolution, and after twenty cells its numbers are so small that
    a processor computes them a hundred times slower. Shifts in the normalisations keep it at the size that
    it has in a trained network.
    """
    import torch
    from torch import nn

    with _SEEDING, torch.random.fork_rng(devices=()):
        torch.manual_seed(zlib.crc32(name.encode()))
        module = make().eval()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0.0, 0.5)
    return module
