"""Architectures of blocks inside the shared weights of a SuperNet, see :mod:`cars_hw.nn.slices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from cars_hw.nn.blocks import head_convolution
from cars_hw.nn.network import make_stem
from cars_hw.nn.paths import SHARED, SharedCell, SharedNetwork
from cars_hw.nn.shared_blocks import SuperBlock, block_template
from cars_hw.nn.skeletons import named_weights, on_no_device
from cars_hw.nn.slices import Bound, Layer, Slices, cells_within, place_of
from cars_hw.space.architecture import Architecture
from cars_hw.space.blocks import block_layouts, head_channels
from cars_hw.space.families import SKIP
from cars_hw.space.genotype import names_of
from cars_hw.space.operations.operation import narrowed


class BlockSlices(Slices):
    """All choices and all widths within the shared weights of ``shared``, a SuperNet of blocks.

    A narrower network has the first channels of every tensor, so that one rule says where all weights lie.
    """

    def _modules(
        self, architecture: Architecture, bound: Bound
    ) -> tuple[Any, list[SharedCell], nn.Linear, list[nn.Module]]:
        stem, *layers, classifier = (layer for _, layer in self._named_layers(architecture))
        return bound(stem), [], bound(classifier), [bound(layer) for layer in layers]

    def _named_layers(self, architecture: Architecture) -> Iterator[tuple[str, Layer]]:
        genotype, spec = architecture
        spec.require_family(genotype)
        layouts, own = block_layouts(spec), cells_within(spec, self.shared.spec)
        supernet = self.shared
        assert isinstance(supernet, nn.Module)
        features, last = head_channels(spec), layouts[-1].channels
        yield "stem", self._layer(("stem", spec), self.shared.stem, lambda: make_stem(spec, SHARED))
        for layout, place, name in zip(layouts, own, names_of(genotype), strict=True):
            if name != SKIP:
                shared = supernet.get_submodule(f"cells.{place}")
                assert isinstance(shared, SuperBlock)
                key = (place, name, layout.source.channels, layout.channels)
                make = partial(block_template, layout, name)
                yield f"cells.{layout.position}.body", self._layer(key, shared.owner(name), make)
        head = supernet.get_submodule(f"cells.{self.shared.spec.layers}")
        yield (
            f"cells.{spec.layers}.body",
            self._layer(("head", last, features), head, lambda: head_convolution(last, features, SHARED)),
        )
        linear = self.shared.classifier
        yield "classifier", self._layer(("classifier", spec), linear, lambda: nn.Linear(features, spec.classes))

    def _layer(self, key: object, owner: nn.Module, make: Callable[[], nn.Module]) -> Layer:
        if key not in self._layers:
            template = on_no_device(make)
            owners = named_weights(owner)
            shapes = {name: value.shape for name, value in named_weights(template).items()}
            views = narrowed({name: value.detach() for name, value in owners.items()}, shapes)
            places = {name: place_of(owners[name], view) for name, view in views.items()}
            self._layers[key] = Layer.of(template, owner, places)
        return self._layers[key]


def slices_of(shared: SharedNetwork) -> Slices:
    """Return the sizes within ``shared``, a SuperNet of cells or of blocks."""
    return Slices(shared) if shared.spec.blocks is None else BlockSlices(shared)
