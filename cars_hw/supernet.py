"""SuperNet: the weights that a population of architectures shares (CARS, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.genotype import NODES, OPERATIONS, Cell, Genotype
from cars_hw.network import Network, NetworkCell, concatenate_nodes, make_preprocessing, make_stem, run_stem
from cars_hw.operations import FactorizedReduce, Normalization, ReLUFirst, make_operation
from cars_hw.spec import CellLayout, NetworkSpec

SHARED = Normalization(affine=False, running=False)
"""Shared layers are normalised by the batch: running averages over many architectures describe none."""


class SuperCell(nn.Module):
    """One cell with every operation on every edge; running it computes one architecture's edges only."""

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
                        for name in OPERATIONS
                        if name != "none"
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

    def forward(self, before: Tensor, last: Tensor, cell: Cell) -> Tensor:
        """Return the concatenated nodes (N, 4 C, H, W) of ``cell``; both inputs' ReLU is done already."""
        states: list[Tensor | None] = [self.preprocess_0.activated(before), self.preprocess_1.activated(last)]
        activated: dict[int, Tensor] = {}
        for number, node in enumerate(cell):
            state: Tensor | None = None
            for edge in node:
                if not edge.is_real:
                    continue
                source = states[edge.source]
                assert source is not None  # Genotype refuses edges from empty nodes.
                operation = self.operation(number, edge.source, edge.operation)
                if isinstance(operation, ReLUFirst | FactorizedReduce):
                    if edge.source not in activated:
                        activated[edge.source] = F.relu(source)
                    value = operation.activated(activated[edge.source])
                else:
                    value = operation(source)
                state = value if state is None else state + value
            states.append(state)
        return concatenate_nodes(states[2:])


class SuperNet(nn.Module):
    """The shared weights of all architectures of the space under ``spec``.

    Batch normalisation always uses the batch's own statistics, in training and in evaluation. Parameters are
    kept in channels_last; give it images in channels_last too.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        layouts = spec.cells()
        self.stem = make_stem(spec, SHARED)
        self.cells = nn.ModuleList(SuperCell(layout) for layout in layouts)
        self.classifier = nn.Linear(layouts[-1].concatenated.channels, spec.classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for images (N, C_in, H, W)."""
        before, last = run_stem(self.stem, x)
        # A state is the input of two cells, and all that either does with it begins with a ReLU. One for both
        # saves the largest activations; the last cell's output goes to the classifier without.
        shared = before is last
        before = F.relu(before)
        last = before if shared else F.relu(last)
        for index, (cell, reduction) in enumerate(zip(self.cells, self._reductions(), strict=True)):
            out = cell(before, last, genotype.cell(reduction))
            before, last = last, out if index == len(self.cells) - 1 else F.relu(out, inplace=True)
        logits: Tensor = self.classifier(last.mean(dim=(2, 3)))
        return logits

    def _reductions(self) -> list[bool]:
        return [index in self.spec.reductions for index in range(self.spec.layers)]

    def hand_over(self, network: Network) -> None:
        """Copy the weights of ``network``'s genotype into it; what only the network has keeps its values.

        Raises:
            ValueError: the two are not of the same NetworkSpec.
        """
        if network.spec != self.spec:
            raise ValueError("weights can be handed over only to a network of the SuperNet's own NetworkSpec")
        _copy(self.stem, network.stem)
        _copy(self.classifier, network.classifier)
        for ours, theirs in zip(self.cells, network.cells, strict=True):
            assert isinstance(ours, SuperCell)
            assert isinstance(theirs, NetworkCell)
            _copy(ours.preprocess_0, theirs.preprocess_0)
            _copy(ours.preprocess_1, theirs.preprocess_1)
            for number, (node, operations) in enumerate(zip(theirs.cell, theirs.nodes, strict=True)):
                real = [edge for edge in node if edge.is_real]
                assert isinstance(operations, nn.ModuleList)
                for edge, operation in zip(real, operations, strict=True):
                    _copy(ours.operation(number, edge.source, edge.operation), operation)


def _copy(source: nn.Module, target: nn.Module) -> None:
    # Not strict: the network's normalisation has a scale, a shift and averages that shared layers lack.
    missing = target.load_state_dict(source.state_dict(), strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"the network has no place for {missing.unexpected_keys}")
