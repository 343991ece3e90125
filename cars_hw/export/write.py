"""A graph, or the network of a genotype, as a model file to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from cars_hw.config.files import replacing
from cars_hw.config.measurement import Precision
from cars_hw.errors import InputError
from cars_hw.nn.fresh_weights import seeded
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from cars_hw.devices import ModelFormat
    from cars_hw.export.graph import Graph

PRECISIONS: Final = get_args(Precision)
NOISE_IMAGES: Final = 2


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


def write_graph(graph: Graph, path: Path, model_format: ModelFormat, precision: Precision = "fp32") -> None:
    """Write ``graph`` for batch 1 to ``path``; int8 is calibrated on images of noise.

    Raises:
        InputError: no model of that format or precision can be written.
        ExportError: it cannot be quantised.
    """
    if model_format not in ("onnx", "tflite") or precision not in PRECISIONS:
        raise InputError(f"{model_format} models of precision {precision} cannot be written in this version")
    if model_format == "tflite":
        from cars_hw.export.tflite_writer import tflite_bytes

        model = tflite_bytes(graph)
    else:
        from cars_hw.export.onnx_writer import onnx_bytes

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
