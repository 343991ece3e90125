"""Images that lie in one folder for each class, as the parts of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cars_hw.data.image_cache import read_cached
from cars_hw.data.images import Size
from cars_hw.data.limits import SMALLEST_CLASS, TEST_SHARE, VALIDATION_IS_TEST
from cars_hw.data.reading import ReadImages
from cars_hw.data.scan import Classes, FolderScan, scan_folder
from cars_hw.data.splits import stratified_split
from cars_hw.errors import DatasetError
from cars_hw.formatting import printable
from cars_hw.progress import Log, Progress, no_log, silent

NAMED = 3
"""How many of the files that were left out are named."""


@dataclass(frozen=True, eq=False)
class FolderPart:
    """The images of a part, uint8 ``(N, C, H, W)``, their labels, int64 ``(N,)``, and their files, N."""

    images: Tensor
    labels: Tensor
    files: tuple[Path, ...]

    def select(self, indices: Tensor) -> FolderPart:
        """Return the images at ``indices``, in that order."""
        return FolderPart(
            self.images[indices], self.labels[indices], tuple(self.files[index] for index in indices.tolist())
        )


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The images of a folder. ``validation`` is None where the folder has no such part beside a test part."""

    train: FolderPart
    validation: FolderPart | None
    test: FolderPart
    class_names: tuple[str, ...]


def read_folder(
    folder: Path,
    resolution: Size | None,
    seed: int,
    *,
    skip_unreadable: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> FolderImages:
    """Return the parts of the images in ``folder``; :mod:`cars_hw.data.scan` tells how it may be arranged.

    Without a test part, the validation part is the test part; without both, a sixth of each class, drawn by
    ``seed``, is. Images are decoded by the rules of :mod:`cars_hw.data.images`, are grey (one channel) if all of
    them are, and are resized to ``resolution`` (height and width in pixels) if given. All of them are held in
    memory. With ``skip_unreadable`` those that cannot be read are left out, which ``log`` tells. The read images
    are kept in the folder ``cache``, if one is given: see :mod:`cars_hw.data.image_cache`.

    Raises:
        DatasetError: the folder cannot be used as it is arranged, a class has too few images, images differ in
            size while ``resolution`` is None, or an image is unreadable.
    """
    found = scan_folder(folder)
    _require_enough(found, {name: len(files) for name, files in found.train.items()})
    images = read_cached(found, resolution, cache, progress, log)
    if images.failed:
        if not skip_unreadable:
            raise _unreadable(folder, [reason for _, reason in images.failed])
        log(_left_out(found.files, images))
    parts = _parts(found, images)
    train = parts["train"]
    _require_some(found, parts)
    if not found.has_parts:
        _require_enough(found, _counts(train.labels, found.class_names))
        generator = torch.Generator().manual_seed(seed)
        chosen = stratified_split(train.labels, (1 - TEST_SHARE, TEST_SHARE), generator)
        return FolderImages(train.select(chosen[0]), None, train.select(chosen[1]), found.class_names)
    if "test" not in parts:
        log(f"{printable(str(folder))}: {VALIDATION_IS_TEST}")
        return FolderImages(train, None, parts["validation"], found.class_names)
    return FolderImages(train, parts.get("validation"), parts["test"], found.class_names)


def _parts(found: FolderScan, images: ReadImages) -> dict[str, FolderPart]:
    """Return the images that were read, part by part."""
    pixels = torch.from_numpy(images.pixels)
    parts: dict[str, FolderPart] = {}
    before, first = 0, 0
    for name, classes in found.parts.items():
        files, labels = _flat(classes)
        kept = [place - before for place in images.read if before <= place < before + len(files)]
        chosen = pixels[first : first + len(kept)]
        parts[name] = FolderPart(chosen, labels[kept], tuple(files[place] for place in kept))
        before, first = before + len(files), first + len(kept)
    return parts


def _flat(classes: Classes) -> tuple[list[Path], Tensor]:
    files = [file for members in classes.values() for file in members]
    counts = torch.tensor([len(members) for members in classes.values()])
    return files, torch.arange(len(classes)).repeat_interleave(counts)


def _counts(labels: Tensor, names: Sequence[str]) -> dict[str, int]:
    return dict(zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _require_enough(found: FolderScan, counts: dict[str, int]) -> None:
    """Check that every class can be divided, if there are no parts."""
    if found.has_parts:
        return
    for name, count in counts.items():
        if count < SMALLEST_CLASS:
            raise DatasetError(
                f"class {name} in {found.folder} has too few images to split ({count}); give it at least "
                f"{SMALLEST_CLASS}, or provide train/ and test/ folders"
            )


def _require_some(found: FolderScan, parts: dict[str, FolderPart]) -> None:
    for part, images in parts.items():
        for name, count in _counts(images.labels, found.class_names).items():
            if count == 0:
                raise DatasetError(
                    f"class {name} in the {part} part of {found.folder} has no image that can be read"
                )


def _unreadable(folder: Path, reasons: list[str]) -> DatasetError:
    count = len(reasons)
    message = f"{reasons[0]} ({count} images in {folder} cannot be read)" if count > 1 else reasons[0]
    return DatasetError(message, remedy="skip-unreadable", folder=folder)


def _left_out(files: Sequence[Path], images: ReadImages) -> str:
    count = len(images.failed)
    named = ", ".join(printable(str(files[place])) for place, _ in images.failed[:NAMED])
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return f"{count} of {len(files)} images cannot be read and are left out: {named}{more}"
