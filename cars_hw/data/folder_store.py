"""The images of a folder in a store, for folders whose images do not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from cars_hw.data.image_cache import cache_name, listing_of
from cars_hw.data.image_store import SUFFIX, ImageStore, Item, Making, Rows, open_or_make
from cars_hw.data.images import Size, decoder, resized, upright
from cars_hw.data.reading import in_threads
from cars_hw.data.scan import NOT_READ, FolderScan
from cars_hw.data.splits import mixed_order
from cars_hw.errors import DatasetError
from cars_hw.progress import Log, Progress

LOOKED_AT: Final = 16
"""So many files tell whether a folder is grey, and how large its images are."""


def stored_bytes(found: FolderScan, resolution: Size | None) -> int:
    """Return about how many bytes the pixels of the folder take at ``resolution``: by a few of its images."""
    files = found.files
    channels, shape = 1, resolution
    for file in _some(files):
        try:
            image = upright(file)
        except DatasetError:
            continue
        channels = max(channels, len(image.getbands()))
        shape = shape or (image.height, image.width)
    return 0 if shape is None else len(files) * channels * shape[0] * shape[1]


def stored_images(
    found: FolderScan,
    resolution: Size | None,
    cache: Path | None,
    *,
    taken: str,
    progress: Progress,
    log: Log,
) -> ImageStore:
    """Return the store with the images of ``found`` at ``resolution``, which is in ``cache`` or made there.

    ``taken`` tells how much memory the images would take.

    Raises:
        DatasetError: there is no ``cache``, the images differ in size, or the disk has no space for them.
    """
    if cache is None:
        raise DatasetError(
            f"{taken}: they must be stored, and there is no folder to store them in", remedy="store-images"
        )
    log(f"{taken}: they are stored in {cache}, and read from there")
    files, unsupported = found.files, frozenset(found.unsupported)

    def one(place: int) -> Item:
        file = files[place]
        if file in unsupported:
            return Item(None, NOT_READ.format(file))
        try:
            image = upright(file)
        except DatasetError as error:
            return Item(None, str(error))
        pixels = np.asarray(image if resolution is None else resized(image, resolution), np.uint8)
        return Item(pixels.reshape(*pixels.shape[:2], -1))

    def read(places: Sequence[int], told: Progress) -> Iterable[Item]:
        return in_threads(one, places, told, "storing images")

    about = {
        "folder": os.fsencode(found.folder.absolute()).hex(),
        "resolution": resolution,
        "listing": listing_of(found),
        "decoder": decoder(),
    }
    making = Making(
        cache / f"{cache_name(found.folder, about)}{SUFFIX}",
        about,
        _order(found),
        read,
        lambda place: str(files[place]),
        grey=not _some_are_coloured(files),
    )
    return open_or_make(making, progress, log)


def _some(files: Sequence[Path]) -> list[Path]:
    return [files[place] for place in sorted({len(files) * one // LOOKED_AT for one in range(LOOKED_AT)})]


def _some_are_coloured(files: Sequence[Path]) -> bool:
    for file in _some(files):
        try:
            if len(upright(file).getbands()) > 1:
                return True
        except DatasetError:
            continue
    return False


def _order(found: FolderScan) -> Rows:
    """Return an order of the files in which every stretch of a part has its classes in their share.

    It is that of an evaluation, which then reads the test part from its beginning to its end.
    """
    orders, before = [], 0
    for classes in found.parts.values():
        counts = torch.tensor([len(members) for members in classes.values()])
        labels = torch.arange(len(classes)).repeat_interleave(counts)
        orders.append(before + mixed_order(labels, torch.Generator().manual_seed(0)))
        before += len(labels)
    order: Rows = torch.cat(orders).numpy()
    return order
