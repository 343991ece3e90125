"""How an architecture runs through weights that many share: along its own edges only.

The weights may be those of the SuperNet, or slices of them at a smaller size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUConvBN, ReLUFirst, mean_of_pixels
from cars_hw.nn.network import CifarStem, ImageNetStem, concatenate_nodes, run_stem
from cars_hw.space.genotype import NODES, Cell, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS

SHARED = Normalization(affine=False, running=False)
"""Shared layers are normalised by the batch: running averages over many architectures describe none."""


Choice = tuple[int, int, str]
"""A node, the state that it reads, and the operation between them."""


@dataclass(frozen=True)
class Common:
    """Activations of one batch of images that are the same for all architectures, see :meth:`SharedNetwork.common`.

    ``inputs`` are the two preprocessed inputs of the first cell, ``second`` is the first input of the second cell.
    ``worth`` names the operations of the first cell whose outputs are kept, and ``values`` has the outputs so far.
    ``repeated`` are the normal cells of several architectures. For the last of them, and its number of cells before
    the first reduction, ``beginning`` has the states behind these cells.
    """

    inputs: tuple[Tensor, Tensor]
    second: Tensor
    worth: frozenset[Choice] = frozenset()
    values: dict[Choice, Tensor] = field(default_factory=dict)
    activated: dict[int, Tensor] = field(default_factory=dict)
    repeated: frozenset[Cell] = frozenset()
    beginning: dict[tuple[Cell, int], tuple[Tensor, Tensor]] = field(default_factory=dict)


class SharedCell:
    """One cell of shared weights; running it computes one architecture's edges only."""

    preprocess_0: FactorizedReduce | ReLUConvBN
    preprocess_1: FactorizedReduce | ReLUConvBN

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        """Return the shared operation ``name`` from state ``source`` to ``node``."""
        raise NotImplementedError

    def owner(self, node: int, source: int, name: str) -> nn.Module:
        """Return the module with the weights of the operation: the operation itself, or one that contains it."""
        return self.operation(node, source, name)

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
        fused = isinstance(operation, ReLUFirst) and operation.fuses(source)
        if isinstance(operation, ReLUFirst | FactorizedReduce) and not fused:
            if choice[1] not in activated:
                activated[choice[1]] = F.relu(source)
            return operation.activated(activated[choice[1]])
        out: Tensor = operation(source)
        return out


class SharedNetwork:
    """The layers of one size whose weights the architectures of that size share."""

    spec: NetworkSpec
    stem: CifarStem | ImageNetStem
    classifier: nn.Linear

    def shared_cells(self) -> Sequence[SharedCell]:
        """Return the cells, first to last."""
        raise NotImplementedError

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for images (N, C_in, H, W)."""
        return self.along(self.common(x), genotype)

    def common(self, x: Tensor, genotypes: Sequence[Genotype] = (), room: int = 0) -> Common:
        """Return the activations for images ``x`` (N, C_in, H, W) that are the same for all architectures.

        Many of ``genotypes`` have the same operations on the inputs of the first cell. The first architecture that
        computes one of the most frequent of them keeps its output for the others. Those with the same normal cell
        have the same states before the first reduction, which are kept for the next one. All that is kept has up to
        ``room`` bytes.
        """
        before, last = run_stem(self.stem, x)
        # A state is the input of two cells, and all that either does with it begins with a ReLU. One for both
        # saves the largest activations; the last cell's output goes to the classifier without.
        shared = before is last
        before = F.relu(before)
        last = before if shared else F.relu(last)
        first, second = self.shared_cells()[:2]
        inputs = (first.preprocess_0.activated(before), first.preprocess_1.activated(last))
        worth: frozenset[Choice] = frozenset()
        repeated: frozenset[Cell] = frozenset()
        activated: dict[int, Tensor] = {}
        if room:
            size = inputs[0].numel() * inputs[0].element_size()
            users = Counter(genotype.normal for genotype in genotypes)
            states = 2 * NODES * size
            if self.spec.reductions[0] >= 2 and states <= room // 2:
                repeated = frozenset(cell for cell, count in users.items() if count > 1)
            # Those with the same normal cell run it once, so they count as one user of its operations.
            cells = users if repeated else users.elements()
            worth = _worth_keeping(cells, size, room - (states if repeated else 0))
            # On a GPU, a ReLU is a part of most operations that read it.
            if device_kind(inputs[0]) != "cuda":
                activated = {number: F.relu(state) for number, state in enumerate(inputs)}
        return Common(inputs, second.preprocess_0.activated(last), worth, {}, activated, repeated)

    def along(self, common: Common, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for the images of ``common``."""
        logits: Tensor = self.classifier(self.features(common, genotype))
        return logits

    def features(self, common: Common, genotype: Genotype) -> Tensor:
        """Return what the classifier reads for the images of ``common``: (N, channels of the last cell)."""
        cells = self.shared_cells()
        # The second cell reads what is common. So two cells are run in any case.
        begun = max(2, self.spec.reductions[0])
        key = genotype.normal, begun
        states = common.beginning.get(key)
        if states is None:
            states = self._begin(common, genotype, begun)
            if genotype.normal in common.repeated and begun == self.spec.reductions[0]:
                common.beginning.clear()
                common.beginning[key] = states
        before, last = states
        for index, cell in enumerate(cells[begun:], begun):
            out = cell.forward(before, last, self._kind(genotype, index))
            before, last = last, out if index == len(cells) - 1 else F.relu(out, inplace=True)
        return mean_of_pixels(last)

    def _begin(self, common: Common, genotype: Genotype, cells: int) -> tuple[Tensor, Tensor]:
        """Return the last two states behind the first ``cells``, with their ReLU done."""
        first, second, *others = self.shared_cells()[:cells]
        before = F.relu(first.along(common.inputs, self._kind(genotype, 0), common), inplace=True)
        inputs = (common.second, second.preprocess_1.activated(before))
        last = F.relu(second.along(inputs, self._kind(genotype, 1)), inplace=True)
        for index, cell in enumerate(others, 2):
            before, last = last, F.relu(cell.forward(before, last, self._kind(genotype, index)), inplace=True)
        return before, last

    def _kind(self, genotype: Genotype, index: int) -> Cell:
        return genotype.cell(index in self.spec.reductions)


def _worth_keeping(cells: Iterable[Cell], size: int, room: int) -> frozenset[Choice]:
    """Return the first cell's operations on its inputs with most users, two at least, at ``size`` bytes each."""
    users = Counter(
        (number, edge.source, edge.operation)
        for cell in cells
        for number, node in enumerate(cell)
        for edge in node
        # An operation that is its input takes neither time nor room.
        if edge.source < 2 and OPERATIONS[edge.operation].is_computed(1)
    )
    return frozenset(choice for choice, count in users.most_common(max(0, room // max(1, size))) if count > 1)
