"""How an image file becomes the pixels that a network takes, up to their normalisation.

The defaults are what :mod:`cars_hw.data.images` does in training. A model's card keeps these records, and
``cars-hw classify`` goes by them: a value that is not known here is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError

HIGH_BYTE: Final = "high byte"
"""The conversion of a grey image of 16 bits to ``L``: each value divided by 256, rounded down."""

SIXTEEN_BIT: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes of grey pixels of 16 bits; ``I`` is one of PNG and PPM files only, of others it has 32."""

PLAIN: Final[Mapping[str, tuple[str, ...]]] = {
    "1": ("L",),
    "L": ("L",),
    "LA": ("L",),
    "La": ("LA", "L"),
    **dict.fromkeys(SIXTEEN_BIT, (HIGH_BYTE,)),
    # Pillow warns about a palette with transparency unless it goes through RGBA.
    "P": ("RGBA", "RGB"),
    "PA": ("RGBA", "RGB"),
    "RGB": ("RGB",),
    "RGBA": ("RGB",),
    "RGBa": ("RGBA", "RGB"),
    "RGBX": ("RGB",),
    "CMYK": ("RGB",),
    "YCbCr": ("RGB",),
}
"""The conversions of Pillow's modes: grey ones to ``L``, the others to ``RGB``."""

STEPS: Final = ("L", "LA", "RGB", "RGBA", HIGH_BYTE)

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Decoding(Settings):
    """How a file becomes an upright image of 8-bit pixels, grey (``L``) or colour (``RGB``).

    ``conversions`` has a list for each mode in which Pillow opens a file. Each of its entries is either a mode that
    ``Image.convert`` of Pillow gets, or ``high byte``: 16-bit grey values become ``L``, divided by 256 and rounded
    down. The last one is the mode of the pixels. A file of any other mode is refused, and one of mode ``I`` that
    is neither PNG nor PPM. Transparency is dropped, and colour profiles are ignored. Of an animation, the first
    frame is read.

    With the ``orientation`` ``exif``, the image is turned and mirrored as its EXIF data says, before its
    conversion; with ``stored`` it is not.

    Raises:
        InputError: an unknown value, or a conversion that does not end in one mode for all.
    """

    conversions: Mapping[str, tuple[str, ...]] = setting()
    library: Literal["Pillow"] = "Pillow"
    frame: Literal["first"] = "first"
    orientation: Literal["exif", "stored"] = "exif"

    def __post_init__(self) -> None:
        super().__post_init__()
        for mode, steps in self.conversions.items():
            for step in steps:
                if step not in STEPS:
                    raise InputError(f"conversions: of {mode}, {step!r} is unknown; known: {', '.join(STEPS)}")
            if HIGH_BYTE in steps[1:] or (HIGH_BYTE in steps) is not (mode in SIXTEEN_BIT):
                raise InputError(f"conversions: {HIGH_BYTE!r} is the first step of 16-bit modes, and of no other")
        ends = {_end(steps) for steps in self.conversions.values()}
        if len(ends) != 1 or not ends <= {"L", "RGB"}:
            raise InputError("conversions must all end in L, or all in RGB")

    @property
    def mode(self) -> str:
        """The mode of the pixels: ``L``, or ``RGB``, whose channels are in that order."""
        return next(_end(steps) for steps in self.conversions.values())

    @property
    def channels(self) -> int:
        """The number of channels of the pixels."""
        return len(self.mode)

    @classmethod
    def of(cls, channels: int) -> Decoding:
        """Return how images of ``channels`` channels, 1 or 3, are decoded in training."""
        mode = "L" if channels == 1 else "RGB"
        return cls({one: steps if _end(steps) == mode else (*steps, mode) for one, steps in PLAIN.items()})


def _end(steps: tuple[str, ...]) -> str:
    """Return the mode in which ``steps`` end, empty without any."""
    return "L" if steps[-1:] == (HIGH_BYTE,) else "".join(steps[-1:])


@dataclass(frozen=True)
class Resizing(Settings):
    """How an upright image gets the size of the network's input: ``Image.resize`` of Pillow with ``filter``.

    Pillow widens a filter by the factor by which an image becomes smaller, in each direction: it smooths
    (``antialias``). An image that has the size already is not resized. Width and height are stretched by themselves
    (``keep_aspect`` is False), and nothing is cut off (``crop`` is ``none``).

    Raises:
        InputError: an unknown value.
    """

    filter: Filter = "bilinear"
    antialias: bool = True
    keep_aspect: bool = False
    crop: Literal["none"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.antialias is not (self.filter != "nearest"):
            raise InputError(
                f"antialias must be {self.filter != 'nearest'} for the filter {self.filter}, not {self.antialias}"
            )
        if self.keep_aspect:
            raise InputError("keep_aspect must be False, not True")
