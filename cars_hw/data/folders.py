"""Images that lie in one folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cars_hw.data.images import GREY, Size, opened, read_image, require_mode, upright_size
from cars_hw.data.splits import stratified_split
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress, counted, silent

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What an image's file name ends in, in either case; other files are passed over."""

TEST_SHARE = 1 / 6
SMALLEST_CLASS = 4
"""With fewer images, largest remainder leaves the test part without any."""

Part = tuple[Tensor, Tensor]
"""Images, uint8 ``(N, C, H, W)``, and labels, int64 ``(N,)``."""


def read_folder(
    folder: Path, resolution: Size | None, seed: int, progress: Progress = silent
) -> tuple[Part, Part, tuple[str, ...]]:
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
        images = _read_images([*train_files, *test_files], resolution, progress)
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
    images = _read_images(files, resolution, progress)
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


def _read_images(files: list[Path], resolution: Size | None, progress: Progress) -> Tensor:
    """Return all images as one uint8 tensor of shape ``(images, channels, height, width)``."""
    grey = True
    # Headers first: channels and size must be known before the one array that all images go into can be made.
    sizes: dict[Size, Path] = {}
    for file in counted(files, progress, "checking images"):
        with opened(file) as image:
            require_mode(file, image)
            grey = grey and image.mode in GREY
            if resolution is None:
                sizes.setdefault(upright_size(image), file)
    if len(sizes) > 1:
        ((height, width), first), ((other_height, other_width), second) = list(sizes.items())[:2]
        raise DatasetError(
            f"the images differ in size ({first} has {height}x{width} pixels, "
            f"{second} {other_height}x{other_width})",
            remedy="resize",
        )
    height, width = resolution or next(iter(sizes))
    pixels = np.empty((len(files), height, width, 1 if grey else 3), np.uint8)
    for index, file in enumerate(counted(files, progress, "reading images")):
        pixels[index] = read_image(file, pixels.shape[-1], (height, width))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
