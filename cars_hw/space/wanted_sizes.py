"""WantedSizes: the latencies that networks should keep to, from which a range of sizes follows on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError, SpecError
from cars_hw.space.size_grid import SizeGrid

CHANNELS: Final = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""The numbers of channels of which a range is made: multiples of 4, and from 16 on multiples of 8.

Runtimes compute with channels in groups of 4, 8 or 16: a number between costs as much as the next multiple or
more. From 8 on, none is more than 1.5 times the one before.
"""

LAYERS: Final = tuple(range(5, 21))
"""The numbers of cells of which a range is made."""


@dataclass(frozen=True)
class WantedSizes(Settings):
    """Latencies in milliseconds, around which a range of sizes is to be found on a device.

    ``channels`` and ``layers`` are fixed where they are given, in ascending order, and found where they are empty.

    Raises:
        SpecError: no latency, or numbers that no range of sizes can have.
    """

    latencies_ms: tuple[float, ...] = setting(
        (),
        help="The latency that networks should keep to, such as 20ms. A few networks of several sizes are measured "
        "first; then the table is made for a range of sizes around this latency. Give --channels or --layers to "
        "fix one of them; --network says only the images, the classes and the stem. Repeatable: the range covers "
        "all of the latencies. Several devices have a range each.",
        option="--latency",
        unit="ms",
        above=0,
        maximum=1e9,
        kind="latency",
    )
    channels: tuple[int, ...] = setting((), help="Channels of the first cell. (found)", minimum=2, maximum=4096)
    layers: tuple[int, ...] = setting((), help="Numbers of cells. (found)", minimum=3, maximum=1000)

    out_of_bounds: ClassVar[type[InputError]] = SpecError

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.latencies_ms:
            raise SpecError("a range of sizes is found around a latency: give one at least")
        # The grid checks what is given.
        _ = self.allowed

    @property
    def allowed(self) -> SizeGrid:
        """The sizes of which the range is made."""
        return SizeGrid(self.channels or CHANNELS, self.layers or LAYERS)
