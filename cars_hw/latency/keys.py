"""Op keys: what a network is made of, each with all that its latency depends on.

A network runs only what its logits depend on (:mod:`cars_hw.space.liveness`); so where a genotype's edges come from
decides what it costs as well as what they compute. And a state's ReLU is computed once, however many edges take it:
so it is a key of its own, and the operations' keys are without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cars_hw.latency.block_keys import block_keys, every_block_key
from cars_hw.latency.op_key import OpKey, PlacedKey
from cars_hw.space.architecture import Architecture
from cars_hw.space.families import CellFamily
from cars_hw.space.genotype import Cell, Genotype, Node
from cars_hw.space.liveness import Usage, Usages, inputs_read, live_states, parts_of, usages_of
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import NONE, OPERATIONS
from cars_hw.space.shape import Shape

__all__ = [
    "OpKey",
    "PlacedKey",
    "counts_of",
    "frame_keys",
    "genotype_keys",
    "keys_of",
    "node_keys",
    "relu_keys",
    "relu_sources",
    "spec_keys",
]


def spec_keys(spec: NetworkSpec) -> tuple[OpKey, ...]:
    """Return every key that any genotype under ``spec`` can need, each once, stem to head.

    Genotypes that join other states than their family, as published ones may, can need further ones.
    """
    if spec.blocks is not None:
        return every_block_key(spec)
    keys: list[OpKey] = []
    for parts in _possible_parts(spec.cell_family):
        keys += _keys_at(spec, parts)
    return tuple(dict.fromkeys(keys))


def _possible_parts(family: CellFamily) -> list[tuple[int, int]]:
    """Return how many states the outputs of normal and of reduction cells of ``family`` can be made of."""
    if family.join == "all":
        return [(family.nodes, family.nodes)]
    counts = range(1, family.nodes + 1)
    return [(normal, reduction) for normal in counts for reduction in counts]


def _keys_at(spec: NetworkSpec, parts: tuple[int, int]) -> Iterator[OpKey]:
    """Yield the keys of genotypes whose cells' outputs are made of so many states."""
    family = spec.cell_family
    empty_node = NONE in family.operations
    normal, reduction = (Usage(True, True, empty_node, count) for count in parts)
    yield from (item.key for item in frame_keys(spec, (normal, reduction)))
    for layout in (*spec.stem_cells(parts[1]), *spec.cells(parts)):
        yield from (key for key, _ in relu_keys(layout, range(family.nodes + 1)))
        for name in family.real_operations:
            yield from _operation_keys(layout, name, from_input=True)
            yield from _operation_keys(layout, name, from_input=False)
        yield _add_key(layout)


def genotype_keys(spec: NetworkSpec, genotype: Genotype) -> list[PlacedKey]:
    """Return what the network of ``genotype`` under ``spec`` runs, as often as it runs it, stem to head.

    Raises:
        SpecError: the genotype is of another family than the network.
    """
    spec.require_family(genotype)
    if spec.blocks is not None:
        return block_keys(spec, genotype)
    usages = usages_of(genotype)
    live = live_states(spec, usages)
    placed = list(frame_keys(spec, usages))
    for layout in (*spec.stem_cells(genotype.parts[1]), *spec.cells(genotype.parts)):
        if layout.position not in live:
            continue
        cell = genotype.cell(layout.reduction)
        for key, what in relu_keys(layout, relu_sources(cell, layout.reduction)):
            placed.append(PlacedKey(key, layout.position, what))
        for number, node in enumerate(cell):
            for key, what in node_keys(layout, node):
                placed.append(PlacedKey(key, layout.position, f"node {number}{what}"))
    return sorted(placed, key=lambda item: _rank(item, spec.layers))


def keys_of(architectures: Iterable[Architecture]) -> tuple[OpKey, ...]:
    """Return every key that any genotype needs in the networks of ``architectures``, each once."""
    networks = dict.fromkeys(network for _, network in architectures)
    return tuple(dict.fromkeys(key for network in networks for key in spec_keys(network)))


