"""The memory that a TFLite model needs for its activations, and the size of its file, without weights or a runtime.

The activations are placed as TFLite's own planner places them in its arena (``arena_planner.cc``): by size, each in
the smallest gap among those that live at the same time. Input and output live all the time, every other tensor
from the operator that writes it to the last one that reads it. Delegates keep what they run in memory of their own,
which is planned alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cars_hw.export.builder import Builder
from cars_hw.export.lower import CellParts, lower_chain, lower_parts
from cars_hw.nn.blocks import head_convolution, make_block
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import make_preprocessing, make_stem
from cars_hw.nn.operations import make_operation
from cars_hw.space.blocks import BlockLayout, block_layouts, head_channels
from cars_hw.space.genotype import names_of

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.export.graph import Graph
    from cars_hw.export.tflite_plan import TflitePlan
    from cars_hw.space.architecture import Architecture
    from cars_hw.space.genotype import Genotype
    from cars_hw.space.network_spec import CellLayout, NetworkSpec

ALIGNMENT: Final = 64
"""Of tensors in the arena, in bytes (``kDefaultTensorAlignment``)."""

MODULES: Final = 10_000
"""So many modules of each kind are kept; they hold no values."""

ELEMENT_BYTES: Final = {"fp32": 4, "int8": 1}


class Life(NamedTuple):
    """A tensor in the arena: its size in bytes, and the first and the last operator during which it is there."""

    size: int
    first: int
    last: int


def activation_bytes(architecture: Architecture, precision: Precision = "fp32") -> int:
    """Return the size of the arena of the exported TFLite model of ``architecture``, in bytes.

    Memory that a kernel takes for itself while it runs is not in it.
    """
    plan, size = _plan(architecture), ELEMENT_BYTES[precision]
    return arena_bytes([Life(size * one.elements, one.first, one.last) for one in plan.lives])


def file_bytes(architecture: Architecture, precision: Precision = "fp32") -> int:
    """Return the size of the exported TFLite file of ``architecture`` without metadata; an estimate for int8."""
    return _plan(architecture).file_bytes(precision)


def arena_bytes(lives: Sequence[Life]) -> int:
    """Return the size of TFLite's arena for tensors with these lives."""
    last = max((one.last for one in lives), default=0)
    # Those that live all the time come first, then the largest, then the earliest.
    order = sorted(
        range(len(lives)),
        key=lambda at: (
            (0, 0, at) if (lives[at].first, lives[at].last) == (0, last) else (1, -lives[at].size, lives[at].first)
        ),
    )
    placed: list[tuple[int, int, Life]] = []
    for life in (lives[at] for at in order):
        offset = _best_offset(placed, life)
        placed.append((offset, offset + life.size, life))
        placed.sort(key=lambda one: one[:2])
    return max((end for _, end, _ in placed), default=0)


def _best_offset(placed: Sequence[tuple[int, int, Life]], life: Life) -> int:
    """Return where ``life`` goes: the smallest gap that holds it, otherwise behind everything beside it."""
    best, best_gap, current = None, None, 0
    for offset, end, other in placed:
        if other.last < life.first or life.last < other.first:
            continue
        aligned = -(-current // ALIGNMENT) * ALIGNMENT
        if aligned + life.size <= offset and (best_gap is None or offset - current < best_gap):
            best, best_gap = aligned, offset - current
        current = max(current, end)
    return -(-current // ALIGNMENT) * ALIGNMENT if best is None else best


def _plan(architecture: Architecture) -> TflitePlan:
    """Return the tensors of the exported network; its weights have shapes and no values."""
    from cars_hw.export.tflite_plan import TflitePlan

    spec, genotype = architecture.network, architecture.genotype
    if spec.blocks is not None:
        return TflitePlan(_chain(spec, genotype))
    layouts = spec.cells(genotype.parts)
    cells = (_cell(layout, genotype) for layout in layouts)
    build = _Shapes((("image", spec.input_shape),))
    classifier = _classifier(layouts[-1].concatenated.channels, spec.classes)
    stem = _stem(spec, genotype if spec.stem == "cells" else None)
    return TflitePlan(lower_parts(build, stem, cells, classifier))


def _chain(spec: NetworkSpec, genotype: Genotype) -> Graph:
    """Return the graph of a network of blocks."""
    layouts, features = block_layouts(spec), head_channels(spec)
    blocks = [_block(layout, name) for layout, name in zip(layouts, names_of(genotype), strict=True)]
    head = _head(layouts[-1].channels, features)
    build = _Shapes((("image", spec.input_shape),))
    return lower_chain(build, _stem(spec, None), [*blocks, head], _classifier(features, spec.classes))


def _cell(layout: CellLayout, genotype: Genotype) -> CellParts:
    cell = genotype.cell(layout.reduction)
    nodes = [
        [
            _operation(edge.operation, layout.inner.channels, 2 if layout.reduction and edge.source < 2 else 1)
            for edge in node
            if edge.is_real
        ]
        for node in cell
    ]
    return CellParts(cell, *_preprocessing(layout), nodes, genotype.joined(layout.reduction))


# Modules without values are made once: making them takes longer than everything else.
@lru_cache(MODULES)
def _operation(name: str, channels: int, stride: int) -> nn.Module:
    with torch.device("meta"):
        return make_operation(name, channels, stride, Normalization()).eval()


@lru_cache(MODULES)
def _block(layout: BlockLayout, name: str) -> nn.Module:
    with torch.device("meta"):
        return make_block(layout, name, Normalization()).eval()


@lru_cache(MODULES)
def _head(channels_in: int, channels: int) -> nn.Module:
    with torch.device("meta"):
        return head_convolution(channels_in, channels, Normalization()).eval()


@lru_cache(MODULES)
def _preprocessing(layout: CellLayout) -> tuple[nn.Module, nn.Module]:
    with torch.device("meta"):
        first, second = make_preprocessing(layout, Normalization())
    return first.eval(), second.eval()


@lru_cache(MODULES)
def _stem(spec: NetworkSpec, genotype: Genotype | None) -> nn.Module:
    with torch.device("meta"):
        return make_stem(spec, Normalization(), genotype).eval()


@lru_cache(MODULES)
def _classifier(features: int, classes: int) -> nn.Linear:
    return nn.Linear(features, classes, device="meta")


class _Shapes(Builder):
    """Lowers shapes only."""

    def exact(self, tensor: Tensor) -> Any:  # noqa: ANN401 -- an array
        """Return zeros of the shape of ``tensor``, which take no memory."""
        return np.broadcast_to(np.float64(0), tuple(tensor.shape))
