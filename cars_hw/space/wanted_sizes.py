"""WantedSizes: the latencies for which a range of sizes is to be found on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.size_grid import Resolution, SizeGrid, require_resolutions

CHANNELS: Final = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""The numbers of channels that a range can have: multiples of 4, and from 16 on multiples of 8.

Runtimes compute with channels in groups of 4, 8 or 16: a number between costs as much as the next multiple or
more. From 8 on, none is more than 1.5 times the previous one.
"""

LAYERS: Final = tuple(range(5, 21))
"""The numbers of cells that a range can have."""


@dataclass(frozen=True)
class WantedSizes(Settings):
    """Latencies in milliseconds for which a range of sizes is to be found on a device.

    ``channels`` and ``layers`` are in ascending order. If one of them is empty, it is found. ``resolutions`` are
    used as they are; without any, all networks have the same resolution.

    Raises:
        SpecError: no latency, or numbers that no range of sizes can have.
    """

    latencies_ms: tuple[float, ...] = setting(
        (),
        help="The latency limit of the networks, such as 20ms. The command first measures a few networks of "
        "several sizes, and then makes the table for a range of sizes around this latency. If --channels or "
        "--layers are given, only the other one is found. --network gives only the images, the classes and the "
        "stem. Repeatable: the range covers all latencies. Each of several devices has a range of its own.",
        option="--latency",
        unit="ms",
        above=0,
        maximum=1e9,
        kind="latency",
    )
    channels: tuple[int, ...] = setting((), help="Channels of the first cell. (found)", minimum=2, maximum=4096)
    layers: tuple[int, ...] = setting((), help="Numbers of cells. (found)", minimum=3, maximum=1000)
    resolutions: tuple[Resolution, ...] = setting(
        (), help="Height and width of the images in pixels; empty for those of the network."
    )

    OPTIONAL: ClassVar = frozenset({"resolutions"})
    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", require_resolutions(self.resolutions))
        super().__post_init__()
        if not self.latencies_ms:
            raise SpecError("a range of sizes is found around a latency: give one at least")
        # The grid checks what is given.
        _ = self.allowed

    @property
    def allowed(self) -> SizeGrid:
        """The sizes that the range can have."""
        return SizeGrid(self.channels or CHANNELS, self.layers or LAYERS, self.resolutions)
