"""Shared layers on a GPU by the operations of :mod:`cars_hw.nn.fused_states`, and their way back.

A tape notes how to go back from each operation. Gradients of a state are added where they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from cars_hw.nn.fused_parts import WIDEST, weight_parts
from cars_hw.nn.fused_states import OPS
from cars_hw.nn.layers import Depthwise, DilatedDepthwise, FactorizedReduce, MaxPool, Normalization, ReLUFirst
from cars_hw.nn.operations import make_operation
from cars_hw.nn.taped_values import Edge, Output, State, WeightGradients
from cars_hw.space.families import DARTS, FAMILIES
from cars_hw.space.genotype import NODES, Genotype, States
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations.none import NONE

Behind = tuple[Tensor, Tensor, Tensor, Tensor]
"""The gradient of a normalised state, the sums for it, the state, and its statistics."""


@dataclass(eq=False)
class Tape:
    """What was computed, and how to go back; one that is not ``kept`` only computes.

    ``compute`` computes an operation by its name. A tape is one of :class:`cars_hw.nn.paths.Layers`, whose methods
    it has.
    """

    kept: bool = False
    weights: WeightGradients = field(default_factory=WeightGradients)
    begun: list[Output] = field(default_factory=list)
    compute: Callable[..., Any] = field(default=lambda name, *given: getattr(OPS, name)(*given))
    _steps: list[Callable[[], None]] = field(default_factory=list)

    def begin(self, states: Sequence[Tensor]) -> list[Output]:
        """Return the outputs of a stem (N, C, H, W); one that is there twice is one output."""
        made = {id(state): Output.of(state) for state in states}
        self.begun = list(made.values())
        return [made[id(state)] for state in states]

    def behind(self, output: Output) -> Output:
        """Return ``output``: its ReLU is done where it is read."""
        return output

    def size(self, state: State) -> int:
        """Return the bytes of ``state``."""
        return state.x.numel() * state.x.element_size()

    def activated(self, inputs: Sequence[State]) -> dict[int, Tensor]:
        """Return no ReLUs that cells share."""
        del inputs
        return {}

    def input(self, module: nn.Module, output: Output) -> State:
        """Return the input of a cell that ``module`` makes of ``output``."""
        made, back = self._pointwise(module, output.x, None, output.receives)

        def step() -> None:
            if made.gradient is not None:
                assert made.stats is not None
                (sums,) = OPS.norm_sums([made.gradient], [made.x], [made.stats])
                back(made.gradient, sums)

        self.note(step)
        return made

    def cell(self, activated: dict[int, Tensor]) -> TapedCell:
        """Return a cell that begins."""
        del activated
        return TapedCell(self)

    def mean(self, output: Output) -> Tensor:
        """Return the means of all pixels (N, S C)."""
        made: Tensor = OPS.mean_pixels(output.x)
        return made

    def note(self, step: Callable[[], None]) -> None:
        """Note a step of the way back."""
        if self.kept:
            self._steps.append(step)

    def back(self, output: Output, gradient: Tensor) -> dict[Tensor, Tensor]:
        """Go back from the ``gradient`` of the :meth:`mean` of ``output``; return the gradients of the weights that
        were read, by the weights.
        """
        self.weights.allocate(output.x)
        into, _ = output.receives()
        OPS.mean_pixels_gradient(gradient.contiguous(), into)
        while self._steps:
            # What only a step needs is free behind it.
            self._steps.pop()()
        return self.weights.added()

    def go_back(self) -> None:
        """Take the steps of the way back, and keep them, since a recording takes them again."""
        for step in reversed(self._steps):
            step()

    def forget(self) -> None:
        """Forget the steps, which keep the tape alive."""
        self._steps.clear()

    def edge(self, module: nn.Module, source: State) -> Edge:
        """Return the output of a candidate operation on ``source``."""
        made = self._edge(module, source)
        # A way back would keep what is between.
        return made if self.kept else Edge(made.value, source)

    def _edge(self, module: nn.Module, source: State) -> Edge:
        if isinstance(module, nn.Identity):
            return Edge(State(source.x, source.stats), source)
        if isinstance(module, FactorizedReduce):

            def receives() -> tuple[Tensor, bool]:
                into, add = source.receives()
                return into.permute(0, 2, 3, 1)[None], add

            x = source.x.permute(0, 2, 3, 1)[None]
            made, back = self._pointwise(module, x, source.stats, receives)
            return Edge(made, source, back, normalized=True)
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            return self._pooled(module, source)
        return self._separable(list(cast(ReLUFirst, module)), source)

    def _pointwise(
        self, module: nn.Module, x: Tensor, x_stats: Tensor | None, receives: Callable[[], tuple[Tensor, bool]]
    ) -> tuple[State, Callable[[Tensor, Tensor | None], None]]:
        """Return the 1x1 convolution of the ReLU of states (S, N, H, W, C), and its way back."""
        convolutions = [module.conv_1, module.conv_2] if isinstance(module, FactorizedReduce) else [_at(module, 1)]
        weights = [cast(Tensor, one.weight) for one in convolutions]
        rows = [_as(weight, x).reshape(len(weight), -1) for weight in weights]
        y, stats = self.compute("pointwise", x, x_stats, rows)
        slots = []
        if self.kept:
            pixels = y.numel() // y.shape[1]
            widest, largest = max(x.shape[-1], y.shape[1]), max(weight.numel() for weight in weights)
            parts = weight_parts(pixels, widest, x.numel(), largest)
            slots = [self.weights.reserve(weight, parts) for weight in weights]

        def back(gradient: Tensor, sums: Tensor | None) -> None:
            OPS.pointwise_gradient(
                gradient, sums, y, stats, x, x_stats, rows, self.weights.fill(slots), *receives()
            )

        return State(y, stats), back

    def _pooled(self, module: nn.MaxPool2d | nn.AvgPool2d, source: State) -> Edge:
        stride = cast(int, module.stride)
        back: Callable[[Tensor, Tensor | None], None]
        # A normalisation changes neither the order nor the mean of pixels. So that of the source is still to do.
        if isinstance(module, nn.AvgPool2d):
            y = self.compute("avg_pool", source.x, stride)

            def back(gradient: Tensor, _: Tensor | None) -> None:
                OPS.avg_pool_gradient(gradient, stride, *source.receives())
        else:
            y, places = self.compute("max_pool", source.x, stride, self.kept)

            def back(gradient: Tensor, _: Tensor | None) -> None:
                OPS.max_pool_gradient(gradient, places, stride, *source.receives())

        return Edge(State(y, source.stats), source, back)

    def _separable(self, modules: Sequence[nn.Module], source: State) -> Edge:
        """Return ReLU, depthwise and pointwise convolution, and normalisation, once or twice."""
        first, back = self._unit(modules[1], modules[2], source, between=False)
        if len(modules) == 4:
            return Edge(first, source, lambda gradient, sums: _nothing(back(gradient, sums)), normalized=True)
        second, back_again = self._unit(modules[5], modules[6], first, between=True)

        def both(gradient: Tensor, sums: Tensor | None) -> None:
            sums = back_again(gradient, sums)
            assert first.gradient is not None
            back(first.gradient, sums)
            first.gradient = None

        return Edge(second, source, both, normalized=True)

    def _unit(
        self, depthwise: nn.Module, pointwise: nn.Module, source: State, *, between: bool
    ) -> tuple[State, Callable[[Tensor, Tensor | None], Tensor]]:
        """Return ReLU, depthwise and pointwise convolution of ``source``, and the way back.

        A source ``between`` two of them has no other reader. So the way back returns the sums for the gradient of
        its normalisation.
        """
        convolution = cast(Depthwise | DilatedDepthwise, depthwise)
        steps = convolution.stride[0], convolution.dilation[0]
        weights = convolution.weight, cast(Tensor, pointwise.weight)
        x, x_stats = source.x, source.stats
        depth = _as(weights[0], x).contiguous()
        point = _as(weights[1], x).reshape(weights[1].shape[:2])
        y, stats = self.compute("separable", x, x_stats, depth, point, *steps)
        slots = []
        if self.kept:
            channels = x.shape[1]
            slots = [
                self.weights.reserve(
                    weight, weight_parts(of.numel() // channels, channels, of.numel(), weight.numel())
                )
                for weight, of in zip(weights, (x, y), strict=True)
            ]

        def back(gradient: Tensor, sums: Tensor | None) -> Tensor:
            for_depth, for_point = self.weights.fill(slots)
            middle = OPS.separable_point_gradient(
                gradient, sums, y, stats, x, x_stats, depth, point, *steps, for_point
            )
            into, add = source.receives()
            found: Tensor = OPS.separable_depth_gradient(
                middle, x, x_stats, depth, *steps, for_depth, into, add, between
            )
            return found

        return State(y, stats), back


@dataclass(eq=False)
class TapedCell:
    """A cell of a tape: its nodes lie in one tensor."""

    tape: Tape
    _nodes: list[State | None] = field(default_factory=list)
    _output: Output | None = None

    def edge(self, module: nn.Module, number: int, source: State) -> Edge:
        """Return the output of the operation ``module`` on the state ``source``, which has this ``number``."""
        del number
        return self.tape.edge(module, source)

    def node(self, edges: Sequence[Edge]) -> State | None:
        """Return the sum of one or two ``edges``; None for none."""
        if not edges:
            self._nodes.append(None)
            return None
        first, *others = edges
        like = first.value.x
        batch, channels, height, width = like.shape
        if self._output is None:
            self._output = Output(like.new_empty(NODES, batch, height, width, channels))
        second = others[0].value if others else None
        made = State(self._output.x[len(self._nodes)].permute(0, 3, 1, 2))
        other = (None, None) if second is None else (second.x, second.stats)
        OPS.sum_states(like, first.value.stats, *other, made.x)
        self._nodes.append(made)
        self.tape.note(lambda: go_back(made, edges))
        return made

    def end(self, joined: States | None) -> Output:
        """Return the nodes, which are all joined."""
        assert joined is None  # can_tape refuses families that join loose ends.
        assert self._output is not None  # A genotype has a node with an edge.
        for number, node in enumerate(self._nodes):
            if node is None:
                self._output.x[number].zero_()
        self.tape.note(self._share_gradient)
        return self._output

    def _share_gradient(self) -> None:
        """Let the nodes' gradients be those that later cells made; edges between nodes add to them."""
        if self._output is not None and self._output.gradient is not None:
            for node, gradient in zip(self._nodes, self._output.gradient, strict=True):
                if node is not None:
                    node.gradient = gradient.permute(0, 3, 1, 2)


