"""SuperNet: the weights that a population of architectures shares (CARS, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from cars_hw.nn.network import Network, make_preprocessing, make_stem
from cars_hw.nn.operations import make_operation
from cars_hw.nn.paths import SHARED, SharedCell, SharedNetwork
from cars_hw.nn.slices import Slices
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import NODES, Genotype
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import real_operations


class SuperCell(SharedCell, nn.Module):
    """One cell with every operation on every edge."""

    def __init__(self, layout: CellLayout) -> None:
        super().__init__()
        self.preprocess_0, self.preprocess_1 = make_preprocessing(layout, SHARED)
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        name: make_operation(
                            name, layout.inner.channels, 2 if layout.reduction and source < 2 else 1, SHARED
                        )
                        for name in real_operations()
                    }
                )
                for source in range(node + 2)
            )
            for node in range(NODES)
        )

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        """Return the shared operation ``name`` from state ``source`` to ``node``."""
        sources = self.nodes[node]
        assert isinstance(sources, nn.ModuleList)
        operations = sources[source]
        assert isinstance(operations, nn.ModuleDict)
        return operations[name]


class SuperNet(SharedNetwork, nn.Module):
    """The shared weights of all architectures of the space under ``spec``.

    Batch normalisation uses the statistics of the present batch, in training and in evaluation. The memory format
    of the parameters is channels_last; images should have the same.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        layouts = spec.cells()
        self.stem = make_stem(spec, SHARED)
        self.cells = nn.ModuleList(SuperCell(layout) for layout in layouts)
        self.classifier = nn.Linear(layouts[-1].concatenated.channels, spec.classes)
        self.to(memory_format=torch.channels_last)

    def shared_cells(self) -> list[SuperCell]:
        """Return the cells, first to last."""
        return [cell for cell in self.cells if isinstance(cell, SuperCell)]

    def parameters_of(self, genotype: Genotype) -> list[nn.Parameter]:
        """Return the parameters that ``genotype`` uses, in the order of the cells."""
        found = [*self.stem.parameters()]
        for index, cell in enumerate(self.cells):
            assert isinstance(cell, SuperCell)
            found += [*cell.preprocess_0.parameters(), *cell.preprocess_1.parameters()]
            for number, node in enumerate(genotype.cell(index in self.spec.reductions)):
                for edge in node:
                    if edge.is_real:
                        found += cell.operation(number, edge.source, edge.operation).parameters()
        return [*found, *self.classifier.parameters()]

    def hand_over(self, network: Network) -> None:
        """Copy the shared weights of ``network``'s architecture into it. Parameters that only it has stay.

        Raises:
            SpecError: its size does not lie within that of the SuperNet.
        """
        weights = Slices(self).weights_of(Architecture(network.genotype, network.spec))
        # Not strict: the network's normalisation has a scale, a shift and averages that shared layers lack.
        missing = network.load_state_dict(weights, strict=False)
        if missing.unexpected_keys:
            raise ValueError(f"the network has no place for {missing.unexpected_keys}")
