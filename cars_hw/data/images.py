"""One image file as pixels, the same way wherever one is read: for training, for `classify`, and for a check.

The rules, which a model's card repeats for other programs:

- The image is turned upright as its EXIF data says.
- Of an animation or a file of several pages, the first image is taken.
- Of pixels of 16 bits, grey or RGB, the high byte is taken: ``value // 256`` (of RGB in PPM files, Pillow rounds).
  Pixels of 32 bits and floats are refused.
- A palette is looked up, CMYK and YCbCr become RGB by Pillow's formulas; colour profiles are not applied.
- Transparency is dropped: a pixel keeps the colour that it has below.
- Grey is ITU-R 601-2 luma.
- It is resized with a bilinear filter with antialiasing, as Pillow's ``resize`` does, without keeping its aspect.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image, ImageOps, features

from cars_hw.errors import DatasetError

Size = tuple[int, int]
"""Height and width, in pixels."""

Pixels = npt.NDArray[np.uint8]

GREY: Final = ("1", "L", "LA", "La")
COLOUR: Final = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey pixels of 16 bits."""

_DEEP_AS_32: Final = ("PNG", "PPM")
"""The formats of which Pillow returns grey pixels of 16 bits, and no others, as 32 bits."""

RULES: Final = 1
"""The version of the rules above."""


def decoder() -> str:
    """Return what decides the pixels of an image besides its file: the rules, and the versions of the libraries."""
    libraries = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "webp", "libtiff")]
    return f"rules {RULES}, Pillow {PIL.__version__}, {', '.join(libraries)}"


def read_image(file: Path, channels: int, size: Size) -> Pixels:
    """Return the image, of shape ``(height, width, channels)``.

    It is upright, as its EXIF data says, without its transparency, grey where ``channels`` is 1 and RGB where it is
    3, and resized to ``size`` without keeping its aspect; the module has all the rules.

    Raises:
        DatasetError: it cannot be read, or its pixels have more than 16 bits.
    """
    plain = upright(file).convert("L" if channels == 1 else "RGB")
    return np.asarray(resized(plain, size), np.uint8).reshape(*size, channels)


def upright(file: Path, content: bytes | None = None) -> Image.Image:
    """Return the whole image in ``file``, upright and in mode ``L`` or ``RGB``: ``L`` where the file is grey.

    ``content`` is that of the file, if it was read already.

    Raises:
        DatasetError: it cannot be read, or its pixels have more than 16 bits.
    """
    with opened(file, content) as image:
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        # Pillow's decoders raise any exception for damaged files.
        except Exception as error:
            raise unreadable(file, error) from error
        require_mode(file, image)
        return _plain(image)


def resized(image: Image.Image, size: Size) -> Image.Image:
    """Return ``image``, of mode ``L`` or ``RGB``, at ``size``."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def has_16_bits(image: Image.Image) -> bool:
    """Whether the file of ``image``, which was not decoded yet, has pixels of 16 bits, grey or RGB."""
    # Pillow decodes RGB of 16 bits to 8, and only the name of the decoder's mode, such as RGB;16B, tells it.
    return _is_deep(image) or ";16" in str(getattr(image, "tile", ""))


def _is_deep(image: Image.Image) -> bool:
    """Whether ``image`` has grey pixels of 16 bits."""
    return image.mode in DEEP or (image.mode == "I" and image.format in _DEEP_AS_32)


def require_mode(file: Path, image: Image.Image) -> None:
    """Check that the pixels of ``image`` are among those that can be read.

    Raises:
        DatasetError: they are not.
    """
    if image.mode not in GREY and image.mode not in COLOUR and not _is_deep(image):
        raise DatasetError(f"{file} has pixels of mode {image.mode}; save it as grey or RGB of 8 or 16 bits")


def upright_size(image: Image.Image) -> Size:
    """Return the size that ``image`` will have once it is turned upright, without decoding it."""
    lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if lies_on_its_side else (image.height, image.width)


def _plain(image: Image.Image) -> Image.Image:
    """Return ``image`` in mode ``L`` if it is grey, otherwise in ``RGB``."""
    if image.mode in DEEP or image.mode == "I":
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("P", "PA", "RGBa"):
        # Pillow warns about a palette with transparency unless it goes through RGBA.
        image = image.convert("RGBA")
    return image.convert("L" if image.mode in GREY else "RGB")


@contextmanager
def opened(file: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises for a damaged one becomes a DatasetError that names it."""
    try:
        image = Image.open(file if content is None else io.BytesIO(content))
    except Exception as error:
        raise unreadable(file, error) from error
    with image:
        yield image


def unreadable(file: Path, error: Exception) -> DatasetError:
    """Return the error that says that ``file`` cannot be read, because of ``error``."""
    if isinstance(error, OSError) and error.errno is not None:
        reason = f" ({error.strerror})"
    elif is_truncated(error):
        reason = " (it is truncated)"
    elif isinstance(error, Image.DecompressionBombError):
        reason = " (it has too many pixels)"
    else:
        reason = ""
    return DatasetError(f"{file} cannot be read as an image{reason}; replace or remove it")


def is_truncated(error: BaseException | None) -> bool:
    """Whether Pillow raised ``error`` because the end of a file is missing."""
    return isinstance(error, EOFError) or "truncated" in str(error).lower()
