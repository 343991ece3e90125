"""Parameters and multiply-adds of a genotype under a NetworkSpec, in closed form.

:mod:`cars_hw.space.cost` defines what is counted. The auxiliary head is left out, because it is not exported.
"""

from __future__ import annotations

from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import OPERATIONS

__all__ = ["Cost", "network_cost"]


def network_cost(spec: NetworkSpec, genotype: Genotype) -> Cost:
    """Return the cost of the network of ``genotype`` under ``spec``, with its classifier."""
    layouts = spec.cells()
    features = layouts[-1].concatenated.channels
    total = _stem(spec).plus(Cost((features + 1) * spec.classes, features * spec.classes))
    for layout in layouts:
        total = total.plus(_cell(layout, genotype))
    return total


def _stem(spec: NetworkSpec) -> Cost:
    first, second = spec.stem_shapes()
    if spec.stem == "cifar":
        return normalized_convolution_cost(spec.in_channels, 3, first)
    half = spec.input_shape.halved(spec.channels // 2)
    total = normalized_convolution_cost(spec.in_channels, 3, half)
    for channels_in, output in ((half.channels, first), (first.channels, second)):
        total = total.plus(normalized_convolution_cost(channels_in, 3, output))
    return total


def _cell(layout: CellLayout, genotype: Genotype) -> Cost:
    before, last = layout.inputs
    # Whether it halves the resolution or not, an input's preprocessing makes ``inner`` of it.
    total = normalized_convolution_cost(last.channels, 1, layout.inner)
    total = total.plus(normalized_convolution_cost(before.channels, 1, layout.inner))
    for node in genotype.cell(layout.reduction):
        for edge in node:
            strided = layout.reduction and edge.source < 2
            inner = layout.inner if edge.source < 2 else layout.output
            total = total.plus(OPERATIONS[edge.operation].cost(inner, 2 if strided else 1))
    return total
