"""Network: one genotype under a NetworkSpec, the network that is trained, exported and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from cars_hw.errors import SpecError
from cars_hw.nn.blocks import BlockStem, network_blocks
from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUConvBN, concatenate, mean_of_pixels
from cars_hw.nn.operations import make_operation
from cars_hw.space.blocks import block_layouts, head_channels
from cars_hw.space.genotype import Cell, Genotype, States
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.shape import Shape

AUXILIARY_CHANNELS: Final = (128, 768)
"""Width of the auxiliary head's two convolutions (DARTS)."""


class CifarStem(nn.Sequential):
    """3x3 convolution and normalisation; both states of the first cell are its output."""

    def __init__(self, spec: NetworkSpec, norm: Normalization) -> None:
        channels = spec.stem_shapes()[0].channels
        super().__init__(nn.Conv2d(spec.in_channels, channels, 3, padding=1, bias=False), norm.layer(channels))


class ImageNetStem(nn.Module):
    """Three strided 3x3 convolutions; the states of the first cell are at a quarter and an eighth."""

    def __init__(self, spec: NetworkSpec, norm: Normalization) -> None:
        super().__init__()
        channels = spec.channels
        self.quarter = nn.Sequential(
            nn.Conv2d(spec.in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
            norm.layer(channels // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            norm.layer(channels),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            norm.layer(channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two states (N, C, H/4, W/4) and (N, C, H/8, W/8)."""
        quarter = self.quarter(x)
        return quarter, self.eighth(quarter)


def halving_convolution(channels_in: int, channels_out: int, norm: Normalization) -> nn.Sequential:
    """Return a 3x3 convolution that halves the resolution, and its normalisation."""
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, norm.layer(channels_out))


class CellsStem(nn.Module):
    """A strided 3x3 convolution and two reduction cells, which make the two states of the first cell (NASNet)."""

    def __init__(self, spec: NetworkSpec, genotype: Genotype, norm: Normalization) -> None:
        super().__init__()
        channels = spec.stem_image().channels
        self.first = halving_convolution(spec.in_channels, channels, norm)
        self.cells = nn.ModuleList(
            NetworkCell(layout, genotype.reduce, norm, genotype.joined(reduction=True))
            for layout in spec.stem_cells(genotype.parts[1])
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two states (N, C, H/4, W/4) and (N, C, H/8, W/8)."""
        half = self.first(x)
        quarter = self.cells[0](half, half)
        return quarter, self.cells[1](half, quarter)


Stem = CifarStem | ImageNetStem | CellsStem | BlockStem


def make_stem(spec: NetworkSpec, norm: Normalization, genotype: Genotype | None = None) -> Stem:
    """Return the stem that ``spec`` names; one with cells needs the ``genotype``.

    Raises:
        SpecError: it has cells, and there is no genotype: weights that many architectures share have no such stem.
    """
    if spec.blocks is not None:
        return BlockStem(spec, norm)
    if spec.stem == "cells":
        if genotype is None:
            raise SpecError("weights cannot be shared by networks whose stem has cells; search with another stem")
        return CellsStem(spec, genotype, norm)
    return CifarStem(spec, norm) if spec.stem == "cifar" else ImageNetStem(spec, norm)


def run_stem(stem: Stem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two states that the first cell gets from images ``x`` (N, C_in, H, W).

    Before blocks, both are the input of the first block.
    """
    if isinstance(stem, CifarStem | BlockStem):
        state = stem(x)
        return state, state
    states: tuple[Tensor, Tensor] = stem(x)
    return states


def make_preprocessing(
    layout: CellLayout, norm: Normalization
) -> tuple[FactorizedReduce | ReLUConvBN, FactorizedReduce | ReLUConvBN]:
    """Return the modules that bring a cell's two inputs to its width and resolution."""
    before, last = layout.inputs
    channels = layout.inner.channels
    first = FactorizedReduce if layout.previous_reduction else ReLUConvBN
    return first(before.channels, channels, norm), ReLUConvBN(last.channels, channels, norm)


class NetworkCell(nn.Module):
    """One cell: two preprocessed inputs, its nodes, and the states that are ``joined``, by default all nodes."""

    def __init__(self, layout: CellLayout, cell: Cell, norm: Normalization, joined: States | None = None) -> None:
        super().__init__()
        self.cell = cell
        self.joined = tuple(range(2, 2 + len(cell))) if joined is None else joined
        self.preprocess_0, self.preprocess_1 = make_preprocessing(layout, norm)
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                make_operation(
                    edge.operation,
                    layout.inner.channels,
                    2 if layout.reduction and edge.source < 2 else 1,
                    norm,
                )
                for edge in node
                if edge.is_real
            )
            for node in cell
        )

    def forward(self, before: Tensor, last: Tensor, drop_path: float | Tensor = 0.0) -> Tensor:
        """Return the concatenated states (N, parts * C, H, W) from the two cells before.

        ``drop_path`` is a number, or a tensor of one number on the same device.
        """
        kept = iter(self._kept_paths(last, drop_path))
        states: list[Tensor | None] = [self.preprocess_0(before), self.preprocess_1(last)]
        for node, operations in zip(self.cell, self.nodes, strict=True):
            real = [edge for edge in node if edge.is_real]
            state: Tensor | None = None
            assert isinstance(operations, nn.ModuleList)
            for edge, operation in zip(real, operations, strict=True):
                source = states[edge.source]
                assert source is not None  # Genotype refuses edges from empty nodes.
                value = operation(source)
                if not isinstance(operation, nn.Identity) and (factor := next(kept, None)) is not None:
                    value = value * factor.to(value.dtype)
                state = value if state is None else state + value
            states.append(state)
        return concatenate_nodes([states[number] for number in self.joined])

    def _kept_paths(self, like: Tensor, drop_path: float | Tensor) -> Sequence[Tensor]:
        """Return a factor (N, 1, 1, 1) for each path that may be dropped; none if none is.

        A dropped path zeroes whole samples, and the rest is scaled, so that the mean stays (DARTS).
        """
        if not isinstance(drop_path, Tensor) and drop_path <= 0:
            return ()
        paths = sum(
            not isinstance(operation, nn.Identity) for node in self.nodes for operation in cast(nn.ModuleList, node)
        )
        # All at once: on a GPU, one launch takes as long as the numbers of a hundred paths.
        drawn = torch.rand(paths, like.shape[0], 1, 1, 1, device=like.device)
        return ((drawn >= drop_path) / (1 - drop_path)).unbind()


def concatenate_nodes(nodes: list[Tensor | None]) -> Tensor:
    """Return the nodes side by side; a node without any real edge (None) is zeros."""
    present = next(node for node in nodes if node is not None)
    return concatenate([torch.zeros_like(present) if node is None else node for node in nodes])


class AuxiliaryHead(nn.Sequential):
    """A second classifier after the second reduction cell. It helps deep networks to train and is not exported.

    For the 8x8 maps of CIFAR-10 and the 7x7 maps of ImageNet the pooling is that of DARTS: 5x5 windows, 2x2
    outputs. The window grows and shrinks with the map, so that every pixel is used.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        kernel = [max(min(5, size - 1), (size + 1) // 2) for size in (height, width)]
        # The second window ends at the border, so there are two on each axis.
        stride = [size - window for size, window in zip((height, width), kernel, strict=True)]
        inner, outer = AUXILIARY_CHANNELS
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d((kernel[0], kernel[1]), (stride[0], stride[1])),
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, outer, 2, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(outer, classes),
        )


def _cells(spec: NetworkSpec, genotype: Genotype, norm: Normalization) -> nn.ModuleList:
    """Return the cells of a network, or its blocks: modules that take the outputs of the two before."""
    if spec.blocks is not None:
        return network_blocks(spec, genotype, norm)
    return nn.ModuleList(
        NetworkCell(layout, genotype.cell(layout.reduction), norm, genotype.joined(layout.reduction))
        for layout in spec.cells(genotype.parts)
    )


def output_shapes(spec: NetworkSpec, genotype: Genotype) -> list[Shape]:
    """Return the shapes of the outputs of :attr:`Network.cells`; the last one is what the classifier reads."""
    if spec.blocks is None:
        return [layout.concatenated for layout in spec.cells(genotype.parts)]
    shapes = [layout.output for layout in block_layouts(spec)]
    return [*shapes, shapes[-1]._replace(channels=head_channels(spec))]


class Network(nn.Module):
    """The network of ``genotype`` under ``spec``, with logits (N, classes) for images (N, C_in, H, W).

    ``drop_path`` is the probability that a path is dropped for a sample in training; the training raises it from
    epoch to epoch. As a tensor of one number on the network's device, it can be changed in place, which a recorded
    step sees. The auxiliary head is optional. ``cells`` are the cells, or the blocks and the convolution behind
    them; each takes the outputs of the two before it.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        genotype: Genotype,
        *,
        auxiliary: bool = False,
        norm: Normalization | None = None,
    ) -> None:
        super().__init__()
        spec.require_family(genotype)
        norm = norm or Normalization()
        self.spec = spec
        self.genotype = genotype
        self.drop_path: float | Tensor = 0.0
        self.stem = make_stem(spec, norm, genotype)
        self.cells = _cells(spec, genotype, norm)
        shapes = output_shapes(spec, genotype)
        self.classifier = nn.Linear(shapes[-1].channels, spec.classes)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            shape = shapes[spec.reductions[1]]
            if min(shape.height, shape.width) < 2:
                raise SpecError("the auxiliary head needs at least 2x2 pixels behind the second reduction")
            self.auxiliary = AuxiliaryHead(shape.channels, shape.height, shape.width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.forward_with_auxiliary(x)[0]

    def features(self, x: Tensor) -> Tensor:
        """Return what the classifier gets: the mean over all pixels of the last cell's output (N, channels)."""
        return self._features_with_auxiliary(x)[0]

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and, while training with an auxiliary head, its logits."""
        features, auxiliary = self._features_with_auxiliary(x)
        logits: Tensor = self.classifier(features)
        return logits, auxiliary

    def _features_with_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        before, last = run_stem(self.stem, x)
        drop_path = self.drop_path if self.training else 0.0
        auxiliary = None
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, drop_path)
            if self.training and self.auxiliary is not None and index == self.spec.reductions[1]:
                auxiliary = self.auxiliary(last)
        return mean_of_pixels(last), auxiliary
