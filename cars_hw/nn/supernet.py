"""SuperNet: the weights that a population of architectures shares (CARS, section 3.1)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from cars_hw.config.training import WeightSharing
from cars_hw.nn.block_slices import slices_of
from cars_hw.nn.blocks import head_convolution
from cars_hw.nn.network import Network, make_preprocessing, make_stem
from cars_hw.nn.operations import make_operation
from cars_hw.nn.paths import SHARED, SharedCell, SharedNetwork
from cars_hw.nn.shared_blocks import SuperBlock
from cars_hw.nn.skeletons import Skeleton, named_weights, operation_template
from cars_hw.space.architecture import Architecture
from cars_hw.space.blocks import block_layouts, head_channels
from cars_hw.space.families import CellFamily
from cars_hw.space.genotype import Genotype, names_of
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import OPERATIONS


class SuperCell(SharedCell, nn.Module):
    """One cell with every operation on every edge. ``share`` says which of them share their weights."""

    def __init__(self, layout: CellLayout, family: CellFamily, share: WeightSharing = "edges") -> None:
        super().__init__()
        self.layout = layout
        self.family = family
        names = [
            name
            for name in family.real_operations
            if share != "kernels" or OPERATIONS[name].within not in family.operations
        ]
        self.preprocess_0, self.preprocess_1 = make_preprocessing(layout, SHARED)
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        name: make_operation(name, layout.inner.channels, self._stride(source), SHARED)
                        for name in names
                    }
                )
                for source in range(node + 2)
            )
            for node in range(family.nodes)
        )
        if share != "edges":
            for sources in self.nodes:
                _share_weights(sources)

    def _stride(self, source: int) -> int:
        return 2 if self.layout.reduction and source < 2 else 1

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        """Return the shared operation ``name`` from state ``source`` to ``node``.

        If another operation has its weights, the module reads the present weights of that one.
        """
        operations = self._operations(node, source)
        if name in operations:
            return operations[name]
        skeleton, shapes = _within(name, self.layout.inner.channels, self._stride(source))
        views = OPERATIONS[name].narrowed(named_weights(self.owner(node, source, name)), shapes)
        return skeleton.bound(iter([views[weight] for weight in shapes]))

    def owner(self, node: int, source: int, name: str) -> nn.Module:
        """Return the module that has the weights of the operation ``name`` from state ``source`` to ``node``."""
        operations = self._operations(node, source)
        within = OPERATIONS[name].within
        if name in operations or within is None:
            return operations[name]
        return operations[within]

    def _operations(self, node: int, source: int) -> nn.ModuleDict:
        sources = self.nodes[node]
        assert isinstance(sources, nn.ModuleList)
        operations = sources[source]
        assert isinstance(operations, nn.ModuleDict)
        return operations


def _share_weights(modules: nn.Module) -> None:
    """Give each operation the same weights in all of ``modules``, one for each source of a node.

    The modules differ: in a reduction cell, the first two sources have a stride of 2.
    """
    owners: dict[object, nn.Parameter] = {}
    for operations in modules.children():
        for name, parameter in list(operations.named_parameters()):
            path, _, weight = name.rpartition(".")
            owner = owners.setdefault((name, parameter.shape), parameter)
            setattr(operations.get_submodule(path), weight, owner)


@lru_cache(maxsize=1024)
def _within(name: str, channels: int, stride: int) -> tuple[Skeleton, dict[str, torch.Size]]:
    """Return the skeleton of an operation whose weights another one has, and their shapes in its order."""
    template = operation_template(name, channels, stride)
    skeleton, weights = Skeleton.of(template), named_weights(template)
    return skeleton, {weight: weights[weight].shape for weight in skeleton.names()}


def _super_cells(spec: NetworkSpec, share: WeightSharing) -> nn.ModuleList:
    """Return the cells with all operations; or the blocks with all choices, and the convolution behind them."""
    if spec.blocks is None:
        return nn.ModuleList(SuperCell(layout, spec.cell_family, share) for layout in spec.cells())
    layouts = block_layouts(spec)
    head = head_convolution(layouts[-1].channels, head_channels(spec), SHARED)
    return nn.ModuleList([*(SuperBlock(layout, share) for layout in layouts), head])


class SuperNet(SharedNetwork, nn.Module):
    """The shared weights of all architectures of the space under ``spec``.

    Of blocks, each choice has its own weights. With ``kernels`` for ``share``, all choices for a block have parts
    of the weights of the largest one.

    Batch normalisation uses the statistics of the present batch, in training and in evaluation. The memory format
    of the parameters is channels_last; images should have the same. ``share`` says which operations have the same
    weights.

    Raises:
        SpecError: the stem has cells.
    """

    def __init__(self, spec: NetworkSpec, share: WeightSharing = "edges") -> None:
        super().__init__()
        self.spec = spec
        self.share = share
        self.stem = make_stem(spec, SHARED)
        self.cells = _super_cells(spec, share)
        features = spec.cells()[-1].concatenated.channels if spec.blocks is None else head_channels(spec)
        self.classifier = nn.Linear(features, spec.classes)
        self.to(memory_format=torch.channels_last)

    def shared_cells(self) -> list[SuperCell]:
        """Return the cells, first to last."""
        return [cell for cell in self.cells if isinstance(cell, SuperCell)]

    def chain(self, genotype: Genotype) -> list[nn.Module]:
        """Return the blocks of ``genotype``, which read the present weights, and the convolution behind them."""
        *blocks, head = self.cells
        chosen = []
        for block, name in zip(blocks, names_of(genotype), strict=True):
            assert isinstance(block, SuperBlock)
            chosen.append(block.block(name))
        return [*chosen, head]

    def parameters_of(self, genotype: Genotype) -> list[nn.Parameter]:
        """Return the parameters that ``genotype`` uses, in the order of the cells."""
        places = slices_of(self).places(Architecture(genotype, self.spec))
        found = {id(place.parameter): place.parameter for place in places}
        return [one for one in found.values() if isinstance(one, nn.Parameter)]

    def hand_over(self, network: Network) -> None:
        """Copy the shared weights of ``network``'s architecture into it. Parameters that only it has stay.

        Raises:
            SpecError: its size does not lie within that of the SuperNet.
        """
        weights = slices_of(self).weights_of(Architecture(network.genotype, network.spec))
        # Not strict: the network's normalisation has a scale, a shift and averages that shared layers lack.
        missing = network.load_state_dict(weights, strict=False)
        if missing.unexpected_keys:
            raise ValueError(f"the network has no place for {missing.unexpected_keys}")
