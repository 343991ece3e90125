"""Parameters and multiply-adds of a genotype under a NetworkSpec, in closed form.

:mod:`cars_hw.space.cost` defines what is counted. The auxiliary head is left out, because it is not exported.
"""

from __future__ import annotations

from cars_hw.space.block_cost import block_cost
from cars_hw.space.blocks import block_layouts, head_channels, placed_blocks, stem_layouts
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.genotype import Cell, Genotype
from cars_hw.space.liveness import Usage, live_states, usages_of
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import OPERATIONS

__all__ = ["Cost", "both_costs", "network_cost", "published_cost"]


def network_cost(spec: NetworkSpec, genotype: Genotype) -> Cost:
    """Return the cost of the exported network of ``genotype`` under ``spec``.

    Only what the logits depend on counts. A cell that no other cell reads, and the preprocessing of an input that
    no edge reads, are not in the file. Parameters and multiply-adds are exactly those of the file.
    """
    spec.require_family(genotype)
    if spec.blocks is not None:
        return _of_blocks(spec, genotype)
    usages = usages_of(genotype)
    live = live_states(spec, usages)
    layouts = (*spec.stem_cells(genotype.parts[1]), *spec.cells(genotype.parts))
    total = _stem(spec, eighth=-1 in live).plus(_classifier(spec, layouts[-1]))
    for layout in layouts:
        if layout.position in live:
            total = total.plus(_cell(layout, genotype.cell(layout.reduction), usages[layout.reduction]))
    return total


def published_cost(spec: NetworkSpec, genotype: Genotype) -> Cost:
    """Return the cost of ``genotype`` under ``spec`` by the rule of published tables.

    Every module of the network counts, whether the logits depend on it or not, and the scale of a normalisation is
    a parameter. So the figures can be compared with those of papers. ``folded`` is 0.
    """
    spec.require_family(genotype)
    if spec.blocks is not None:
        # Everything is read: both rules count the same modules.
        total = _of_blocks(spec, genotype)
        return Cost(total.trained_parameters, total.multiply_adds)
    layouts = (*spec.stem_cells(genotype.parts[1]), *spec.cells(genotype.parts))
    total = _stem(spec, eighth=True).plus(_classifier(spec, layouts[-1]))
    for layout in layouts:
        # Both inputs count, whether an edge reads them or not.
        total = total.plus(_cell(layout, genotype.cell(layout.reduction), Usage(True, True, False)))
    return Cost(total.trained_parameters, total.multiply_adds)


def both_costs(spec: NetworkSpec, genotype: Genotype) -> dict[str, int]:
    """Return both counts of ``genotype`` under ``spec`` by the names that JSON files give them."""
    ships, published = network_cost(spec, genotype), published_cost(spec, genotype)
    return {
        "parameters": ships.parameters,
        "multiply_adds": ships.multiply_adds,
        "published_parameters": published.parameters,
        "published_multiply_adds": published.multiply_adds,
    }


def _of_blocks(spec: NetworkSpec, genotype: Genotype) -> Cost:
    total = Cost()
    for stem in stem_layouts(spec):
        total = total.plus(normalized_convolution_cost(stem.source.channels, 3, stem.output))
    for layout, block in placed_blocks(spec, genotype):
        total = total.plus(block_cost(block, layout.source))
    last, features = block_layouts(spec)[-1].output, head_channels(spec)
    total = total.plus(normalized_convolution_cost(last.channels, 1, last._replace(channels=features)))
    return total.plus(Cost((features + 1) * spec.classes, features * spec.classes))


def _stem(spec: NetworkSpec, *, eighth: bool) -> Cost:
    """Return the cost of the stem; ``eighth`` is whether the last convolution of ImageNet's stem counts."""
    if spec.stem == "cells":
        half = spec.stem_image()
        return normalized_convolution_cost(spec.in_channels, 3, half)
    first, second = spec.stem_shapes()
    if spec.stem == "cifar":
        return normalized_convolution_cost(spec.in_channels, 3, first)
    half = spec.input_shape.halved(spec.channels // 2)
    total = normalized_convolution_cost(spec.in_channels, 3, half)
    total = total.plus(normalized_convolution_cost(half.channels, 3, first))
    return total.plus(normalized_convolution_cost(first.channels, 3, second)) if eighth else total


def _classifier(spec: NetworkSpec, last: CellLayout) -> Cost:
    features = last.concatenated.channels
    return Cost((features + 1) * spec.classes, features * spec.classes)


def _cell(layout: CellLayout, cell: Cell, usage: Usage) -> Cost:
    total = Cost()
    for source, used in zip(layout.inputs, (usage.first, usage.second), strict=True):
        if used:
            # Whether it halves the resolution or not, an input's preprocessing makes ``inner`` of it.
            total = total.plus(normalized_convolution_cost(source.channels, 1, layout.inner))
    for node in cell:
        for edge in node:
            strided = layout.reduction and edge.source < 2
            inner = layout.inner if edge.source < 2 else layout.output
            total = total.plus(OPERATIONS[edge.operation].cost(inner, 2 if strided else 1))
    return total
