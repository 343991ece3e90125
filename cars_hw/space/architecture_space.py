"""ArchitectureSpace: the architectures that a search may propose, their cells and their sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeVar

from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import Resolution, SizeGrid

if TYPE_CHECKING:
    import numpy as np

Stages = tuple[int, int, int]

T = TypeVar("T")


@dataclass(frozen=True)
class ArchitectureSpace:
    """All architectures with a genotype of ``cells`` and a size of ``sizes`` in which every cell has a reader.

    Everything but the size is that of ``network``. Without ``sizes``, the size is that of ``network``, too.

    Raises:
        SpecError: the network cannot have all sizes, see :meth:`SizeGrid.require_for`.
    """

    cells: GenotypeSpace
    network: NetworkSpec
    sizes: SizeGrid | None = None

    def __post_init__(self) -> None:
        if self.sizes is not None:
            self.sizes.require_for(self.network)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture: first a size, see :meth:`sample_size`, then every node uniformly.

        Raises:
            GenotypeError: too many draws in a row left a cell without a reader.
        """
        network = self.network if self.sizes is None else self.sample_size(rng)
        return Architecture(self.cells_for(network).sample(rng), network)

    def cells_for(self, network: NetworkSpec) -> GenotypeSpace:
        """Return the genotypes that fit ``network``: that leave no cell of it without a reader."""
        return self._own_cells if network == self.network else _for_network(self.cells, network)

    @cached_property
    def _own_cells(self) -> GenotypeSpace:
        return self.cells.for_network(self.network)

    def proposable(self, architecture: Architecture) -> bool:
        """Return whether the size of ``architecture`` is in the space, and every cell of it has a reader."""
        genotype, network = architecture
        return self._has_size(network) and self.cells_for(network).fits(genotype)

    def _has_size(self, network: NetworkSpec) -> bool:
        if self.sizes is None:
            return network == self.network
        return network.is_size_of(self.network, any_resolution=self.varies_resolution) and self.sizes.has(network)

    @property
    def varies_resolution(self) -> bool:
        """Whether architectures have several resolutions."""
        return self.sizes is not None and bool(self.sizes.resolutions)

    @property
    def smallest(self) -> NetworkSpec:
        """The smallest network."""
        return self.network if self.sizes is None else self.sizes.smallest(self.network)

    @property
    def largest(self) -> NetworkSpec:
        """The largest network."""
        return self.network if self.sizes is None else self.sizes.largest(self.network)

    def sample_size(self, rng: np.random.Generator) -> NetworkSpec:
        """Draw channels, cells and pixels evenly on logarithmic scales; uniformly the cells of each stage.

        All three multiply the latency, so the latencies of the draws are spread evenly on a logarithmic scale.
        """
        assert self.sizes is not None
        channels = int(rng.choice(self.sizes.channels, p=_log_shares(self.sizes.channels)))
        layers = int(rng.choice(self.sizes.layers, p=_log_shares(self.sizes.layers)))
        possible = [one for one in self.sizes.stages if sum(one) == layers]
        stages, resolution = possible[int(rng.integers(len(possible)))], self.network.resolution
        if self.varies_resolution:
            shares = _log_shares([math.prod(one) for one in self.sizes.resolutions])
            resolution = self.sizes.resolutions[int(rng.choice(len(shares), p=shares))]
        return self._sized(channels, stages, resolution)

    def mutate_size(self, network: NetworkSpec, rate: float, rng: np.random.Generator) -> NetworkSpec:
        """Move the channels, the cells of each stage and the resolution one step along the grid.

        Each of them moves with probability ``rate``.
        """
        assert self.sizes is not None
        channels, stages, resolution = network.channels, network.stages, network.resolution
        if rng.random() < rate:
            channels = _step(self.sizes.channels, channels, rng)
        for index in range(len(stages)):
            if rng.random() < rate:
                changed = [_with(stages, index, stages[index] + step) for step in (-1, 1)]
                possible = [one for one in changed if one in self.sizes.stages]
                if possible:
                    stages = possible[int(rng.integers(len(possible)))]
        if self.varies_resolution and rng.random() < rate:
            resolution = _step(self.sizes.resolutions, resolution, rng)
        return self._sized(channels, stages, resolution)

    def cross_sizes(
        self, first: NetworkSpec, second: NetworkSpec, rate: float, rng: np.random.Generator
    ) -> NetworkSpec:
        """Take the channels, all stages together, and the resolution from ``second``.

        Each of the three is taken with probability ``rate``, and otherwise from ``first``.
        """
        channels = second.channels if rng.random() < rate else first.channels
        stages = second.stages if rng.random() < rate else first.stages
        resolution = second.resolution if self.varies_resolution and rng.random() < rate else first.resolution
        return self._sized(channels, stages, resolution)

    def with_channels(self, network: NetworkSpec, channels: int) -> NetworkSpec:
        """Return ``network`` with ``channels``."""
        return self._sized(channels, network.stages, network.resolution)

    def with_stages(self, network: NetworkSpec, stages: Stages) -> NetworkSpec:
        """Return ``network`` with ``stages``."""
        return self._sized(network.channels, stages, network.resolution)

    def with_resolution(self, network: NetworkSpec, resolution: Resolution) -> NetworkSpec:
        """Return ``network`` with ``resolution``."""
        return self._sized(network.channels, network.stages, resolution)

    def _sized(self, channels: int, stages: Stages, resolution: Resolution) -> NetworkSpec:
        return replace(self.network, channels=channels, layers=sum(stages), depths=stages, resolution=resolution)


@lru_cache(maxsize=4096)
def _for_network(cells: GenotypeSpace, network: NetworkSpec) -> GenotypeSpace:
    return cells.for_network(network)


def _log_shares(values: Sequence[int]) -> list[float]:
    """Return the share of the logarithmic axis that is nearest to each of the ascending ``values``."""
    logs = [math.log(value) for value in values]
    if len(logs) == 1:
        return [1.0]
    first, last = logs[0] - (logs[1] - logs[0]), logs[-1] + (logs[-1] - logs[-2])
    widths = [after - before for before, after in zip([first, *logs[:-1]], [*logs[1:], last], strict=True)]
    return [width / sum(widths) for width in widths]


def _step(values: Sequence[T], value: T, rng: np.random.Generator) -> T:
    """Return one of the neighbours of ``value`` among ``values``; itself where it has none."""
    index = values.index(value)
    neighbours = [values[one] for one in (index - 1, index + 1) if 0 <= one < len(values)]
    return neighbours[int(rng.integers(len(neighbours)))] if neighbours else value


def _with(stages: Stages, index: int, cells: int) -> Stages:
    first, second, third = (cells if number == index else own for number, own in enumerate(stages))
    return first, second, third
