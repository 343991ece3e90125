"""The models that a profile measures: how they are written, and their names in its journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cars_hw.config.measurement import Precision
from cars_hw.devices.protocol import ModelFormat
from cars_hw.export.write import build_network
from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.models import build_model, build_overhead
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid

Builder = Callable[[Path], None]
"""Writes a model to a path."""


class ProfiledModels(NamedTuple):
    """How models are written; what its methods return writes one. ``spec`` is the network of the reference."""

    spec: NetworkSpec
    sizes: SizeGrid | None
    model_format: ModelFormat
    precision: Precision

    def overhead(self) -> Builder:
        """Return what writes the model without an operation."""
        return lambda path: build_overhead(path, self.model_format, self.precision)

    def operation(self, key: OpKey) -> Builder:
        """Return what writes the model of the operation ``key`` alone."""
        return lambda path: build_model(key, path, self.model_format, self.precision)

    def network(self, architecture: Architecture) -> Builder:
        """Return what writes the network of ``architecture``."""
        genotype, network = architecture
        return lambda path: build_network(network, genotype, path, self.model_format, self.precision)

    @property
    def keys(self) -> tuple[OpKey, ...]:
        """The operations to measure."""
        networks = (self.spec,) if self.sizes is None else self.sizes.measured_networks(self.spec)
        return tuple(dict.fromkeys(key for network in networks for key in spec_keys(network)))

    def name(self, architecture: Architecture) -> str:
        """Return the text of ``architecture`` in the journal."""
        genotype, network = architecture
        size = "" if self.sizes is None else f"{network.channels}x{network.layers} "
        if self.sizes is not None and self.sizes.resolutions:
            size = f"{network.channels}x{network.layers}x{network.pixels} "
        return f"{size}{genotype.to_darts()}"

    def named(self, text: str) -> Architecture:
        """Return the architecture whose :meth:`name` is ``text``."""
        if self.sizes is None:
            return Architecture(Genotype.parse(text), self.spec)
        size, _, genotype = text.partition(" ")
        channels, layers, *sides = map(int, size.split("x"))
        resolution = (sides[0], sides[1]) if sides else None
        network = self.spec.with_changes(channels=channels, layers=layers, resolution=resolution)
        return Architecture(Genotype.parse(genotype), network)
