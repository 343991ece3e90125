"""A training pass that is put together from blocks, each of which serves all architectures that have it.

A block is the stem, the inputs of a cell, an operation on an edge, or the classifier with the loss: forward, or
back. What blocks hand to each other lies in tensors that stay: so the recording of a block can be replayed in the
pass of any architecture. Operations on the same edge write to the same tensors, because an architecture has one of
them.

The gradients of states are zero when a pass begins, and every block adds to them, in the order of a pass that is
not put together. So the results are the same, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.fused_states import OPS
from cars_hw.nn.network import run_stem
from cars_hw.nn.paths import Choice, SharedNetwork
from cars_hw.nn.slices import Layer, Slices, copies_of
from cars_hw.nn.tape import Tape, can_tape, go_back
from cars_hw.nn.taped_values import Edge, Output, State
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import NODES
from cars_hw.space.network_spec import NetworkSpec

PLACES: Final = sum(2 + node for node in range(NODES))
"""Where a cell can have an edge."""


class Do(Protocol):
    """Does the work of blocks."""

    def __call__(self, key: object, work: Callable[[], None], /, *, read: bool = False) -> None:
        """Run the ``work`` of the block with this ``key``, or replay its recording.

        The work reads and writes tensors that stay. If it is ``read``, later blocks also read tensors that it
        makes, so these have to be those of the last run, or of a recording that has been replayed. Such work may be
        run again.
        """


@dataclass(frozen=True)
class Head:
    """What the classifier needs of a step: the loss of logits, with gradients, and where both are written."""

    loss_of: Callable[[Tensor], Tensor]
    loss: Tensor
    logits: Tensor
    kind: object


@dataclass(eq=False)
class _Block:
    """A layer at its place, what its last forward run made, and the gradients of its weights, which stay."""

    key: object
    layer: Layer
    tape: Tape = field(default_factory=Tape)
    leaves: Sequence[Tensor] = ()
    edge: Edge | None = None
    source: State | None = None
    gradients: list[Tensor] = field(default_factory=list)

    def forget(self) -> None:
        """Drop what the last forward run made; a tape refers to itself by its steps."""
        self.tape.forget()
        self.tape, self.edge = Tape(), None

    def keep(self, found: Sequence[Tensor]) -> None:
        """Keep the gradients ``found`` of the leaves."""
        if not self.gradients:
            self.gradients.extend(torch.empty_like(one) for one in found)
        if found:
            torch._foreach_copy_(self.gradients, list(found))

    def go_back(self, like: Tensor, steps: Callable[[], None]) -> None:
        """Run the ``steps`` back, on a device like that of ``like``, and keep the gradients of the weights."""
        self.tape.weights.allocate(like)
        steps()
        found = self.tape.weights.added()
        self.keep([found[leaf] for leaf in self.leaves])


@dataclass(eq=False)
class _Cell:
    """The states of a cell: its inputs, and its nodes, which are the output."""

    inputs: list[State] = field(default_factory=list)
    nodes: list[State] = field(default_factory=list)
    output: Output | None = None


class ComposedPasses:
    """Training passes of architectures of the size of ``slices.shared``, which :func:`can_tape` must allow.

    ``images`` (N, C, H, W) are read in place, and ``autocast`` decides the type of activations, ``low`` if not
    None. Each block is done by ``do``.
    """

    def __init__(
        self,
        slices: Slices,
        images: Tensor,
        autocast: Callable[[], torch.autocast],
        low: torch.dtype | None,
        do: Do,
    ) -> None:
        self._slices = slices
        self._frame = slices.frame(slices.shared.spec)
        self._images = images
        self._autocast = autocast
        self._low = low
        self._do = do
        self._blocks: dict[object, _Block] = {}
        self._cells = [_Cell() for _ in self._frame.layouts]
        # One state is both inputs of the first cell, or there are two.
        self._begun: list[Output] = []
        self._kept: dict[object, Tensor] = {}
        self._zeroed: list[Tensor] = []

    def run(self, architecture: Architecture, head: Head) -> dict[object, Tensor]:
        """Compute the pass of ``architecture``; return the gradients of its weights by the keys of their places.

        Weights of cells without a reader have none. The gradients are valid until the next pass.
        """
        if self._zeroed:
            torch._foreach_zero_(self._zeroed)
        with torch.no_grad():
            edges = self._forward(architecture)
            self._classify(head)
            done = self._back(edges)
        return _joined(done)

    def close(self) -> None:
        """Drop all that is kept, without a garbage collection."""
        for block in self._blocks.values():
            block.forget()
        self._blocks.clear()
        self._kept.clear()
        self._zeroed.clear()

    def _forward(self, architecture: Architecture) -> list[list[list[_Block]]]:
        """Compute all cells, and return the blocks of the edges of each node of each cell."""
        self._do("stem", self._run_stem, read=True)
        found = []
        for index, (cell, layout) in enumerate(zip(self._cells, self._frame.layouts, strict=True)):
            self._do(("inputs", index), partial(self._make_inputs, index), read=True)
            layers = dict(self._slices.operations(self._frame, index, architecture))
            nodes = []
            for number, node in enumerate(architecture.genotype.cell(layout.reduction)):
                choices = [(number, edge.source, edge.operation) for edge in node if edge.is_real]
                nodes.append([self._edge(index, choice, layers[choice]) for choice in choices])
                if nodes[-1]:
                    self._add(cell, number, nodes[-1])
            assert cell.output is not None  # A genotype has a node with an edge.
            for number, blocks in enumerate(nodes):
                if not blocks:
                    cell.output.x[number].zero_()
            found.append(nodes)
        return found

    def _run_stem(self) -> None:
        """Compute the states that the first cells read."""
        module, _ = self._bound(self._frame.stem)
        with self._autocast():
            states = run_stem(module, self._images)
        made = [Output.of(state).x for state in dict.fromkeys(states)]
        if not self._begun:
            self._begun = [Output(one, self._zeros(one)) for one in made]
        for output, x in zip(self._begun, made, strict=True):
            if output.x is not x:
                output.x.copy_(x)

    def _outputs(self, index: int) -> tuple[Output, Output]:
        """Return the outputs that cell ``index`` reads."""
        before = [self._begun[0], self._begun[-1]]
        made = [cell.output for cell in self._cells[:index]]
        first, second = [*before, *made][index : index + 2]
        assert first is not None
        assert second is not None
        return first, second

    def _make_inputs(self, index: int) -> None:
        cell = self._cells[index]
        for number, output in enumerate(self._outputs(index)):
            place = (index, number)
            block = self._block(place, self._frame.inputs[index][number])
            module, block.leaves = self._bound(block.layer, place)
            block.forget()
            block.tape = Tape(kept=True, compute=self._keeping(place))
            made = block.tape.input(module, output)
            if len(cell.inputs) == number:
                cell.inputs.append(State(made.x, made.stats, self._zeros(made.x)))
            made.gradient = cell.inputs[number].gradient

    def _edge(self, index: int, choice: Choice, layer: Layer) -> _Block:
        """Compute the operation of an edge of cell ``index``, and return its block."""
        number, source, _ = choice
        key = (index, choice)
        block = self._block(key, layer)
        cell = self._cells[index]
        block.source = state = [*cell.inputs, *cell.nodes][source]

        def work() -> None:
            module, block.leaves = self._bound(layer, key)
            block.tape = Tape(kept=True, compute=self._keeping((index, number, source)))
            block.edge = block.tape.edge(module, state)

        if block.edge is None or block.edge.back is not None:
            self._do(("edge", *key), work, read=True)
        # Otherwise the state is passed on.
        return block

    def _add(self, cell: _Cell, number: int, blocks: Sequence[_Block]) -> None:
        """Compute node ``number`` of ``cell``, the sum of one or two edges."""
        values = [_made(block).value for block in blocks]
        if cell.output is None:
            batch, channels, height, width = values[0].x.shape
            x = values[0].x.new_empty(NODES, batch, height, width, channels)
            gradients = self._zeros(x)
            cell.output = Output(x, gradients)
            for one, gradient in zip(x, gradients, strict=True):
                cell.nodes.append(State(one.permute(0, 3, 1, 2), None, gradient.permute(0, 3, 1, 2)))
        first, second = values[0], (*values, None)[1]
        other = (None, None) if second is None else (second.x, second.stats)
        OPS.sum_states(first.x, first.stats, *other, cell.nodes[number].x)

    def _classify(self, head: Head) -> None:
        """Compute the loss, and the gradients of the last output and of the classifier."""
        last = self._cells[-1].output
        assert last is not None
        block = self._block("classifier", self._frame.classifier)

        def work() -> None:
            with torch.enable_grad(), self._autocast():
                module, leaves = self._bound(block.layer)
                features = OPS.mean_pixels(last.x).requires_grad_()
                logits = module(features)
                loss = head.loss_of(logits)
            gradient, *found = torch.autograd.grad(loss, [features, *leaves])
            OPS.mean_pixels_gradient(gradient.contiguous(), last.gradient)
            block.keep(found)
            head.loss.copy_(loss.detach())
            head.logits.copy_(logits.detach())

        self._do(("classifier", head.kind), work)

    def _back(self, edges: Sequence[Sequence[Sequence[_Block]]]) -> list[_Block]:
        """Go back, and return the blocks whose weights have gradients, in the order of the way forward."""
        # The states and outputs that have a gradient, and the blocks that have been gone back.
        reached: set[object] = {self._cells[-1].output}
        done = [self._blocks["classifier"]]
        for index in reversed(range(len(self._cells))):
            cell, nodes = self._cells[index], edges[index]
            if cell.output in reached:
                reached.update(state for state, blocks in zip(cell.nodes, nodes, strict=True) if blocks)
            for number in reversed(range(NODES)):
                if cell.nodes[number] not in reached:
                    continue
                # As on a tape, those that only pass the gradient on are last.
                for block in sorted(nodes[number], key=lambda block: _made(block).back is None):
                    self._do(("back", block.key), partial(self._edge_back, block, cell.nodes[number]))
                    reached.add(block.source)
                done += reversed(nodes[number])
            live = [number for number in (0, 1) if cell.inputs[number] in reached]
            if live:
                self._do(("inputs back", index, *live), partial(self._inputs_back, index, live))
            for number in live:
                reached.add(self._outputs(index)[number])
                done.append(self._blocks[index, number])
        begun = [number for number, output in enumerate(self._begun) if output in reached]
        if begun:
            self._do(("stem back", *begun), partial(self._stem_back, begun))
            done.append(self._blocks["stem"])
        return done[::-1]

    def _edge_back(self, block: _Block, node: State) -> None:
        assert node.gradient is not None
        block.go_back(node.gradient, lambda: go_back(node, [_made(block)]))

    def _inputs_back(self, index: int, live: Sequence[int]) -> None:
        # The second first, as on a tape.
        for number in reversed(live):
            block = self._blocks[index, number]
            block.go_back(self._cells[index].inputs[number].x, block.tape.go_back)

    def _stem_back(self, begun: Sequence[int]) -> None:
        """Compute the stem again, and the gradients of its weights."""
        block = self._block("stem", self._frame.stem)
        with torch.enable_grad(), self._autocast():
            module, leaves = self._bound(block.layer)
            states = list(dict.fromkeys(run_stem(module, self._images)))
        gradients = [_gradient(self._begun[number])[0].permute(0, 3, 1, 2) for number in begun]
        block.keep(torch.autograd.grad([states[number] for number in begun], leaves, gradients))

    def _block(self, key: object, layer: Layer) -> _Block:
        return self._blocks.setdefault(key, _Block(key, layer))

    def _bound(self, layer: Layer, place: object | None = None) -> tuple[Any, list[Tensor]]:
        """Return the module of ``layer`` with its present weights, and these.

        With a ``place``, the way back reads them, too: so copies of weights lie in tensors of their own.
        """
        copies = None
        if self._low is not None and layer.places:
            copies = copies_of((one.parameter for one in layer.places), self._low)
        values = layer.values(own_leaves=True, copies=copies)
        if place is not None:
            # Recordings share a pool of memory. What one allocates may be overwritten by the replay of another.
            shared = {one.parameter.untyped_storage().data_ptr() for one in layer.places}
            values = [
                one
                if one.untyped_storage().data_ptr() in shared
                else self._in_place((place, "weight", number), one)
                for number, one in enumerate(values)
            ]
        return layer.bound(values, own=True), values

    def _in_place(self, key: object, value: Tensor) -> Tensor:
        """Return the tensor with this ``key``, which stays, with the numbers of ``value``."""
        own = self._kept.setdefault(key, value)
        if own is not value:
            own.copy_(value)
        return own

    def _zeros(self, like: Tensor) -> Tensor:
        """Return a gradient of ``like``, which is zero when a pass begins."""
        self._zeroed.append(torch.zeros_like(like))
        return self._zeroed[-1]

    def _keeping(self, place: object) -> Callable[..., Any]:
        """Return what computes an operation and keeps its results, in the same tensors whatever computed them."""
        numbers = count()

        def compute(name: str, *given: Any) -> Any:  # noqa: ANN401 -- of PyTorch's operations
            made = getattr(OPS, name)(*given)
            several = made if isinstance(made, tuple) else (made,)
            kept = [self._in_place((place, next(numbers), one.shape, one.dtype), one) for one in several]
            return tuple(kept) if isinstance(made, tuple) else kept[0]

        return compute


def most_blocks(spec: NetworkSpec) -> int:
    """Return the most blocks that passes of all architectures of the size of ``spec`` have."""
    operations = len(spec.cell_family.real_operations)
    # Back, the inputs of a cell are one of three blocks, by which of them have a gradient. So are the states of the
    # stem, and labels are of two kinds.
    return len(spec.cells()) * (2 * PLACES * operations + 4) + 4 + 2


def most_bytes(spec: NetworkSpec, batch: int, bytes_a_number: int) -> int:
    """Return the bytes of the states that stay for passes of ``batch`` images, all weights aside."""
    # Inputs and nodes with their gradients. On an edge, two states of separable convolutions and the places of a
    # pooling, which are bytes.
    total = 0
    for layout in spec.cells():
        read, made = (batch * math.prod(shape) for shape in (layout.inner, layout.output))
        total += 4 * read * bytes_a_number + made * ((2 * NODES + 2 * PLACES) * bytes_a_number + PLACES)
    return total


def can_compose(shared: SharedNetwork, images: Tensor, architecture: Architecture) -> bool:
    """Return whether a pass of ``architecture`` by the ``shared`` weights can be composed.

    It can on a GPU, at the size of the weights, if a tape can compute it. Such a genotype has no node that reads a
    state twice.
    """
    genotype, spec = architecture
    return device_kind(images) == "cuda" and spec == shared.spec and can_tape(spec, (genotype,))


def _gradient(output: Output) -> Tensor:
    assert output.gradient is not None
    return output.gradient


def _made(block: _Block) -> Edge:
    assert block.edge is not None
    return block.edge


def _joined(blocks: Sequence[_Block]) -> dict[object, Tensor]:
    """Return the gradients of the weights of ``blocks`` by their keys; weights that several read have the sum."""
    found: dict[object, Tensor] = {}
    for block in blocks:
        for key, gradient in zip(block.layer.keys, block.gradients, strict=True):
            found[key] = found[key] + gradient if key in found else gradient
    return found
