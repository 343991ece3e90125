"""Architecture: what a network is, a genotype and the network that it fills."""

from __future__ import annotations

from typing import NamedTuple

from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec


class Architecture(NamedTuple):
    """A genotype, and everything else of its network: channels, cells, resolution, classes and stem."""

    genotype: Genotype
    network: NetworkSpec

    def key(self) -> tuple[object, NetworkSpec]:
        """Return what two architectures share if their networks compute alike; see :meth:`Genotype.key`."""
        return self.genotype.key(), self.network
