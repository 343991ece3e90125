"""Images that lie in one folder for each class, as the parts of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cars_hw.data.dataset import Dataset
from cars_hw.data.folder_store import stored_bytes, stored_images
from cars_hw.data.image_cache import read_cached
from cars_hw.data.images import Size
from cars_hw.data.limits import SMALLEST_CLASS, TEST_SHARE, VALIDATION_IS_TEST
from cars_hw.data.memory import memory_limit
from cars_hw.data.scan import FolderScan, scan_folder
from cars_hw.data.splits import stratified_split
from cars_hw.data.streamed import StreamedDataset
from cars_hw.errors import DatasetError
from cars_hw.formatting import printable, size
from cars_hw.progress import Log, Progress, no_log, silent

NAMED = 3
"""How many of the files that were left out are named."""


@dataclass(frozen=True, eq=False)
class FolderPart:
    """The images of a part with their labels, and their files, N."""

    dataset: Dataset
    files: tuple[Path, ...]

    def select(self, indices: Tensor) -> FolderPart:
        """Return the images at ``indices``, in that order."""
        return FolderPart(self.dataset.select(indices), tuple(self.files[index] for index in indices.tolist()))


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
    memory: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> FolderImages:
    """Return the parts of the images in ``folder``; :mod:`cars_hw.data.scan` tells how it may be arranged.

    Without a test part, the validation part is the test part; without both, a sixth of each class, drawn by
    ``seed``, is. Images are decoded by the rules of :mod:`cars_hw.data.images`, are grey (one channel) if all of
    them are, and are resized to ``resolution`` (height and width in pixels) if given. With ``skip_unreadable``
    those that cannot be read are left out, which ``log`` tells.

    Images that take up to ``memory`` bytes (None: see :func:`cars_hw.data.memory.memory_limit`) are held in memory.
    The read images are then kept in the folder ``cache``, if one is given: see :mod:`cars_hw.data.image_cache`.
    Others are stored there, and read while they are used: see :mod:`cars_hw.data.streamed`.

    Raises:
        DatasetError: the folder cannot be used as it is arranged, a class has too few images, images differ in
            size while ``resolution`` is None, an image is unreadable, or the images take more than ``memory`` and
            there is no ``cache``.
    """
    found = scan_folder(folder)
    _require_enough(found, {name: len(files) for name, files in found.train.items()})
    needed, limit = stored_bytes(found, resolution), memory_limit(memory)
    if needed > limit:
        name = printable(str(folder))
        taken = f"the images of {name} take {size(needed)}, and the limit of memory is {size(limit)}"
        store = stored_images(found, resolution, cache, taken=taken, progress=progress, log=log)
        failed = tuple((place, str(store.abouts[place])) for place in store.failed)
        rows, labels = torch.from_numpy(store.row_of), _labels(found)
        images = _ReadFolder(StreamedDataset(store, rows, labels), failed)
    else:
        read = read_cached(found, resolution, cache, progress, log)
        images = _ReadFolder(Dataset(torch.from_numpy(read.pixels), _labels(found)[list(read.read)]), read.failed)
    if images.failed:
        if not skip_unreadable:
            raise _unreadable(folder, [reason for _, reason in images.failed])
        log(_left_out(found.files, images.failed))
    parts = _parts(found, images)
    train = parts["train"]
    _require_some(found, parts)
    if not found.has_parts:
        _require_enough(found, _counts(train.dataset.labels, found.class_names))
        generator = torch.Generator().manual_seed(seed)
        chosen = stratified_split(train.dataset.labels, (1 - TEST_SHARE, TEST_SHARE), generator)
        return FolderImages(train.select(chosen[0]), None, train.select(chosen[1]), found.class_names)
    if "test" not in parts:
        log(f"{printable(str(folder))}: {VALIDATION_IS_TEST}")
        return FolderImages(train, None, parts["validation"], found.class_names)
    return FolderImages(train, parts.get("validation"), parts["test"], found.class_names)


@dataclass(frozen=True, eq=False)
class _ReadFolder:
    """The images of all parts, and the place and the reason of each file that could not be read.

    Of images in memory, those that could not be read are left out; a stored data set has an image for each file.
    """

    images: Dataset
    failed: tuple[tuple[int, str], ...]


def _parts(found: FolderScan, read: _ReadFolder) -> dict[str, FolderPart]:
    """Return the images that were read, part by part."""
    failed = {place for place, _ in read.failed}
    everything = isinstance(read.images, StreamedDataset)
    parts: dict[str, FolderPart] = {}
    before, first = 0, 0
    for name, classes in found.parts.items():
        files = [file for members in classes.values() for file in members]
        kept = [place for place in range(len(files)) if before + place not in failed]
        if everything:
            chosen = read.images.select(torch.tensor([before + place for place in kept], dtype=torch.int64))
        else:
            # A slice, so that the images of the parts are not copied.
            of = slice(first, first + len(kept))
            chosen = Dataset(read.images.images[of], read.images.labels[of])
        parts[name] = FolderPart(chosen, tuple(files[place] for place in kept))
        before, first = before + len(files), first + len(kept)
    return parts


def _labels(found: FolderScan) -> Tensor:
    """Return the class of every file, part by part: int64 of shape ``(files,)``."""
    numbers = [
        torch.arange(len(classes)).repeat_interleave(torch.tensor([len(members) for members in classes.values()]))
        for classes in found.parts.values()
    ]
    return torch.cat(numbers)


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
        for name, count in _counts(images.dataset.labels, found.class_names).items():
            if count == 0:
                raise DatasetError(
                    f"class {name} in the {part} part of {found.folder} has no image that can be read"
                )


def _unreadable(folder: Path, reasons: list[str]) -> DatasetError:
    count = len(reasons)
    message = f"{reasons[0]} ({count} images in {folder} cannot be read)" if count > 1 else reasons[0]
    return DatasetError(message, remedy="skip-unreadable", folder=folder)


def _left_out(files: Sequence[Path], failed: Sequence[tuple[int, str]]) -> str:
    count = len(failed)
    named = ", ".join(printable(str(files[place])) for place, _ in failed[:NAMED])
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return f"{count} of {len(files)} images cannot be read and are left out: {named}{more}"
