"""A graph, or the network of a genotype, as a model file to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cars_hw.config.files import replacing
from cars_hw.config.measurement import Precision
from cars_hw.export.formats import export_format
from cars_hw.nn.fresh_weights import seeded
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

if TYPE_CHECKING:
    from cars_hw.export.format import ExportFormat, Feeds
    from cars_hw.export.graph import Graph

NOISE_IMAGES: Final = 2


def build_network(
    spec: NetworkSpec, genotype: Genotype, path: Path, model_format: str, precision: Precision = "fp32"
) -> None:
    """Write the network of ``genotype`` under ``spec``, with fresh weights, to ``path``; always the same file.

    Raises:
        InputError: no model of that format can be written.
    """
    from cars_hw.export.lower import lower_network
    from cars_hw.nn.network import Network

    network = seeded(lambda: Network(spec, genotype), repr(genotype))
    write_graph(lower_network(network), path, model_format, precision)


def write_graph(graph: Graph, path: Path, model_format: str, precision: Precision = "fp32") -> None:
    """Write ``graph`` for batch 1 to ``path``; int8 is calibrated on images of noise.

    A measurement writes hundreds of models and needs them only until it ends: the file is not durable.

    Raises:
        InputError: no model of that format or precision can be written.
        ExportError: it cannot be quantised.
    """
    wanted = export_format(model_format)
    wanted.require_precision(precision)
    model = wanted.write(graph)
    if precision == "int8":
        from cars_hw.export.quantize import quantize

        model = quantize(model, wanted, _noise(graph, wanted))
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(model)


def _noise(graph: Graph, wanted: ExportFormat) -> Feeds:
    """Return a few inputs of noise, laid out as the format wants them."""
    rng = np.random.default_rng(0)
    return [
        {name: rng.standard_normal(wanted.image_shape(shape), np.float32) for name, shape in graph.inputs}
        for _ in range(NOISE_IMAGES)
    ]