def go_back(node: State, edges: Sequence[Edge]) -> None:
    """Go back from a sum of ``edges``."""
    gradient = node.gradient
    if gradient is None:
        return
    normalized = [edge.value for edge in edges if edge.normalized]
    sums: Iterator[Tensor] = iter(())
    if normalized:
        sums = iter(OPS.norm_sums([gradient], [one.x for one in normalized], [one.stats for one in normalized]))
    for edge in edges:
        if edge.back is not None:
            edge.back(gradient, next(sums) if edge.normalized else None)
    # Nothing reads the gradient after the last one that only passes it on.
    passing = [edge for edge in edges if edge.back is None]
    for edge in passing:
        edge.source.receive(gradient, give=edge is passing[-1])


def _nothing(_: object) -> None:
    """Forget a result."""


def _at(module: nn.Module, place: int) -> nn.Module:
    return cast(nn.Sequential, module)[place]


def _as(weight: Tensor, x: Tensor) -> Tensor:
    """Return ``weight`` in the type of ``x``, as autocast would."""
    return weight.detach().to(x.dtype)


@lru_cache(maxsize=4096)
def _computes(name: str, channels: int) -> bool:
    """Return whether a tape has operations for the shared operation ``name``."""
    with torch.device("meta"):
        return all(
            _is_known(make_operation(name, channels, stride, Normalization(False, False))) for stride in (1, 2)
        )


