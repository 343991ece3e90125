"""How the pixels of a state are divided among the programs of a kernel, and sums that are kept in parts.

A sum over all pixels, such as a mean, is made in parts, one for each program. The next kernel adds the parts where
it reads them, in a fixed order. That needs neither a launch of its own nor an atomic addition, so results are
deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WIDEST: Final = 128
"""The most channels of a state: all of them are in one block of a kernel."""
EPSILON: Final = 1e-5
"""What a normalisation adds to the variance, as torch.nn.BatchNorm2d."""

_VALUES: Final = 4096
_SUMS: Final = 8192
_MOST: Final = 256
_WEIGHT_PARTS: Final = (256, 64, 16, 4, 1)


@dataclass(frozen=True)
class Parts:
    """Pixels divided into ``count`` parts of ``blocks`` blocks of ``pixels`` pixels; the last ones may be empty."""

    count: int
    blocks: int
    pixels: int

    @property
    def size(self) -> int:
        """Pixels of a full part."""
        return self.blocks * self.pixels


def lanes_of(channels: int) -> int:
    """Return the channels of a block: a power of two, and at least what a matrix product takes."""
    return max(16, _power_of_two(channels))


def warps_of(channels: int, bytes_a_number: int) -> int:
    """Return the warps of a program that multiplies matrices of ``channels``.

    Numbers of four bytes are multiplied one by one, in code without loops. Its length is divided by the number of
    warps, and with few of them the code of a hundred channels takes a minute to compile.
    """
    return 16 if bytes_a_number > 2 and lanes_of(channels) >= 64 else 4


def parts_of(total: int, channels: int) -> Parts:
    """Return the parts of ``total`` pixels for a kernel that makes statistics of ``channels``."""
    lanes = lanes_of(channels)
    pixels = min(128, _VALUES // lanes)
    blocks = -(-total // pixels)
    each = -(-blocks // min(_MOST, _SUMS // lanes))
    return Parts(-(-blocks // each), each, pixels)


def weight_parts(total: int, channels: int, numbers: int, weights: int) -> int:
    """Return the number of parts of ``total`` pixels for a gradient of ``weights`` numbers.

    ``channels`` are those of a block. More parts keep more of a GPU busy, but all have to be written and added.
    So they are no more than half as large as the states that the kernel reads, which have ``numbers`` numbers of
    two bytes. There are few different counts, because gradients in equally many parts are added by one launch.
    """
    pixels = min(128, _VALUES // lanes_of(channels))
    most = min(-(-total // pixels), numbers // (4 * weights))
    return next((one for one in _WEIGHT_PARTS if one <= most), 1)


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
