"""SizeGrid: the sizes that the networks of one latency table or of one search may have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.network_spec import NetworkSpec, standard_depths

if TYPE_CHECKING:
    import numpy as np

CLASSES: Final = 16
"""The largest group of channels that runtimes are assumed to have kernels for."""


@dataclass(frozen=True)
class SizeGrid(Settings):
    """Numbers of channels of the first cell and numbers of cells, each in ascending order.

    A network on the grid has one of the numbers of channels and one of the numbers of cells. Its cells can be
    divided among the three stages in several ways, see :attr:`stages`. Everything else (resolution, classes, stem)
    is that of the network to which the grid belongs.

    Raises:
        SpecError: no number, something else than a sequence of whole numbers, or numbers that do not ascend.
    """

    channels: tuple[int, ...] = setting(help="Channels of the first cell, even numbers.", minimum=2, maximum=4096)
    layers: tuple[int, ...] = setting(help="Numbers of cells, 3 at least.", minimum=3, maximum=1000)

    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        for name in ("channels", "layers"):
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name)))
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

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """The depths that networks on the grid have: the numbers of cells of their three stages.

        Each stage has at least as many cells as in the network with the fewest cells, and at most as many as in the
        network with the most.
        """
        return _stages(self.layers)

    def networks(self, network: NetworkSpec) -> Iterator[NetworkSpec]:
        """Yield ``network`` at every number of channels and cells, fewest channels first; reductions at thirds."""
        for channels, layers in itertools.product(self.channels, self.layers):
            yield network.with_changes(channels=channels, layers=layers)

    def smallest(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the smallest size."""
        return network.with_changes(channels=self.channels[0], layers=self.layers[0])

    def largest(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the largest size."""
        return network.with_changes(channels=self.channels[-1], layers=self.layers[-1])

    def covers(self, network: NetworkSpec) -> bool:
        """Return whether the size of ``network`` is on the grid, or between two sizes of it."""
        least, most = standard_depths(self.layers[0]), standard_depths(self.layers[-1])
        return self.channels[0] <= network.channels <= self.channels[-1] and (
            self.layers[0] <= network.layers <= self.layers[-1]
            if network.depths is None
            else all(low <= depth <= high for low, depth, high in zip(least, network.depths, most, strict=True))
        )

    def has(self, network: NetworkSpec) -> bool:
        """Return whether the size of ``network`` is on the grid."""
        return network.channels in self.channels and network.stages in self.stages

    def middle(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the size in the middle of the grid, on logarithmic scales."""
        return network.with_changes(channels=_middle(self.channels), layers=_middle(self.layers))

    @property
    def measured_channels(self) -> tuple[int, ...]:
        """The numbers of channels whose operations are measured.

        They are the smallest, the middle and the largest number of each class. The classes are the multiples of 16,
        the other multiples of 8, and so on. Runtimes may have kernels for some of these classes only.
        """
        classes: dict[int, list[int]] = {}
        for channels in self.channels:
            classes.setdefault(math.gcd(channels, CLASSES), []).append(channels)
        chosen = {one for members in classes.values() for one in (members[0], _middle(members), members[-1])}
        return tuple(sorted(chosen))

    def measured_networks(self, network: NetworkSpec) -> tuple[NetworkSpec, ...]:
        """Return the sizes whose operations are measured: some numbers of channels, fewest and most cells."""
        layers = dict.fromkeys((self.layers[0], self.layers[-1]))
        return tuple(SizeGrid(self.measured_channels, tuple(layers)).networks(network))

    def sample(self, network: NetworkSpec, rng: np.random.Generator) -> NetworkSpec:
        """Draw numbers of channels and cells uniformly; return ``network`` at this size, reductions at thirds."""
        channels, layers = (int(rng.choice(values)) for values in (self.channels, self.layers))
        return network.with_changes(channels=channels, layers=layers)

    def describe(self) -> str:
        """Return a text for people: ``8 to 48 channels and 5 to 20 cells``."""
        return f"{_range(self.channels)} channels and {_range(self.layers)} cells"


def _whole_numbers(name: str, values: object) -> tuple[int, ...]:
    """Return ``values`` as a tuple, which can be hashed.

    Raises:
        SpecError: it is something else than a sequence of whole numbers.
    """
    if not isinstance(values, list | tuple | range) or not all(type(one) is int for one in values):
        raise SpecError(
            f"the {name} of a range of sizes must be several whole numbers such as (8, 12), not {values!r}"
        )
    return tuple(values)


@lru_cache(maxsize=64)
def _stages(layers: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    least, most = standard_depths(layers[0]), standard_depths(layers[-1])
    first, second, third = (range(low, high + 1) for low, high in zip(least, most, strict=True))
    return tuple(one for one in itertools.product(first, second, third) if sum(one) in layers)


def _middle(values: Sequence[int]) -> int:
    aim = (math.log(values[0]) + math.log(values[-1])) / 2
    return min(values, key=lambda value: (abs(math.log(value) - aim), value))


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
