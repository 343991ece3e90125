"""Networks of smaller sizes inside the shared weights of a larger SuperNet.

An architecture runs the first channels of every tensor, and the first cells of each stage. The output of a cell is
the concatenation of its nodes, so a layer that reads it takes the first channels of each of these parts. The
output of the stem for small images has three such parts. Batch normalisation uses the statistics of the batch, so a
slice of channels needs no running averages of its own.

An architecture of a smaller resolution gets reduced images, see :mod:`cars_hw.nn.reduced_images`. No weight depends
on the resolution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from cars_hw.errors import SpecError
from cars_hw.nn.layers import FactorizedReduce, ReLUConvBN
from cars_hw.nn.network import Stem, make_preprocessing, make_stem
from cars_hw.nn.paths import SHARED, Choice, Common, SharedCell, SharedNetwork, require_shared
from cars_hw.nn.reduced_images import reduced_images
from cars_hw.nn.skeletons import Skeleton, named_weights, on_no_device, operation_template
from cars_hw.nn.taped_network import is_taped, taped_logits
from cars_hw.space.architecture import Architecture
from cars_hw.space.families import CellFamily
from cars_hw.space.genotype import Genotype, States
from cars_hw.space.network_spec import STEM_MULTIPLIER, CellLayout, NetworkSpec
from cars_hw.space.operations import OPERATIONS

_FRAMES: Final = 1024
"""The number of sizes whose modules are kept."""


class Window(NamedTuple):
    """A slice of a tensor: the size, stride and offset of a view of the same memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """Return the view of ``tensor``, whose shape and memory format are those that the window was made for."""
        return tensor.as_strided(self.size, self.stride, tensor.storage_offset() + self.offset)


class Place(NamedTuple):
    """Where a weight of an architecture lies: in a shared parameter, which it fills if ``window`` is None."""

    parameter: Tensor
    window: Window | None

    @property
    def key(self) -> tuple[int, Window | None]:
        """A key that is the same for the same elements of the same parameter."""
        return id(self.parameter), self.window

    def of(self, tensor: Tensor) -> Tensor:
        """Return the place in ``tensor``, which has the shape of the parameter, such as its gradient."""
        return tensor if self.window is None else self.window.of(tensor)


class SlicedCell(SharedCell):
    """One cell of an architecture, with the operations of its own edges only."""

    def __init__(
        self,
        inputs: tuple[FactorizedReduce | ReLUConvBN, FactorizedReduce | ReLUConvBN],
        operations: Mapping[Choice, nn.Module],
        family: CellFamily,
    ) -> None:
        self.preprocess_0, self.preprocess_1 = inputs
        self.family = family
        self.operations = operations

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        """Return the operation ``name`` from state ``source`` to ``node``."""
        return self.operations[node, source, name]


