"""SizeGrid: the sizes that the networks of one latency table or of one search may have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.network_spec import NetworkSpec

if TYPE_CHECKING:
    import numpy as np

CLASSES: Final = 16
"""Runtimes have kernels for channels in groups of at most so many."""


@dataclass(frozen=True)
class SizeGrid(Settings):
    """Numbers of channels of the first cell and numbers of cells, each in ascending order.

    A network on the grid has any of the one with any of the other. Everything else (resolution, classes, stem) is
    that of the network to which the grid belongs.

    Raises:
        SpecError: no number, or numbers that do not ascend.
    """

    channels: tuple[int, ...] = setting(help="Channels of the first cell, even numbers.", minimum=2, maximum=4096)
    layers: tuple[int, ...] = setting(help="Numbers of cells, 3 at least.", minimum=3, maximum=1000)

    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("channels", self.channels), ("layers", self.layers)):
            if not values:
                raise SpecError(f"a range of sizes needs at least one number of {name}")
            if any(one >= other for one, other in itertools.pairwise(values)):
                raise SpecError(f"the {name} of a range of sizes must ascend, not {', '.join(map(str, values))}")
        odd = [one for one in self.channels if one % 2]
        if odd:
            raise SpecError(f"channels must be even, not {odd[0]}: a strided skip is made of two halves")

    def __len__(self) -> int:
        return len(self.channels) * len(self.layers)

    def networks(self, network: NetworkSpec) -> Iterator[NetworkSpec]:
        """Yield ``network`` at every size, fewest channels first."""
        for channels, layers in itertools.product(self.channels, self.layers):
            yield replace(network, channels=channels, layers=layers)

    def covers(self, network: NetworkSpec) -> bool:
        """Return whether the size of ``network`` is on the grid, or between two sizes of it."""
        return all(
            values[0] <= value <= values[-1]
            for value, values in ((network.channels, self.channels), (network.layers, self.layers))
        )

    def middle(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the size in the middle of the grid, by ratios."""
        return replace(network, channels=_middle(self.channels), layers=_middle(self.layers))

    def measured_networks(self, network: NetworkSpec) -> tuple[NetworkSpec, ...]:
        """Return the sizes whose operations are measured: some numbers of channels, fewest and most cells.

        Of the channels they are the smallest, the largest and the middle one of each class: multiples of 16, of 8
        and not of 16, and so on. Runtimes may have kernels for some of these classes only.
        """
        classes: dict[int, list[int]] = {}
        for channels in self.channels:
            classes.setdefault(math.gcd(channels, CLASSES), []).append(channels)
        chosen = {one for members in classes.values() for one in (members[0], _middle(members), members[-1])}
        layers = dict.fromkeys((self.layers[0], self.layers[-1]))
        return tuple(SizeGrid(tuple(sorted(chosen)), tuple(layers)).networks(network))

    def sample(self, network: NetworkSpec, rng: np.random.Generator) -> NetworkSpec:
        """Draw a size uniformly, and return ``network`` at it."""
        channels, layers = (int(rng.choice(values)) for values in (self.channels, self.layers))
        return replace(network, channels=channels, layers=layers)

    def describe(self) -> str:
        """Return a text for people: ``8 to 48 channels and 5 to 20 cells``."""
        return f"{_range(self.channels)} channels and {_range(self.layers)} cells"


def _middle(values: Sequence[int]) -> int:
    aim = (math.log(values[0]) + math.log(values[-1])) / 2
    return min(values, key=lambda value: (abs(math.log(value) - aim), value))


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
