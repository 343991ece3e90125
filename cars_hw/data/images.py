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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import PIL
from PIL import ExifTags, Image, ImageOps, features

from cars_hw.config.decoding import HIGH_BYTE, PLAIN, SIXTEEN_BIT, Decoding, Resizing
from cars_hw.errors import DatasetError

Size = tuple[int, int]
"""Height and width, in pixels."""

Pixels = npt.NDArray[np.uint8]

RESIZING: Final = Resizing()

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
    return read_by(file, Decoding.of(channels), RESIZING, size)


def read_by(file: Path, decoding: Decoding, resizing: Resizing, size: Size) -> Pixels:
    """Return the image, of shape ``(height, width, channels)``, as the records of a model's card say.

    Raises:
        DatasetError: it cannot be read, has pixels of more than 16 bits, or of a mode that ``decoding`` lacks.
    """
    with opened(file) as image:
        _load(file, image, turn=decoding.orientation == "exif")
        if image.mode not in decoding.conversions:
            raise DatasetError(f"{file} has pixels of mode {image.mode}, which the model's card does not convert")
        plain = _converted(image, decoding.conversions[image.mode])
        return np.asarray(resized(plain, size, resizing), np.uint8).reshape(*size, decoding.channels)


def upright(file: Path, content: bytes | None = None) -> Image.Image:
    """Return the whole image in ``file``, upright and in mode ``L`` or ``RGB``: ``L`` where the file is grey.

    ``content`` is that of the file, if it was read already.

    Raises:
        DatasetError: it cannot be read, or its pixels have more than 16 bits.
    """
    with opened(file, content) as image:
        _load(file, image)
        return _converted(image, PLAIN[image.mode])


def plain_pixels(image: Image.Image, where: str) -> Pixels:
    """Return the pixels of an open image as those of a file are read: ``(height, width, channels)``.

    ``where`` names it in errors.

    Raises:
        DatasetError: it cannot be decoded, has more than 16 bits, or has pixels of an unknown mode.
    """
    turned = image.copy()
    _load(Path(where), turned)
    plain = _converted(turned, PLAIN[turned.mode])
    return np.asarray(plain, np.uint8).reshape(plain.height, plain.width, -1)


def _load(file: Path, image: Image.Image, *, turn: bool = True) -> None:
    """Decode ``image``, and ``turn`` it upright."""
    try:
        image.load()
        if turn:
            ImageOps.exif_transpose(image, in_place=True)
    # Pillow's decoders raise any exception for damaged files.
    except Exception as error:
        raise unreadable(file, error) from error
    require_mode(file, image)


def resized(image: Image.Image, size: Size, resizing: Resizing = RESIZING) -> Image.Image:
    """Return ``image``, of mode ``L`` or ``RGB``, at ``size``."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[resizing.filter.upper()])


def resized_pixels(pixels: Pixels, size: Size) -> Pixels:
    """Return ``pixels``, of shape ``(height, width, channels)``, at ``size``, as those of a file are resized."""
    grey = pixels.shape[-1] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    return np.asarray(resized(image, size), np.uint8).reshape(*size, pixels.shape[-1])


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the file of ``image``, which was not decoded yet, has pixels of 16 bits, grey or RGB."""
    # Pillow decodes RGB of 16 bits to 8, and only the name of the decoder's mode, such as RGB;16B, tells it.
    return _is_deep(image) or ";16" in str(getattr(image, "tile", ""))


@dataclass(frozen=True)
class Header:
    """What is known of an image file before its pixels are decoded.

    ``size`` is that of the upright image. ``deep``: it has pixels of 16 bits. ``animated``: the file has several
    images; a preview beside a photograph does not count.
    """

    size: Size
    deep: bool
    animated: bool


def read_header(file: Path, content: bytes) -> Header:
    """Return the header of the image in ``file``, whose content is ``content``.

    Raises:
        DatasetError: it cannot be read.
    """
    with opened(file, content) as image:
        try:
            animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
            return Header(_upright_size(image), _has_16_bits(image), animated)
        # Pillow's decoders raise any exception for damaged files.
        except Exception as error:
            raise unreadable(file, error) from error


def largest_deep_value(file: Path, content: bytes) -> int | None:
    """Return the largest pixel of ``file``, which can be read; None unless its pixels are grey and of 16 bits."""
    with opened(file, content) as image:
        return int(np.asarray(image).max()) if _is_deep(image) else None


def _is_deep(image: Image.Image) -> bool:
    """Whether ``image`` has grey pixels of 16 bits."""
    return image.mode in SIXTEEN_BIT and (image.mode != "I" or image.format in _DEEP_AS_32)


def require_mode(file: Path, image: Image.Image) -> None:
    """Check that the pixels of ``image`` are among those that can be read.

    Raises:
        DatasetError: they are not.
    """
    if image.mode not in PLAIN or (image.mode == "I" and not _is_deep(image)):
        raise DatasetError(f"{file} has pixels of mode {image.mode}; save it as grey or RGB of 8 or 16 bits")


def _upright_size(image: Image.Image) -> Size:
    """Return the size that ``image`` will have once it is turned upright, without decoding it."""
    lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (image.width, image.height) if lies_on_its_side else (image.height, image.width)


def _converted(image: Image.Image, steps: Sequence[str]) -> Image.Image:
    """Return ``image`` after the conversions ``steps``."""
    for step in steps:
        if step == HIGH_BYTE:
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        else:
            image = image.convert(step)
    return image


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