class Path(SharedNetwork):
    """An architecture with a copy of its weights. After the shared weights have changed, make a new one.

    ``leaves`` are its trained weights. They require gradients if autograd was recording when they were made.
    ``places`` says where each of them lies in the shared weights. Weights at the same place are one leaf. Leaves
    may overlap where operations of different kernels share weights.
    """

    def __init__(
        self,
        architecture: Architecture,
        stem: Stem,
        cells: Sequence[SharedCell],
        classifier: nn.Linear,
        *,
        leaves: Sequence[Tensor],
        places: Sequence[Place],
        blocks: Sequence[nn.Module] = (),
    ) -> None:
        self.genotype, self.spec = architecture
        self.stem = stem
        self.classifier = classifier
        self.leaves = leaves
        self.places = places
        self._cells = cells
        self._blocks = blocks

    def shared_cells(self) -> Sequence[SharedCell]:
        """Return the cells, first to last."""
        return self._cells

    def chain(self, genotype: Genotype) -> Sequence[nn.Module]:
        """Return the blocks of the architecture, and the convolution behind them."""
        del genotype
        return self._blocks

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) for images ``x`` (N, C_in, H, W), which may have a larger resolution."""
        if is_taped(self, x, self.genotype):
            return taped_logits(self, reduced_images(x, self.spec.resolution), self.genotype, list(self.leaves))
        return self.forward(x, self.genotype)

    def common(self, x: Tensor, genotypes: Sequence[Genotype] = (), room: int = 0) -> Common:
        """Reduce the images ``x`` to the resolution of the network; then see :meth:`SharedNetwork.common`."""
        return super().common(reduced_images(x, self.spec.resolution), genotypes, room)


Bound = Callable[[Any], Any]
"""Returns the module of a :class:`Layer`, with weights."""


class Slices:
    """All sizes within the shared weights of ``shared``, whose parameters must stay where they are in memory.

    Modules and places depend only on the size, so they are kept. Every :meth:`path` copies the weights again.
    """

    def __init__(self, shared: SharedNetwork) -> None:
        self.shared = shared
        self._cells = shared.shared_cells()
        self._layers: dict[object, Layer] = {}
        # Not an lru_cache of a method, which would keep this object and the weights until a garbage collection.
        self._frames: OrderedDict[NetworkSpec, Frame] = OrderedDict()

    def path(
        self,
        architecture: Architecture,
        *,
        own_leaves: bool = False,
        copies: Mapping[Tensor, Tensor] | None = None,
    ) -> Path:
        """Return ``architecture`` with a copy of its present weights.

        Weights that fill their parameter are not copied. They are the parameters themselves, or with ``own_leaves``
        new leaves of autograd in the same memory. What autograd has kept about the parameters, such as the stream
        of an earlier backward pass, then does not matter. With ``copies``, such as those of :func:`copies_of`, the
        values are those of the copies, and leaves have their type.

        Raises:
            SpecError: its size does not lie within that of the shared weights, or see
                :func:`~cars_hw.nn.paths.require_shared`.
        """
        places = self.places(architecture)
        leaves: dict[object, Tensor] = {}

        def bound(layer: Layer) -> Any:  # noqa: ANN401 -- a module of the kind that the layer is
            values = layer.values(own_leaves=own_leaves, copies=copies)
            for index, key in enumerate(layer.keys):
                if layer.trained[index]:
                    values[index] = leaves.setdefault(key, values[index])
            return layer.bound(values, own=own_leaves or copies is not None)

        stem, cells, classifier, blocks = self._modules(architecture, bound)
        return Path(
            architecture,
            stem,
            cells,
            classifier,
            blocks=blocks,
            leaves=[leaves[one.key] for one in places],
            places=places,
        )

    def _modules(
        self, architecture: Architecture, bound: Bound
    ) -> tuple[Stem, list[SharedCell], nn.Linear, list[nn.Module]]:
        """Return the modules of ``architecture``: stem, cells, classifier, and blocks in the place of cells."""
        frame = self.frame(architecture.network)
        stem = bound(frame.stem)
        cells: list[SharedCell] = [
            SlicedCell(
                (bound(inputs[0]), bound(inputs[1])),
                {choice: bound(layer) for choice, layer in self.operations(frame, index, architecture)},
                architecture.network.cell_family,
            )
            for index, inputs in enumerate(frame.inputs)
        ]
        return stem, cells, bound(frame.classifier), []

    def places(self, architecture: Architecture) -> list[Place]:
        """Return where each trained weight of ``architecture`` lies, in the order of :attr:`Path.leaves`."""
        return list(
            {
                key: place
                for _, layer in self._named_layers(architecture)
                for key, place, trained in zip(layer.keys, layer.places, layer.trained, strict=True)
                if trained
            }.values()
        )

    def weights_of(self, architecture: Architecture) -> dict[str, Tensor]:
        """Return copies of the weights of ``architecture``, by the names that they have in its Network.

        Raises:
            SpecError: its size does not lie within that of the shared weights, or see
                :func:`~cars_hw.nn.paths.require_shared`.
        """
        weights = {
            f"{prefix}.{name}": value.detach().clone()
            for prefix, layer in self._named_layers(architecture)
            for name, value in zip(layer.names, layer.values(), strict=True)
        }
        if architecture.network.blocks is None and architecture.network.cell_family.join == "loose":
            for name, joined in _readers(architecture, weights):
                weights[name] = _of_parts(weights[name], joined, architecture.network.cell_family.nodes)
        return weights

    def _named_layers(self, architecture: Architecture) -> Iterator[tuple[str, Layer]]:
        require_shared(architecture.network, architecture.genotype)
        frame = self.frame(architecture.network)
        yield "stem", frame.stem
        for index, inputs in enumerate(frame.inputs):
            for number, layer in enumerate(inputs):
                yield f"cells.{index}.preprocess_{number}", layer
            behind = [0] * architecture.network.cell_family.nodes
            for (node, _, _), layer in self.operations(frame, index, architecture):
                yield f"cells.{index}.nodes.{node}.{behind[node]}", layer
                behind[node] += 1
        yield "classifier", frame.classifier

    def operations(self, frame: Frame, index: int, architecture: Architecture) -> Iterator[tuple[Choice, Layer]]:
        """Yield the operation of each edge of cell ``index``."""
        layout, shared = frame.layouts[index], frame.cells[index]
        for number, node in enumerate(architecture.genotype.cell(layout.reduction)):
            for edge in node:
                if edge.is_real:
                    choice = (number, edge.source, edge.operation)
                    yield choice, self._operation(shared, choice, layout)

    def _operation(self, cell: int, choice: Choice, layout: CellLayout) -> Layer:
        channels = layout.inner.channels
        key = (cell, choice, channels)
        if key not in self._layers:
            _, source, name = choice
            template = operation_template(name, channels, 2 if layout.reduction and source < 2 else 1)
            module = self._cells[cell].owner(*choice)
            owners = named_weights(module)
            views = OPERATIONS[name].narrowed(
                {weight: value.detach() for weight, value in owners.items()},
                {weight: value.shape for weight, value in named_weights(template).items()},
            )
            places = {weight: place_of(owners[weight], view) for weight, view in views.items()}
            self._layers[key] = Layer.of(template, module, places)
        return self._layers[key]

    def frame(self, spec: NetworkSpec) -> Frame:
        """Return what all architectures of the size ``spec`` have in common; the last used ones are kept."""
        if spec not in self._frames:
            self._frames[spec] = self._make_frame(spec)
            if len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(spec)
        return self._frames[spec]

    def _make_frame(self, spec: NetworkSpec) -> Frame:
        large, layouts = self.shared.spec, spec.cells()
        cells = cells_within(spec, large)
        stem = on_no_device(lambda: make_stem(spec, SHARED))
        inputs = tuple(
            (self._input(spec, layout, cell, 0), self._input(spec, layout, cell, 1))
            for layout, cell in zip(layouts, cells, strict=True)
        )
        features = layouts[-1].concatenated.channels
        classifier = on_no_device(lambda: nn.Linear(features, spec.classes))
        linear = self.shared.classifier
        places = {
            "weight": _read(linear.weight, slice(None), (spec.cell_family.nodes,) * 2, features),
            "bias": Place(linear.bias, None),
        }
        return Frame(
            layouts,
            cells,
            Layer.of(stem, self.shared.stem, _first_channels(stem, self.shared.stem)),
            inputs,
            Layer.of(classifier, linear, places),
        )

    def _input(self, spec: NetworkSpec, layout: CellLayout, cell: int, number: int) -> Layer:
        """Return the layer that adapts input ``number`` of a cell to the width and resolution of the cell."""
        parts = _parts(spec, layout.position, number), _parts(self.shared.spec, cell, number)
        key = (cell, number, layout.inputs[number].channels, parts[0], layout.previous_reduction)
        if key not in self._layers:
            template = on_no_device(lambda: make_preprocessing(layout, SHARED)[number])
            shared = self._cells[cell]
            module = (shared.preprocess_0, shared.preprocess_1)[number]
            self._layers[key] = Layer.of(template, module, _input_places(template, module, parts))
        return self._layers[key]


@lru_cache(maxsize=4096)
def cells_within(small: NetworkSpec, large: NetworkSpec) -> tuple[int, ...]:
    """Return for each cell of ``small`` the cell of ``large`` at the same place of the same stage.

    Raises:
        SpecError: ``small`` does not lie within ``large``.
    """
    same = small.is_size_of(large, any_resolution=True)
    mine, theirs = ((*one.stages, one.channels, *one.resolution) for one in (small, large))
    if not same or any(one > other for one, other in zip(mine, theirs, strict=True)):
        raise SpecError(f"{small.describe()} does not lie within {large.describe()}")
    starts = (0, *large.reductions)
    return tuple(start + place for start, depth in zip(starts, small.stages, strict=True) for place in range(depth))


@dataclass(frozen=True)
class Layer:
    """A layer at one size, and where its weights lie in the ``shared`` layer of the largest size."""

    skeleton: Skeleton
    shared: nn.Module
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    places: tuple[Place, ...]
    keys: tuple[object, ...]
    trained: tuple[bool, ...]
    whole: bool

    @staticmethod
    def of(template: nn.Module, shared: nn.Module, places: Mapping[str, Place]) -> Layer:
        """Return the layer of ``template`` whose weights lie at ``places`` of ``shared``."""
        skeleton = Skeleton.of(template)
        names = tuple(skeleton.names())
        shapes = {name: value.shape for name, value in named_weights(template).items()}
        same = shapes == {name: value.shape for name, value in named_weights(shared).items()}
        ordered = tuple(places[name] for name in names)
        return Layer(
            skeleton,
            shared,
            names,
            tuple(shapes[name] for name in names),
            ordered,
            tuple(place.key for place in ordered),
            # A buffer has no gradient.
            tuple(place.parameter.requires_grad for place in ordered),
            same and bool(names),
        )

    def values(self, *, own_leaves: bool = False, copies: Mapping[Tensor, Tensor] | None = None) -> list[Tensor]:
        """Return the present weights; those of a slice are copied to be contiguous. For ``own_leaves`` and
        ``copies`` see :meth:`Slices.path`.
        """
        found = []
        for (parameter, window), shape in zip(self.places, self.shapes, strict=True):
            needed = parameter.requires_grad and torch.is_grad_enabled()
            whole = parameter if copies is None else copies[parameter]
            if window is None:
                own = own_leaves or copies is not None
                found.append(whole.detach().requires_grad_(needed) if own else parameter)
                continue
            value = window.of(whole.detach())
            # The shapes differ where a concatenation is read. Other slices keep their memory format.
            value = value if value.shape == shape else value.reshape(shape)
            value = value.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else value.contiguous()
            found.append(value.requires_grad_(needed))
        return found

    def bound(self, values: Sequence[Tensor], *, own: bool = False) -> nn.Module:
        """Return the layer with the weights ``values``. Unless they are its ``own``, whole layers are shared."""
        if self.whole and not own:
            return self.shared
        return self.skeleton.bound(iter(values)) if self.names else self.skeleton.module


def copies_of(parameters: Iterable[Tensor], dtype: torch.dtype) -> dict[Tensor, Tensor]:
    """Return copies of ``parameters`` of the type ``dtype``, by the parameters. A GPU needs a few launches."""
    once = list(dict.fromkeys(parameters))
    copies = [torch.empty_like(one, dtype=dtype) for one in once]
    torch._foreach_copy_(copies, [one.detach() for one in once])
    return dict(zip(once, copies, strict=True))


class Frame(NamedTuple):
    """What all architectures of one size have in common.

    ``cells`` are the numbers of their cells in the SuperNet, ``inputs`` the preprocessing of each cell.
    """

    layouts: tuple[CellLayout, ...]
    cells: tuple[int, ...]
    stem: Layer
    inputs: tuple[tuple[Layer, Layer], ...]
    classifier: Layer


def place_of(owner: Tensor, view: Tensor) -> Place:
    """Return the place of ``view`` in ``owner``."""
    if view.numel() == owner.numel():
        return Place(owner, None)
    offset = int(view.storage_offset()) - int(owner.storage_offset())
    return Place(owner, Window(tuple(view.size()), tuple(view.stride()), offset))


def _first_channels(template: nn.Module, shared: nn.Module) -> dict[str, Place]:
    """Return the places of a stem's weights: the first channels on every axis."""
    owners = named_weights(shared)
    return {
        name: place_of(owners[name], owners[name].detach()[tuple(slice(size) for size in value.shape)])
        for name, value in named_weights(template).items()
    }


