"""How an architecture runs through weights that many share: along its own edges only.

The weights may be those of the SuperNet, or slices of them at a smaller size.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.errors import SpecError
from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.layers import FactorizedReduce, Normalization, ReLUConvBN, ReLUFirst, mean_of_pixels
from cars_hw.nn.network import Stem, concatenate_nodes, run_stem
from cars_hw.nn.tape import Tape, can_tape
from cars_hw.space.families import CellFamily
from cars_hw.space.genotype import Cell, Genotype, States, family_joined
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS

SHARED = Normalization(affine=False, running=False)
"""Shared layers are normalised by the batch: running averages over many architectures describe none."""


Choice = tuple[int, int, str]
"""A node, the state that it reads, and the operation between them."""


class CellInProgress(Protocol):
    """A cell whose nodes are computed one after the other."""

    def edge(self, module: nn.Module, number: int, source: Any, /) -> Any:  # noqa: ANN401 -- of the layers' own kind
        """Return the output of the operation ``module`` on the state ``source``, which has this ``number``."""

    def node(self, edges: Sequence[Any], /) -> Any:  # noqa: ANN401
        """Return the sum of ``edges``, or None if there are none."""

    def end(self, joined: States | None, /) -> Any:  # noqa: ANN401
        """Return the output of the cell: the nodes ``joined``, None for all, and zeros in the place of others."""


class Layers(Protocol):
    """How shared layers are computed. States and outputs of cells are of a kind of its own."""

    def begin(self, states: Sequence[Tensor]) -> Sequence[Any]:
        """Return what a stem made, (N, C, H, W) each, as outputs; a state that is there twice is one output."""

    def behind(self, output: Any) -> Any:  # noqa: ANN401
        """Return the output of a cell as later cells read it."""

    def size(self, state: Any) -> int:  # noqa: ANN401
        """Return the bytes of a state."""

    def activated(self, inputs: Sequence[Any]) -> dict[int, Tensor]:
        """Return the ReLUs of the inputs of a cell that architectures share, by the number of the input."""

    def input(self, module: nn.Module, output: Any) -> Any:  # noqa: ANN401
        """Return the input of a cell that ``module`` makes of ``output``."""

    def cell(self, activated: dict[int, Tensor]) -> CellInProgress:
        """Return a cell that begins, with the ReLUs of its inputs that are done."""

    def mean(self, output: Any) -> Tensor:  # noqa: ANN401
        """Return what the classifier reads (N, C): the mean of all pixels."""


class PlainLayers:
    """The modules themselves, on tensors."""

    def begin(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Return the ReLUs of what a stem made.

        A state is the input of two cells, and all that either does with it begins with a ReLU. One for both saves
        the largest activations; the last cell's output goes to the classifier without.
        """
        made = {id(state): F.relu(state) for state in states}
        return [made[id(state)] for state in states]

    def behind(self, output: Tensor) -> Tensor:
        """Return the ReLU of ``output``, in its place."""
        return F.relu(output, inplace=True)

    def size(self, state: Tensor) -> int:
        """Return the bytes of ``state``."""
        return state.numel() * state.element_size()

    def activated(self, inputs: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return the ReLUs of ``inputs``; on a GPU, they are a part of most operations that read them."""
        if device_kind(inputs[0]) == "cuda":
            return {}
        return {number: F.relu(state) for number, state in enumerate(inputs)}

    def input(self, module: nn.Module, output: Tensor) -> Tensor:
        """Return the input that ``module`` makes of ``output``."""
        assert isinstance(module, FactorizedReduce | ReLUConvBN)
        return module.activated(output)

    def cell(self, activated: dict[int, Tensor]) -> PlainCell:
        """Return a cell that begins."""
        return PlainCell(dict(activated))

    def mean(self, output: Tensor) -> Tensor:
        """Return the mean of all pixels."""
        return mean_of_pixels(output)


class PlainCell:
    """A cell of :class:`PlainLayers`; the ReLU of a state is done once."""

    def __init__(self, activated: dict[int, Tensor]) -> None:
        self._activated = activated
        self._nodes: list[Tensor | None] = []

    def edge(self, module: nn.Module, number: int, source: Tensor) -> Tensor:
        """Return the output of ``module`` on the state ``source``."""
        fused = isinstance(module, ReLUFirst) and module.fuses(source)
        if isinstance(module, ReLUFirst | FactorizedReduce) and not fused:
            if number not in self._activated:
                self._activated[number] = F.relu(source)
            return module.activated(self._activated[number])
        out: Tensor = module(source)
        return out

    def node(self, edges: Sequence[Tensor]) -> Tensor | None:
        """Return the sum of ``edges``."""
        self._nodes.append(functools.reduce(torch.add, edges) if edges else None)
        return self._nodes[-1]

    def end(self, joined: States | None) -> Tensor:
        """Return the nodes side by side (N, nodes * C, H, W), zeros for those that are not ``joined``."""
        if joined is None:
            return concatenate_nodes(self._nodes)
        return concatenate_nodes([node if at in joined else None for at, node in enumerate(self._nodes, 2)])


@dataclass(frozen=True)
class Common:
    """Activations of one batch of images that are the same for all architectures, see :meth:`SharedNetwork.common`.

    ``layers`` say of what kind they are. ``inputs`` are the two preprocessed inputs of the first cell, ``second``
    is the first input of the second cell.
    ``worth`` names the operations of the first cell whose outputs are kept, and ``values`` has the outputs so far.
    ``repeated`` are the normal cells of several architectures. For the last of them, and its number of cells before
    the first reduction, ``beginning`` has the states behind these cells.
    """

    layers: Layers
    inputs: tuple[Any, Any]
    second: Any
    worth: frozenset[Choice] = frozenset()
    values: dict[Choice, Any] = field(default_factory=dict)
    activated: dict[int, Tensor] = field(default_factory=dict)
    repeated: frozenset[Cell] = frozenset()
    beginning: dict[tuple[Cell, int], tuple[Any, Any]] = field(default_factory=dict)


class SharedCell:
    """One cell of shared weights; running it computes one architecture's edges only.

    Its output has all nodes side by side. Those that a family does not join are zeros there: so what reads the
    output has the same weights for the same node in all architectures.
    """

    preprocess_0: FactorizedReduce | ReLUConvBN
    preprocess_1: FactorizedReduce | ReLUConvBN
    family: CellFamily

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        """Return the shared operation ``name`` from state ``source`` to ``node``."""
        raise NotImplementedError

    def owner(self, node: int, source: int, name: str) -> nn.Module:
        """Return the module with the weights of the operation: the operation itself, or one that contains it."""
        return self.operation(node, source, name)

    def forward(self, layers: Layers, before: Any, last: Any, cell: Cell) -> Any:  # noqa: ANN401
        """Return the output of ``cell`` from those of the two cells before."""
        return self.along(
            layers, (layers.input(self.preprocess_0, before), layers.input(self.preprocess_1, last)), cell
        )

    def along(self, layers: Layers, inputs: tuple[Any, Any], cell: Cell, common: Common | None = None) -> Any:  # noqa: ANN401
        """Return the output of ``cell`` from its preprocessed ``inputs``."""
        states: list[Any] = list(inputs)
        run = layers.cell({} if common is None else common.activated)
        for number, node in enumerate(cell):
            edges = []
            for edge in node:
                if not edge.is_real:
                    continue
                source = states[edge.source]
                assert source is not None  # Genotype refuses edges from empty nodes.
                choice = (number, edge.source, edge.operation)
                kept = {} if common is None or choice not in common.worth else common.values
                if choice not in kept:
                    kept[choice] = run.edge(self.operation(*choice), edge.source, source)
                edges.append(kept[choice])
            states.append(run.node(edges))
        return run.end(None if self.family.join == "all" else family_joined(cell, self.family))


def require_shared(spec: NetworkSpec, genotype: Genotype) -> None:
    """Check that ``genotype`` can run in a network ``spec`` with shared weights.

    Raises:
        SpecError: its cells are of another family, or join other states than their family.
    """
    spec.require_family(genotype)
    if genotype.normal_joined is not None or genotype.reduce_joined is not None:
        raise SpecError("the genotype joins other states than its family: it cannot share weights")


class SharedNetwork:
    """The layers of one size whose weights the architectures of that size share.

    Networks of blocks have a :meth:`chain` in the place of cells.
    """

    spec: NetworkSpec
    stem: Stem
    classifier: nn.Linear

    def shared_cells(self) -> Sequence[SharedCell]:
        """Return the cells, first to last."""
        raise NotImplementedError

    def chain(self, genotype: Genotype) -> Sequence[nn.Module]:
        """Return the blocks of ``genotype``, first to last, and the convolution behind them."""
        raise NotImplementedError

    def forward(self, x: Tensor, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for images (N, C_in, H, W)."""
        return self.along(self.common(x, (genotype,)), genotype)

    def common(self, x: Tensor, genotypes: Sequence[Genotype] = (), room: int = 0) -> Common:
        """Return the activations for images ``x`` (N, C_in, H, W) that are the same for all architectures.

        Many of ``genotypes`` have the same operations on the inputs of the first cell. The first architecture that
        computes one of the most frequent of them keeps its output for the others. Those with the same normal cell
        have the same states before the first reduction, which are kept for the next one. All that is kept has up to
        ``room`` bytes.
        """
        return self.common_of(self.layers(x, genotypes), run_stem(self.stem, x), genotypes, room)

    def layers(self, x: Tensor, genotypes: Sequence[Genotype]) -> Layers:
        """Return how ``genotypes`` are computed on the device of ``x`` without a way back."""
        if device_kind(x) == "cuda" and not torch.is_grad_enabled() and can_tape(self.spec, genotypes):
            return Tape()
        return PlainLayers()

    def common_of(
        self, layers: Layers, states: Sequence[Tensor], genotypes: Sequence[Genotype] = (), room: int = 0
    ) -> Common:
        """Return the same as :meth:`common` for the two ``states`` that the stem made."""
        if self.spec.blocks is not None:
            return Common(layers, (states[0], states[-1]), None)
        before, last = layers.begin(states)
        first, second = self.shared_cells()[:2]
        inputs = (layers.input(first.preprocess_0, before), layers.input(first.preprocess_1, last))
        worth: frozenset[Choice] = frozenset()
        repeated: frozenset[Cell] = frozenset()
        activated: dict[int, Tensor] = {}
        if room:
            size = layers.size(inputs[0])
            users = Counter(genotype.normal for genotype in genotypes)
            kept = 2 * self.spec.cell_family.nodes * size
            if self.spec.reductions[0] >= 2 and kept <= room // 2:
                repeated = frozenset(cell for cell, count in users.items() if count > 1)
            # Those with the same normal cell run it once, so they count as one user of its operations.
            cells = users if repeated else users.elements()
            worth = _worth_keeping(cells, size, room - (kept if repeated else 0))
            activated = layers.activated(inputs)
        return Common(
            layers, inputs, layers.input(second.preprocess_0, last), worth, activated=activated, repeated=repeated
        )

    def along(self, common: Common, genotype: Genotype) -> Tensor:
        """Return the logits (N, classes) of ``genotype`` for the images of ``common``."""
        logits: Tensor = self.classifier(self.features(common, genotype))
        return logits

    def features(self, common: Common, genotype: Genotype) -> Tensor:
        """Return what the classifier reads for the images of ``common``: (N, channels of the last cell)."""
        return common.layers.mean(self.last_output(common, genotype))

    def last_output(self, common: Common, genotype: Genotype) -> Any:  # noqa: ANN401 -- of the layers' own kind
        """Return the output of the last cell for the images of ``common``.

        Raises:
            SpecError: see :func:`require_shared`.
        """
        require_shared(self.spec, genotype)
        if self.spec.blocks is not None:
            state = common.inputs[1]
            for block in self.chain(genotype):
                state = block(state)
            return state
        layers = common.layers
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
            out = cell.forward(layers, before, last, self._kind(genotype, index))
            before, last = last, out if index == len(cells) - 1 else layers.behind(out)
        return last

    def _begin(self, common: Common, genotype: Genotype, cells: int) -> tuple[Any, Any]:
        """Return the last two outputs behind the first ``cells``, as later cells read them."""
        layers = common.layers
        first, second, *others = self.shared_cells()[:cells]
        before = layers.behind(first.along(layers, common.inputs, self._kind(genotype, 0), common))
        inputs = (common.second, layers.input(second.preprocess_1, before))
        last = layers.behind(second.along(layers, inputs, self._kind(genotype, 1)))
        for index, cell in enumerate(others, 2):
            before, last = last, layers.behind(cell.forward(layers, before, last, self._kind(genotype, index)))
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
