"""SuperNet: the weights that a population of architectures shares (CARS, section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUFirst
from cars_hw.nn.network import Network, NetworkCell, concatenate_nodes, make_preprocessing, make_stem, run_stem
from cars_hw.nn.operations import make_operation
from cars_hw.space.genotype import NODES, Cell, Genotype
from cars_hw.space.network_spec import CellLayout, NetworkSpec
from cars_hw.space.operations import OPERATIONS, real_operations

SHARED = Normalization(affine=False, running=False)
"""Shared layers are normalised by the batch: running averages over many architectures describe none."""


Choice = tuple[int, int, str]
"""A node, the state that it reads, and the operation between them."""


@dataclass(frozen=True)
class Common:
    """Activations of one batch of images that are the same for all architectures, see :meth:`SuperNet.common`.

    ``inputs`` are the two preprocessed inputs of the first cell, ``second`` is the first input of the second cell.
    ``worth`` names the operations of the first cell whose outputs are kept, and ``values`` has the outputs so far.
    """

    inputs: tuple[Tensor, Tensor]
    second: Tensor
    worth: frozenset[Choice] = frozenset()
    values: dict[Choice, Tensor] = field(default_factory=dict)
    activated: dict[int, Tensor] = field(default_factory=dict)


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

    def forward(self, before: Tensor, last: Tensor, cell: Cell) -> Tensor:
        """Return the concatenated nodes (N, 4 C, H, W) of ``cell``; both inputs' ReLU is done already."""
        return self.along((self.preprocess_0.activated(before), self.preprocess_1.activated(last)), cell)

    def along(self, inputs: tuple[Tensor, Tensor], cell: Cell, common: Common | None = None) -> Tensor:
        """Return the concatenated nodes (N, 4 C, H, W) of ``cell`` from its preprocessed ``inputs``."""
        states: list[Tensor | None] = list(inputs)
        activated: dict[int, Tensor] = {} if common is None else dict(common.activated)
        for number, node in enumerate(cell):
            state: Tensor | None = None
            for edge in node:
                if not edge.is_real:
                    continue
                source = states[edge.source]
                assert source is not None  # Genotype refuses edges from empty nodes.
                choice = (number, edge.source, edge.operation)
                if common is not None and choice in common.worth:
                    if choice not in common.values:
                        common.values[choice] = self._run(choice, source, activated)
                    value = common.values[choice]
                else:
                    value = self._run(choice, source, activated)
                state = value if state is None else state + value
            states.append(state)
        return concatenate_nodes(states[2:])

    def _run(self, choice: Choice, source: Tensor, activated: dict[int, Tensor]) -> Tensor:
        """Return the output of ``choice``; its source's ReLU is done once, and kept in ``activated``."""
        operation = self.operation(*choice)
        if isinstance(operation, ReLUFirst | FactorizedReduce):
            if choice[1] not in activated:
                activated[choice[1]] = F.relu(source)
            return operation.activated(activated[choice[1]])
        out: Tensor = operation(source)
        return out


class SuperNet(nn.Module):
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

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for images (N, C_in, H, W)."""
        return self.along(self.common(x), genotype)

    def common(self, x: Tensor, genotypes: Sequence[Genotype] = (), room: int = 0) -> Common:
        """Return the activations for images ``x`` (N, C_in, H, W) that are the same for all architectures.

        Many of ``genotypes`` have the same operations on the inputs of the first cell. The first architecture that
        computes one of the most frequent of them keeps its output for the others, up to ``room`` bytes in all.
        """
        before, last = run_stem(self.stem, x)
        # A state is the input of two cells, and all that either does with it begins with a ReLU. One for both
        # saves the largest activations; the last cell's output goes to the classifier without.
        shared = before is last
        before = F.relu(before)
        last = before if shared else F.relu(last)
        first, second = self.cells[0], self.cells[1]
        assert isinstance(first, SuperCell)
        assert isinstance(second, SuperCell)
        inputs = (first.preprocess_0.activated(before), first.preprocess_1.activated(last))
        worth: frozenset[Choice] = frozenset()
        activated: dict[int, Tensor] = {}
        if room:
            worth = _worth_keeping(genotypes, inputs[0].numel() * inputs[0].element_size(), room)
            activated = {number: F.relu(state) for number, state in enumerate(inputs)}
        return Common(inputs, second.preprocess_0.activated(last), worth, {}, activated)

    def along(self, common: Common, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for the images of ``common``."""
        first, second, *others = (cell for cell in self.cells if isinstance(cell, SuperCell))
        kinds = [genotype.cell(index in self.spec.reductions) for index in range(self.spec.layers)]
        before = F.relu(first.along(common.inputs, kinds[0], common), inplace=True)
        inputs = (common.second, second.preprocess_1.activated(before))
        last = F.relu(second.along(inputs, kinds[1]), inplace=True)
        for cell, kind in zip(others, kinds[2:], strict=True):
            out = cell(before, last, kind)
            before, last = last, out if cell is others[-1] else F.relu(out, inplace=True)
        logits: Tensor = self.classifier(last.mean(dim=(2, 3)))
        return logits

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
        """Copy the shared weights of ``network``'s genotype into it. Parameters that only the network has stay.

        Raises:
            ValueError: the SuperNet and the network have different NetworkSpecs.
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


def _worth_keeping(genotypes: Sequence[Genotype], size: int, room: int) -> frozenset[Choice]:
    """Return the first cell's operations on its inputs with most users, two at least, at ``size`` bytes each."""
    users = Counter(
        (number, edge.source, edge.operation)
        for genotype in genotypes
        for number, node in enumerate(genotype.normal)
        for edge in node
        # An operation that is its input takes neither time nor room.
        if edge.source < 2 and OPERATIONS[edge.operation].is_computed(1)
    )
    return frozenset(choice for choice, count in users.most_common(max(0, room // max(1, size))) if count > 1)


def _copy(source: nn.Module, target: nn.Module) -> None:
    # Not strict: the network's normalisation has a scale, a shift and averages that shared layers lack.
    missing = target.load_state_dict(source.state_dict(), strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"the network has no place for {missing.unexpected_keys}")