def counts_of(keys: Sequence[OpKey], architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
    """Return shape (N, K): how often each network runs each of ``keys``, which are all that they run."""
    column = {key: index for index, key in enumerate(keys)}
    counts = np.zeros((len(architectures), len(column)))
    for row, (genotype, network) in zip(counts, architectures, strict=True):
        for placed in genotype_keys(network, genotype):
            row[column[placed.key]] += 1
    return counts


def frame_keys(spec: NetworkSpec, usages: Usages) -> Iterator[PlacedKey]:
    """Yield all that does not depend on the cells' edges but through ``usages``."""
    live = live_states(spec, usages)
    yield from _stem_keys(spec, live)
    layouts = (*spec.stem_cells(usages[1].parts), *spec.cells(parts_of(usages)))
    read = {state for cell in live for state in _read_by(spec, usages, cell)}
    for layout in layouts:
        if layout.position in live:
            for key, what in _glue_keys(layout, usages[layout.reduction]):
                yield PlacedKey(key, layout.position, what)
            if layout.position in read:
                yield PlacedKey(_relu_key(layout.concatenated), layout.position, "relu of the output")
    yield PlacedKey(OpKey("head", layouts[-1].concatenated, spec.classes), None, "head")


def _read_by(spec: NetworkSpec, usages: Usages, cell: int) -> list[int]:
    """Return the states that the cell at the index reads; a state of the stem that is no cell's reads none."""
    first = -2 if spec.stem == "cells" else 0
    return inputs_read(spec, usages, cell) if cell >= first else []


@lru_cache(maxsize=4096)
def relu_sources(cell: Cell, reduction: bool) -> tuple[int, ...]:
    """Return the states of ``cell`` that some edge takes the ReLU of."""
    taken = {
        edge.source
        for node in cell
        for edge in node
        if OPERATIONS[edge.operation].begins_with_relu(2 if reduction and edge.source < 2 else 1)
    }
    return tuple(sorted(taken))


def relu_keys(layout: CellLayout, sources: Iterable[int]) -> Iterator[tuple[OpKey, str]]:
    """Yield the ReLUs of the states ``sources`` in the cell at ``layout``."""
    for source in sources:
        yield _relu_key(layout.inner if source < 2 else layout.output), f"relu of state {source}"


def node_keys(layout: CellLayout, node: Node) -> Iterator[tuple[OpKey, str]]:
    """Yield the keys of one node in the cell at ``layout``: its edges and, if there are two, their sum."""
    real = [edge for edge in node if edge.is_real]
    for edge in real:
        for key in _operation_keys(layout, edge.operation, from_input=edge.source < 2):
            yield key, f" from {edge.source}"
    if len(real) == 2:
        yield _add_key(layout), ""


def _operation_keys(layout: CellLayout, name: str, *, from_input: bool) -> list[OpKey]:
    stride = 2 if layout.reduction and from_input else 1
    if not OPERATIONS[name].is_computed(stride):
        return []
    source = layout.inner if from_input else layout.output
    return [OpKey(name, source, source.channels, stride)]


def _add_key(layout: CellLayout) -> OpKey:
    return OpKey("add", layout.output, layout.output.channels)


def _relu_key(shape: Shape) -> OpKey:
    return OpKey("relu", shape, shape.channels)


def _glue_keys(layout: CellLayout, usage: Usage) -> Iterator[tuple[OpKey, str]]:
    channels = layout.inner.channels
    if usage.first:
        kind = "factorized_reduce" if layout.previous_reduction else "relu_conv_bn"
        yield OpKey(kind, layout.inputs[0], channels), "preprocessing 0"
    if usage.second:
        yield OpKey("relu_conv_bn", layout.inputs[1], channels), "preprocessing 1"
    if usage.empty_node:
        # However many nodes are empty, the zeros are made once.
        yield OpKey("zeros", layout.output, channels), "zeros"
    if usage.parts > 1:
        yield OpKey("concat", layout.output, usage.parts * channels), "concatenation"


def _stem_keys(spec: NetworkSpec, live: set[int]) -> Iterator[PlacedKey]:
    if spec.stem == "cells":
        # The first cell of the stem is alive, and reads it.
        yield PlacedKey(OpKey("stem_half", spec.input_shape, spec.stem_image().channels), None, "stem")
        yield PlacedKey(_relu_key(spec.stem_image()), None, "stem")
        return
    before, last = spec.stem_shapes()
    if spec.stem == "cifar":
        # Both states are one image, which a live cell reads: so it has one ReLU.
        yield PlacedKey(OpKey("stem_cifar", spec.input_shape, last.channels), None, "stem")
        yield PlacedKey(_relu_key(last), None, "stem")
        return
    yield PlacedKey(OpKey("stem_quarter", spec.input_shape, before.channels), None, "stem")
    # Whichever of the two reads it, the eighth and the first cell take the same ReLU.
    yield PlacedKey(_relu_key(before), None, "stem")
    if -1 in live:
        yield PlacedKey(OpKey("stem_eighth", before, last.channels), None, "stem")
        yield PlacedKey(_relu_key(last), None, "stem")


def _rank(item: PlacedKey, layers: int) -> tuple[int, int]:
    if item.cell is None:
        return (-1, 0) if item.what == "stem" else (layers, 0)
    order = ("preprocessing", "relu of state", "node", "zeros", "concatenation", "relu of the output")
    return item.cell, next(rank for rank, words in enumerate(order) if item.what.startswith(words))
