"""Images that lie in one folder for each class."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from cars_hw.data.splits import stratified_split
from cars_hw.errors import DatasetError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What an image's file name ends in, in either case; other files are passed over."""

TEST_SHARE = 1 / 6
SMALLEST_CLASS = 4
"""With fewer images, largest remainder leaves the test part without any."""

Part = tuple[Tensor, Tensor]
"""Images, uint8 ``(N, C, H, W)``, and labels, int64 ``(N,)``."""

Size = tuple[int, int]
"""Height and width, in pixels."""

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_folder(folder: Path, resolution: Size | None, seed: int) -> tuple[Part, Part, tuple[str, ...]]:
    """Return the training part, the test part and the class names of the images in ``folder``.

    If ``folder`` holds ``train/`` and ``test/``, or else ``train/`` and ``val/``, these are the parts.
    Otherwise a sixth of each class, drawn by ``seed``, is the test part. Classes are the folders, in the
    order of their names; hidden files and folders are passed over. Images are turned upright as their EXIF
    data says, lose their transparency, are grey (one channel) if all of them are, and are resized to
    ``resolution`` (height and width in pixels) if given. All of them are held in memory.

    Raises:
        DatasetError: fewer than two classes, a class without images or with too few to split, parts that
            differ in their classes, images that differ in size while ``resolution`` is None, or an unreadable
            image.
    """
    held_out = next((name for name in ("test", "val") if (folder / name).is_dir()), None)
    if held_out is not None and (folder / "train").is_dir():
        training, test = _classes(folder / "train"), _classes(folder / held_out)
        if differing := sorted(training.keys() ^ test.keys()):
            raise DatasetError(
                f"{folder / 'train'} and {folder / held_out} must hold the same classes; "
                f"only one of them has {', '.join(differing)}"
            )
        (train_files, train_labels), (test_files, test_labels) = _flat(training), _flat(test)
        images = _read_images([*train_files, *test_files], resolution)
        train_images, test_images = images.tensor_split([len(train_files)])
        return (train_images, train_labels), (test_images, test_labels), tuple(training)

    classes = _classes(folder)
    for name, members in classes.items():
        if len(members) < SMALLEST_CLASS:
            raise DatasetError(
                f"class {name} in {folder} has too few images to split ({len(members)}); give it at least "
                f"{SMALLEST_CLASS}, or provide train/ and test/ folders"
            )
    files, labels = _flat(classes)
    images = _read_images(files, resolution)
    train, held = stratified_split(labels, (1 - TEST_SHARE, TEST_SHARE), torch.Generator().manual_seed(seed))
    return (images[train], labels[train]), (images[held], labels[held]), tuple(classes)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return every class's image files, both in the order of their names."""
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        classes = {
            entry.name: [
                file
                for file in sorted(entry.iterdir())
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            ]
            for entry in entries
            if entry.is_dir()
        }
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    if not entries:
        raise DatasetError(f"{folder} is empty; put a folder of images for each class there")
    if len(classes) < 2:
        raise DatasetError(f"{folder} has fewer than two classes; put a folder of images for each there")
    for name, files in classes.items():
        if not files:
            raise DatasetError(
                f"class folder {folder / name} holds no images; remove it, or put images directly into it "
                f"({', '.join(SUFFIXES)})"
            )
    return classes


def _flat(classes: dict[str, list[Path]]) -> tuple[list[Path], Tensor]:
    files = [file for members in classes.values() for file in members]
    counts = torch.tensor([len(members) for members in classes.values()])
    return files, torch.arange(len(classes)).repeat_interleave(counts)


def _read_images(files: list[Path], resolution: Size | None) -> Tensor:
    """Return all images as one uint8 tensor of shape ``(images, channels, height, width)``."""
    grey = True
    # Headers first: channels and size must be known before the one array that all images go into can be made.
    sizes: dict[Size, Path] = {}
    for file in files:
        with _opened(file) as image:
            if image.mode not in _GREY and image.mode not in _COLOUR:
                raise DatasetError(f"{file} has pixels of mode {image.mode}; save it as 8-bit grey or RGB")
            grey = grey and image.mode in _GREY
            if resolution is None:
                sizes.setdefault(_upright_size(image), file)
    if len(sizes) > 1:
        ((height, width), first), ((other_height, other_width), second) = list(sizes.items())[:2]
        raise DatasetError(
            f"the images differ in size ({first} has {height}x{width} pixels, "
            f"{second} {other_height}x{other_width}); add --resolution to resize them"
        )
    height, width = resolution or next(iter(sizes))
    pixels = np.empty((len(files), height, width, 1 if grey else 3), np.uint8)
    for index, file in enumerate(files):
        with _opened(file) as image:
            ImageOps.exif_transpose(image, in_place=True)
            plain = _plain(image, "L" if grey else "RGB")
            if plain.size != (width, height):
                plain = plain.resize((width, height), Image.Resampling.BILINEAR)
            pixels[index] = np.asarray(plain).reshape(pixels.shape[1:])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _upright_size(image: Image.Image) -> Size:
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
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises for a damaged one becomes a DatasetError that names it."""
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"{file} cannot be read as an image; replace or remove it") from error
