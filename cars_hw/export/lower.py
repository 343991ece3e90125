"""From torch modules in eval mode to a :class:`~cars_hw.export.graph.Graph`.

Every batch normalisation is folded, in float64, into the convolution before it. Auxiliary head and drop-path
help training only and are left out. The ReLU of a state is computed once, however many edges take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import nn

from cars_hw.errors import ExportError
from cars_hw.export.builder import Builder
from cars_hw.export.graph import (
    Add,
    AvgPool,
    Concat,
    GlobalAveragePool,
    Graph,
    Identity,
    Linear,
    MaxPool,
    Zeros,
)
from cars_hw.export.lower_blocks import lower_block, lower_normalized
from cars_hw.nn.blocks import NetworkBlock
from cars_hw.nn.layers import FactorizedReduce
from cars_hw.nn.mobile import MobileBlock, Normalized
from cars_hw.nn.network import CellsStem, ImageNetStem, Network, NetworkCell
from cars_hw.space.genotype import Cell, States
from cars_hw.space.shape import Shape


class CellParts(NamedTuple):
    """The modules of a cell: the preprocessing of its two inputs, and those of the real edges of each node.

    ``joined`` are the states that make its output, side by side.
    """

    cell: Cell
    preprocess_0: nn.Module
    preprocess_1: nn.Module
    nodes: Sequence[Sequence[nn.Module]]
    joined: States


def lower_network(network: Network) -> Graph:
    """Return what ``network`` computes in eval mode, from ``image`` (N, C_in, H, W) to ``logits`` (N, classes).

    Cells and inputs of cells that nothing reads are left out: a cell need not use both of its inputs.

    Raises:
        ExportError: a batch normalisation has no running averages, or a module is none of this space.
    """
    build = Builder((("image", network.spec.input_shape),))
    if network.spec.blocks is not None:
        return lower_chain(build, network.stem, network.cells, network.classifier)
    return lower_parts(build, network.stem, map(_parts, network.cells), network.classifier)


def lower_chain(build: Builder, stem: nn.Module, blocks: Iterable[nn.Module], classifier: nn.Linear) -> Graph:
    """Return what a network of these modules computes, one after the other, of the image of ``build``."""
    state = _lower(build, stem, "image", "stem")
    for index, block in enumerate(blocks):
        state = _lower(build, block, state, f"cells.{index}")
    return build.graph((lower_head(build, classifier, state, "logits"),))


def lower_parts(build: Builder, stem: nn.Module, cells: Iterable[CellParts], classifier: nn.Linear) -> Graph:
    """Return what a network of these modules computes of the image that ``build`` begins with."""
    states = _lower_outputs(build, stem, "image", "stem")
    before, last = states[0], states[-1]
    for index, cell in enumerate(cells):
        before, last = last, _lower_cell(build, cell, before, last, f"cells.{index}")
    logits = lower_head(build, classifier, last, "logits")
    return build.graph((logits,)).without_dead_layers()


def _parts(cell: nn.Module) -> CellParts:
    assert isinstance(cell, NetworkCell)
    nodes = []
    for operations in cell.nodes:
        assert isinstance(operations, nn.ModuleList)
        nodes.append(list(operations))
    return CellParts(cell.cell, cell.preprocess_0, cell.preprocess_1, nodes, cell.joined)


def lower_module(module: nn.Module, shape: Shape) -> Graph:
    """Return what ``module`` computes in eval mode from ``input``, an image of ``shape``.

    ``module`` is a candidate operation, a cell's preprocessing, a stem (stems for large images have two outputs: a
    quarter and an eighth of the resolution) or a classifier ``nn.Linear``, which gets the mean over all pixels.

    Raises:
        ExportError: a batch normalisation has no running averages, the module wants another number of
            channels, or it is none of this space.
    """
    build = Builder((("input", shape),))
    outputs = _lower_outputs(build, module, "input", type(module).__name__)
    if outputs == ("input",):
        # A format needs at least one layer between what goes in and what comes out.
        outputs = (build.add(Identity(output="same", inputs=outputs, shape=shape)),)
    return build.graph(outputs)


@runtime_checkable
class Lowerable(Protocol):
    """A module that lowers itself: that of an operation which is no sequence of the layers that are known here."""

    def lower(self, build: Builder, source: str, name: str) -> str:
        """Add to ``build`` what the module computes of the value ``source``; return the name of the result.

        Layers are called ``name``, or ``name/...`` where there are several.
        """


def _lower_cell(build: Builder, cell: CellParts, before: str, last: str, name: str) -> str:
    states: list[str | None] = [
        _lower(build, cell.preprocess_0, before, f"{name}/preprocess_0"),
        _lower(build, cell.preprocess_1, last, f"{name}/preprocess_1"),
    ]
    for number, (node, operations) in enumerate(zip(cell.cell, cell.nodes, strict=True)):
        values: list[str] = []
        real = [edge for edge in node if edge.is_real]
        for edge, operation in zip(real, operations, strict=True):
            source = states[edge.source]
            assert source is not None  # Genotype refuses edges from empty nodes.
            path = f"{name}/node{number}/{edge.operation}.from_{edge.source}"
            if len(real) == 2 and real[0] == real[1] and values:
                # Some families let a node read one state twice, by layers with weights of their own.
                path += "_2"
            values.append(_lower(build, operation, source, path))
        states.append(_sum(build, values, f"{name}/node{number}"))
    return _concatenate(build, [states[number] for number in cell.joined], name)


def _sum(build: Builder, values: list[str], name: str) -> str | None:
    """Return the node that sums ``values``: none at all are None, and one is itself."""
    if len(values) < 2:
        return values[0] if values else None
    return build.add(Add(output=name, inputs=tuple(values), shape=build.shapes[values[0]]))


def _concatenate(build: Builder, nodes: list[str | None], name: str) -> str:
    """Return the nodes side by side; a node without any real edge (None) is zeros."""
    present = next(node for node in nodes if node is not None)
    if len(nodes) == 1:
        return present
    shape = build.shapes[present]
    zeros = f"{name}/zeros"
    if None in nodes:
        build.add(Zeros(output=zeros, inputs=(present,), shape=shape))
    inputs = tuple(zeros if node is None else node for node in nodes)
    return build.add(Concat(output=name, inputs=inputs, shape=shape._replace(channels=len(nodes) * shape.channels)))


def _lower_outputs(build: Builder, module: nn.Module, source: str, name: str) -> tuple[str, ...]:
    """Lower ``module``, which may have several outputs."""
    if isinstance(module, ImageNetStem):
        quarter = _lower(build, module.quarter, source, f"{name}/quarter")
        return quarter, _lower(build, module.eighth, quarter, f"{name}/eighth")
    if isinstance(module, CellsStem):
        half = _lower(build, module.first, source, f"{name}/half")
        first, second = map(_parts, module.cells)
        quarter = _lower_cell(build, first, half, half, f"{name}/cells.0")
        return quarter, _lower_cell(build, second, half, quarter, f"{name}/cells.1")
    return (_lower(build, module, source, name),)


def _lower(build: Builder, module: nn.Module, source: str, name: str) -> str:
    if isinstance(module, Lowerable):
        return module.lower(build, source, name)
    if isinstance(module, NetworkBlock):
        module = module.body
    if isinstance(module, MobileBlock):
        return lower_block(build, module, source, name)
    if isinstance(module, Normalized):
        return lower_normalized(build, module, source, build.fresh(name))
    return _lower_known(build, module, source, name)


def _lower_known(build: Builder, module: nn.Module, source: str, name: str) -> str:
    match module:
        case nn.Identity():
            return source
        case nn.ReLU():
            return build.relu(source)
        case nn.MaxPool2d() | nn.AvgPool2d():
            return _lower_pool(build, module, source, name)
        case FactorizedReduce():
            return _lower_reduce(build, module, source, name)
        case nn.Sequential():
            return _lower_sequence(build, list(module), source, name)
        case nn.Linear():
            return lower_head(build, module, source, f"{name}/logits")
        case _:
            raise ExportError(f"{name}: {type(module).__name__} is no module of this space; it cannot be exported")


def _lower_pool(build: Builder, pool: nn.MaxPool2d | nn.AvgPool2d, source: str, name: str) -> str:
    if isinstance(pool, nn.MaxPool2d):
        known = pool.dilation == 1 and not pool.return_indices
    else:
        known = not pool.count_include_pad and pool.divisor_override is None
    stride = pool.stride
    if not known or (pool.kernel_size, pool.padding, pool.ceil_mode) != (3, 1, False) or stride not in (1, 2):
        raise ExportError(f"{name}: {pool} is no pooling of this space; it cannot be exported")
    assert isinstance(stride, int)
    shape = build.shapes[source].halved() if stride == 2 else build.shapes[source]
    kind = MaxPool if isinstance(pool, nn.MaxPool2d) else AvgPool
    return build.add(kind(output=name, inputs=(source,), shape=shape, stride=stride))


def _lower_sequence(build: Builder, modules: Sequence[nn.Module], source: str, name: str) -> str:
    folded: nn.Module | None = None
    for module, following in pairwise((*modules, None)):
        assert module is not None
        if module is folded:
            continue
        if isinstance(module, nn.Conv2d):
            folded = following if isinstance(following, nn.BatchNorm2d) else None
            affine = None if folded is None else build.scale_and_shift(folded, name)
            source = build.conv(module, affine, source, f"{name}/{_kind(module)}")
        else:
            source = _lower(build, module, source, name)
    return source


def _lower_reduce(build: Builder, module: FactorizedReduce, source: str, name: str) -> str:
    relu = build.relu(source)
    scale, shift = build.scale_and_shift(module.bn, name)
    half = module.conv_1.out_channels
    # At a stride of 2 an unshifted 1x1 convolution never meets the padding, so only the shifted half has it.
    even = build.conv(module.conv_1, (scale[:half], shift[:half]), relu, f"{name}/even")
    odd = build.conv(module.conv_2, (scale[half:], shift[half:]), build.shift(relu), f"{name}/odd")
    shape = build.shapes[even]._replace(channels=scale.size)
    return build.add(Concat(output=name, inputs=(even, odd), shape=shape))


def lower_head(build: Builder, linear: nn.Linear, source: str, name: str) -> str:
    """Add a classifier, which gets the mean over all pixels of ``source``; ``name`` is that of its logits."""
    channels = build.shapes[source].channels
    if linear.in_features != channels:
        raise ExportError(f"{name}: {linear.in_features} channels are expected, not {channels}")
    bias = np.zeros(linear.out_features) if linear.bias is None else build.exact(linear.bias)
    mean = build.add(GlobalAveragePool(output=f"{name}/mean", inputs=(source,), shape=Shape(channels, 1, 1)))
    return build.add(
        Linear(
            output=name,
            inputs=(mean,),
            shape=Shape(linear.out_features, 1, 1),
            weight=build.exact(linear.weight).astype(np.float32),
            bias=bias.astype(np.float32),
        )
    )


def _kind(conv: nn.Conv2d) -> str:
    if conv.groups > 1:
        return "depthwise"
    return "pointwise" if conv.kernel_size == (1, 1) else "conv"
