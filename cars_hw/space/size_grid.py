"""SizeGrid: the sizes that the networks of one latency table or of one search may have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.network_spec import NetworkSpec, resolution_text, standard_depths

if TYPE_CHECKING:
    import numpy as np

CLASSES: Final = 16
"""The largest group of channels that runtimes are assumed to have kernels for."""

Resolution = tuple[int, int]
"""Height and width of an image in pixels."""


@dataclass(frozen=True)
class SizeGrid(Settings):
    """Numbers of channels of the first cell, numbers of cells, and resolutions, each in ascending order.

    A network on the grid has one of the numbers of channels, one of the numbers of cells, and one of the
    ``resolutions`` (height and width in pixels). Without resolutions, it has that of the network to which the grid
    belongs. Its cells can be divided among the three stages in several ways, see :attr:`stages`. Everything else
    (classes, stem) is that of the network to which the grid belongs.

    Raises:
        SpecError: no number, something else than a sequence of whole numbers, or numbers that do not ascend.
    """

    channels: tuple[int, ...] = setting(help="Channels of the first cell, even numbers.", minimum=2, maximum=4096)
    layers: tuple[int, ...] = setting(help="Numbers of cells, 3 at least.", minimum=3, maximum=1000)
    resolutions: tuple[Resolution, ...] = setting(
        (), help="Height and width of the images in pixels; empty for those of the network."
    )

    OPTIONAL: ClassVar = frozenset({"resolutions"})
    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        for name in ("channels", "layers"):
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name)))
        object.__setattr__(self, "resolutions", require_resolutions(self.resolutions))
        super().__post_init__()
        for name, values in (("channels", self.channels), ("layers", self.layers)):
            if not values:
                raise SpecError(f"a range of sizes needs at least one number of {name}")
            if any(one >= other for one, other in itertools.pairwise(values)):
                raise SpecError(f"the {name} of a range of sizes must ascend, not {', '.join(map(str, values))}")
        odd = [one for one in self.channels if one % 2]
        if odd:
            raise SpecError(f"channels must be even, not {odd[0]}: a strided skip is made of two halves")

    def require_for(self, network: NetworkSpec) -> None:
        """Check that ``network`` can have all sizes of the grid.

        Raises:
            SpecError: it is made of blocks, and the grid has several numbers of them. A genotype has a choice for
                every block, and leaves out those that are too many.
        """
        if network.blocks is not None and len(self.layers) > 1:
            raise SpecError(
                f"{network.family} networks have one number of blocks, not {self.layers[0]} to {self.layers[-1]}: "
                "a search leaves out blocks where fewer are better",
                remedy="one-depth",
            )

    def __len__(self) -> int:
        return len(self.channels) * len(self.layers) * max(len(self.resolutions), 1)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """The depths that networks on the grid have: the numbers of cells of their three stages.

        Each stage has at least as many cells as in the network with the fewest cells, and at most as many as in the
        network with the most.
        """
        return _stages(self.layers)

    def networks(self, network: NetworkSpec) -> Iterator[NetworkSpec]:
        """Yield ``network`` at every size, fewest channels first; reductions at thirds."""
        resolutions = self.resolutions or (network.resolution,)
        for channels, layers, resolution in itertools.product(self.channels, self.layers, resolutions):
            yield network.with_changes(channels=channels, layers=layers, resolution=resolution)

    def smallest(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the smallest size."""
        return self._sized(network, self.channels[0], self.layers[0], self.resolutions[:1])

    def largest(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the largest size."""
        return self._sized(network, self.channels[-1], self.layers[-1], self.resolutions[-1:])

    def covers(self, network: NetworkSpec) -> bool:
        """Return whether the size of ``network`` is on the grid, or between two sizes of it.

        A grid without resolutions covers every resolution.
        """
        least, most = standard_depths(self.layers[0]), standard_depths(self.layers[-1])
        return (
            self.channels[0] <= network.channels <= self.channels[-1]
            and (
                self.layers[0] <= network.layers <= self.layers[-1]
                if network.depths is None
                else all(low <= depth <= high for low, depth, high in zip(least, network.depths, most, strict=True))
            )
            and (
                not self.resolutions
                or all(
                    low <= side <= high
                    for low, side, high in zip(
                        self.resolutions[0], network.resolution, self.resolutions[-1], strict=True
                    )
                )
            )
        )

    def has(self, network: NetworkSpec) -> bool:
        """Return whether the size of ``network`` is on the grid, which has every resolution if it names none."""
        return (
            network.channels in self.channels
            and network.stages in self.stages
            and (not self.resolutions or network.resolution in self.resolutions)
        )

    def middle(self, network: NetworkSpec) -> NetworkSpec:
        """Return ``network`` at the size in the middle of the grid, on logarithmic scales."""
        return self._sized(network, _middle(self.channels), _middle(self.layers), self._middle_resolution())

    def corners(self, network: NetworkSpec) -> list[NetworkSpec]:
        """Return ``network`` at the ends of all ranges: four sizes, and eight if the resolution varies."""
        resolutions = (self.resolutions[:1], self.resolutions[-1:]) if self.resolutions else ((),)
        return [
            self._sized(network, channels, layers, resolution)
            for channels in (self.channels[0], self.channels[-1])
            for layers in (self.layers[0], self.layers[-1])
            for resolution in resolutions
        ]

    def _middle_resolution(self) -> tuple[Resolution, ...]:
        if not self.resolutions:
            return ()
        pixels = [math.prod(one) for one in self.resolutions]
        return (self.resolutions[pixels.index(_middle(pixels))],)

    @staticmethod
    def _sized(network: NetworkSpec, channels: int, layers: int, resolution: tuple[Resolution, ...]) -> NetworkSpec:
        return network.with_changes(
            channels=channels, layers=layers, resolution=resolution[0] if resolution else None
        )

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
        """Return the sizes whose operations are measured: some numbers of channels, fewest and most cells.

        If the resolution varies, these sizes are measured at the largest one. At the smallest resolution and one in
        the middle, only the fewest, the middle and the most channels are measured: what a runtime does with numbers
        of channels is known from the largest resolution.
        """
        layers = tuple(dict.fromkeys((self.layers[0], self.layers[-1])))
        largest = SizeGrid(self.measured_channels, layers, self.resolutions[-1:])
        if len(self.resolutions) < 2:
            return tuple(largest.networks(network))
        channels = tuple(dict.fromkeys((self.channels[0], _middle(self.channels), self.channels[-1])))
        further = tuple(dict.fromkeys((*self.resolutions[:1], *self._middle_resolution())))
        further = tuple(one for one in further if one != self.resolutions[-1])
        return (*SizeGrid(channels, layers, further).networks(network), *largest.networks(network))

    def sample(self, network: NetworkSpec, rng: np.random.Generator) -> NetworkSpec:
        """Draw channels, cells and a resolution uniformly; reductions of the network are at thirds."""
        channels, layers = (int(rng.choice(values)) for values in (self.channels, self.layers))
        several = len(self.resolutions) > 1
        drawn = (self.resolutions[int(rng.integers(len(self.resolutions)))],) if several else self.resolutions
        return self._sized(network, channels, layers, drawn)

    def describe(self, parts: str = "cells") -> str:
        """Return a text for people: ``8 to 48 channels and 5 to 20 cells``.

        ``parts`` are what networks are made of, see :attr:`NetworkSpec.parts`.
        """
        channels, layers = f"{_range(self.channels)} channels", f"{_range(self.layers)} {parts}"
        if not self.resolutions:
            return f"{channels} and {layers}"
        return f"{channels}, {layers} and {_range([resolution_text(one) for one in self.resolutions])} pixels"

    def describe_networks(self, network: NetworkSpec) -> str:
        """Return a text for people: of which networks the grid is, all of them sizes of ``network``."""
        images = [
            f"{resolution_text(one)}x{network.in_channels}" for one in self.resolutions or (network.resolution,)
        ]
        return f"{replace(self, resolutions=()).describe(network.parts)}, {_range(images)}, {network.common}"

    def describe_size(self, network: NetworkSpec) -> str:
        """Return the size of ``network`` as texts for people distinguish sizes of this grid."""
        return f"{network.size}, {network.pixels} pixels" if self.resolutions else network.size


def require_resolutions(values: object) -> tuple[Resolution, ...]:
    """Return the resolutions ``values`` as a tuple, which can be hashed.

    Raises:
        SpecError: they are no pairs of whole numbers, or do not ascend.
    """
    pairs = list(values) if isinstance(values, list | tuple) else None
    if pairs is None or not all(
        isinstance(one, list | tuple) and len(one) == 2 and all(type(side) is int and side > 0 for side in one)
        for one in pairs
    ):
        raise SpecError(f"resolutions must be pairs of height and width such as (32, 32), not {values!r}")
    found = tuple((int(height), int(width)) for height, width in pairs)
    for one, other in itertools.pairwise(found):
        if one == other or one[0] > other[0] or one[1] > other[1]:
            shown = ", ".join(map(resolution_text, found))
            raise SpecError(f"the resolutions of a range of sizes must ascend, not {shown}")
    return found


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


def _range(values: Sequence[int] | Sequence[str]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
