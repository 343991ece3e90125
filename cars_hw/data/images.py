"""One image file as pixels, the same way wherever one is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from cars_hw.errors import DatasetError

Size = tuple[int, int]
"""Height and width, in pixels."""

GREY: Final = ("1", "L", "LA")
COLOUR: Final = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_image(file: Path, channels: int, size: Size) -> npt.NDArray[np.uint8]:
    """Return the image, of shape ``(height, width, channels)``.

    It is upright, as its EXIF data says, without its transparency, grey where ``channels`` is 1 and RGB where it is
    3, and resized to ``size`` without keeping its aspect.

    Raises:
        DatasetError: it cannot be read, or has pixels that are not 8-bit grey or colour.
    """
    with opened(file) as image:
        require_mode(file, image)
        ImageOps.exif_transpose(image, in_place=True)
        plain = _plain(image, "L" if channels == 1 else "RGB")
        height, width = size
        if plain.size != (width, height):
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(plain, np.uint8).reshape(height, width, channels)


def require_mode(file: Path, image: Image.Image) -> None:
    """Check that ``image`` has 8-bit pixels of grey or colour.

    Raises:
        DatasetError: it has not.
    """
    if image.mode not in GREY and image.mode not in COLOUR:
        raise DatasetError(f"{file} has pixels of mode {image.mode}; save it as 8-bit grey or RGB")


def upright_size(image: Image.Image) -> Size:
    """Return the size that ``image`` will have once it is turned upright, without decoding it."""
    lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if lies_on_its_side else (image.height, image.width)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Return ``image`` in ``mode``, ``L`` or ``RGB``."""
    if image.mode in ("P", "PA"):
        # Pillow warns about a palette with transparency unless it goes through RGBA.
        image = image.convert("RGBA")
    return image.convert(mode)


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises for a damaged one becomes a DatasetError that names it."""
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"{file} cannot be read as an image; replace or remove it") from error
