"""The shape of an activation."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Channels, height and width of one activation, without the batch."""

    channels: int
    height: int
    width: int

    def halved(self, channels: int | None = None) -> Shape:
        """Return the shape after a stride of 2. Sizes are rounded up for every operation."""
        return Shape(channels or self.channels, (self.height + 1) // 2, (self.width + 1) // 2)