def _is_known(module: nn.Module) -> bool:
    if type(module) is ReLUFirst:
        return _is_separable(list(module))
    if isinstance(module, nn.AvgPool2d):
        return (module.kernel_size, module.padding, module.count_include_pad) == (3, 1, False)
    return type(module) in (nn.Identity, FactorizedReduce, MaxPool)


def _is_separable(modules: Sequence[nn.Module]) -> bool:
    kinds: tuple[type[nn.Module] | tuple[type[nn.Module], ...], ...]
    kinds = (nn.ReLU, (Depthwise, DilatedDepthwise), nn.Conv2d, nn.BatchNorm2d)
    return len(modules) in (4, 8) and all(
        isinstance(module, kinds[place % 4]) for place, module in enumerate(modules)
    )


def can_tape(spec: NetworkSpec, genotypes: Iterable[Genotype]) -> bool:
    """Return whether tapes can compute ``genotypes`` at the size of ``spec``."""
    if spec.base_family != DARTS:
        return False
    states = [shape.channels for shape in spec.stem_shapes()]
    layouts = spec.cells()
    if max(*states, *(layout.inner.channels for layout in layouts)) > WIDEST:
        return False
    names = {
        edge.operation for one in genotypes for cell in (one.normal, one.reduce) for node in cell for edge in node
    }
    # Its kernels are for the operations of DARTS.
    known = FAMILIES[DARTS].operations
    return all(name in known and (name == NONE or _computes(name, spec.channels)) for name in names)