def _input_places(template: nn.Module, shared: nn.Module, parts: tuple[int, int]) -> dict[str, Place]:
    """Return the places of weights that read a state: ``parts`` are those of the state in both networks."""
    owners, places, row = named_weights(shared), {}, 0
    for name, value in named_weights(template).items():
        rows, columns = value.shape[:2]
        if name in owners:
            places[name] = _read(owners[name], slice(rows), parts, columns)
            continue
        # If the stage before a reduction has one cell, the reduction reads a state of twice its resolution, by a
        # layer of two halves. The SuperNet has more cells in that stage and one 1x1 convolution, whose rows the two
        # halves share.
        (owner,) = owners.values()
        places[name] = _read(owner, slice(row, row + rows), parts, columns)
        row += rows
    return places


def _read(owner: Tensor, rows: slice, parts: tuple[int, int], columns: int) -> Place:
    """Return the place of ``rows`` that read ``columns`` channels, the first ones of each part of a state."""
    own, shared = parts
    value = owner.detach()[rows]
    apart = value.view(value.shape[0], shared, value.shape[1] // shared, *value.shape[2:])
    return place_of(owner, apart[:, :own, : columns // own])


def _parts(spec: NetworkSpec, cell: int, number: int) -> int:
    """Return the number of parts of input ``number`` of ``cell``; each is as wide as the cells of its stage."""
    if cell - 2 + number >= 0:
        return spec.cell_family.nodes
    return STEM_MULTIPLIER if spec.stem == "cifar" else 1


def _readers(architecture: Architecture, names: Iterable[str]) -> Iterator[tuple[str, States]]:
    """Yield the ``names`` of weights that read the output of a cell, each with the states that the cell joins."""
    genotype, network = architecture
    joined = {reduction: genotype.joined(reduction) for reduction in (False, True)}
    of_cell = [joined[layout.reduction] for layout in network.cells()]
    for name in names:
        match name.split("."):
            case ["classifier", "weight"]:
                yield name, of_cell[-1]
            case ["cells", index, "preprocess_0" | "preprocess_1" as layer, *_]:
                read = int(index) - 2 + int(layer[-1])
                if read >= 0:
                    yield name, of_cell[read]


def _of_parts(weight: Tensor, joined: States, nodes: int) -> Tensor:
    """Return the columns of ``weight`` that read the states ``joined``; it reads all ``nodes``, side by side."""
    parts = weight.reshape(weight.shape[0], nodes, weight.shape[1] // nodes, *weight.shape[2:])
    found: Tensor = parts[:, [state - 2 for state in joined]].flatten(1, 2)
    return found
