"""From keys and genotypes to model files, with weights that make a runtime do its ordinary work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cars_hw.config.measurement import Precision
from cars_hw.export.write import write_graph
from cars_hw.latency.arithmetic import key_block
from cars_hw.latency.keys import OpKey
from cars_hw.nn.fresh_weights import seeded
from cars_hw.space.blocks import StemLayout
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape

if TYPE_CHECKING:
    from torch import nn

    from cars_hw.devices import ModelFormat
    from cars_hw.export.graph import Graph

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


def build_overhead(path: Path, model_format: ModelFormat, precision: Precision = "fp32") -> None:
    """Write the model that does nothing to ``path``.

    Raises:
        InputError: no model of that format can be written.
    """
    from cars_hw.export.graph import identity_graph

    write_graph(identity_graph(OVERHEAD_SHAPE), path, model_format, precision)


def _key_graph(key: OpKey) -> Graph:
    from cars_hw.export.graph import Graph, Relu, Zeros, add_graph, concat_graph, head_graph
    from cars_hw.export.lower import lower_module

    match key.kind:
        case "add":
            return add_graph(key.source)
        case "concat":
            return concat_graph(key.source, key.channels // key.source.channels)
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


def _key_module(key: OpKey) -> nn.Module:  # noqa: PLR0911 -- one for each kind
    from cars_hw.nn.blocks import head_convolution, stem_convolution
    from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUConvBN
    from cars_hw.nn.mobile import MobileBlock
    from cars_hw.nn.network import CifarStem, ImageNetStem, halving_convolution
    from cars_hw.nn.operations import make_operation

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
        case "stem_half":
            return halving_convolution(channels_in, key.channels, norm)
        case "stem_eighth":
            return ImageNetStem(_imagenet(key.channels, (4 * height, 4 * width), 3), norm).eighth
        case "stem_image" | "stem_conv":
            return stem_convolution(StemLayout(key.source, key.channels, key.stride), norm)
        case "head_conv":
            return head_convolution(channels_in, key.channels, norm)
        case _ if (block := key_block(key)) is not None:
            return MobileBlock(block, channels_in, norm=norm)
        case _:
            return make_operation(key.kind, key.channels, key.stride, norm)


def _imagenet(channels: int, resolution: tuple[int, int], in_channels: int) -> NetworkSpec:
    return NetworkSpec(channels, 3, resolution, in_channels, stem="imagenet")
