"""Parameters and multiply-adds of a genotype under a NetworkSpec, in closed form.

Convolutions, linear layers and the scale and shift of batch normalisation have parameters. Multiply-adds are those
of convolutions and linear layers; one multiply-add counts as one operation. The auxiliary head is left out, because
it is not exported.
"""

from __future__ import annotations

from typing import NamedTuple

from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import CellLayout, NetworkSpec, Shape


class Cost(NamedTuple):
    """The number of parameters, and the number of multiply-adds for one image."""

    parameters: int = 0
    multiply_adds: int = 0

    def plus(self, other: Cost) -> Cost:
        """Return the sum of both."""
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


def network_cost(spec: NetworkSpec, genotype: Genotype) -> Cost:
    """Return the cost of the network of ``genotype`` under ``spec``, with its classifier."""
    layouts = spec.cells()
    features = layouts[-1].concatenated.channels
    total = _stem(spec).plus(Cost((features + 1) * spec.classes, features * spec.classes))
    for layout in layouts:
        total = total.plus(_cell(layout, genotype))
    return total


def operation_cost(name: str, inner: Shape, stride: int) -> Cost:
    """Return the cost of the operation ``name`` on a state of shape ``inner``."""
    channels = inner.channels
    output = inner.halved() if stride == 2 else inner
    kernel = 5 if name.endswith("5x5") else 3
    separable = _conv(1, channels, kernel, output).plus(_conv(channels, channels, 1, output)).plus(_norm(channels))
    if name.startswith("sep_conv"):
        return separable.plus(separable)
    if name.startswith("dil_conv"):
        return separable
    if name == "skip_connect" and stride == 2:
        return factorized_reduce_cost(channels, output)
    return Cost()


def factorized_reduce_cost(channels_in: int, output: Shape) -> Cost:
    """Return what halving the resolution to ``output`` costs."""
    return _conv(channels_in, output.channels, 1, output).plus(_norm(output.channels))


def _conv(channels_in: int, channels_out: int, kernel: int, output: Shape) -> Cost:
    """Return the cost of a convolution without bias; a depthwise one has one input channel an output."""
    weights = channels_in * channels_out * kernel * kernel
    return Cost(weights, weights * output.height * output.width)


def _norm(channels: int) -> Cost:
    return Cost(2 * channels)


def _stem(spec: NetworkSpec) -> Cost:
    first, second = spec.stem_shapes()
    if spec.stem == "cifar":
        return _conv(spec.in_channels, first.channels, 3, first).plus(_norm(first.channels))
    half = spec.input_shape.halved(spec.channels // 2)
    total = _conv(spec.in_channels, half.channels, 3, half).plus(_norm(half.channels))
    for channels_in, output in ((half.channels, first), (first.channels, second)):
        total = total.plus(_conv(channels_in, output.channels, 3, output)).plus(_norm(output.channels))
    return total


def _cell(layout: CellLayout, genotype: Genotype) -> Cost:
    before, last = layout.inputs
    total = _conv(last.channels, layout.inner.channels, 1, layout.inner).plus(_norm(layout.inner.channels))
    # Whether it halves the resolution or not, the first input's convolution makes ``inner`` of it.
    total = total.plus(factorized_reduce_cost(before.channels, layout.inner))
    for node in genotype.cell(layout.reduction):
        for edge in node:
            strided = layout.reduction and edge.source < 2
            inner = layout.inner if edge.source < 2 else layout.output
            total = total.plus(operation_cost(edge.operation, inner, 2 if strided else 1))
    return total
