"""Many image files as one array: read by several threads, whatever their number with the same result."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from cars_hw.data.images import Pixels, Size, resized, upright
from cars_hw.data.scan import NOT_READ
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress, counted, silent

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS: Final = 32

_AHEAD: Final = 4
"""Results that wait for their turn, for each thread: an image that takes long must not fill the memory."""


@dataclass(frozen=True)
class ReadImages:
    """What was read of a list of files.

    ``pixels`` is uint8 of shape ``(read, channels, height, width)``, with one channel where all images are grey;
    ``read`` are the places of its images in the list. ``failed`` has the place and the reason of each other file.
    """

    pixels: npt.NDArray[np.uint8]
    read: tuple[int, ...]
    failed: tuple[tuple[int, str], ...] = ()


def read_images(
    files: Sequence[Path],
    resolution: Size | None,
    progress: Progress = silent,
    *,
    unsupported: Collection[Path] = (),
) -> ReadImages:
    """Read ``files`` at ``resolution``, height and width in pixels; None keeps their size.

    Files among ``unsupported`` are not opened, and count as failed.

    Raises:
        DatasetError: ``resolution`` is None and the images differ in size.
    """

    closed = frozenset(unsupported)

    def one(file: Path) -> Pixels | str:
        if file in closed:
            return NOT_READ.format(file)
        try:
            image = upright(file)
        except DatasetError as error:
            return str(error)
        return np.asarray(image if resolution is None else resized(image, resolution))

    stack: _Stack | None = None
    read: list[int] = []
    failed: list[tuple[int, str]] = []
    for place, found in enumerate(in_threads(one, files, progress, "reading images")):
        if isinstance(found, str):
            failed.append((place, found))
            continue
        if stack is None:
            stack = _Stack(len(files), found.shape[:2], files[place])
        stack.add(found, files[place])
        read.append(place)
    pixels = np.empty((0, 1, 0, 0), np.uint8) if stack is None else stack.content()
    return ReadImages(pixels, tuple(read), tuple(failed))


class _Stack:
    """An array that images are put into, one after the other; it becomes RGB with the first that is not grey."""

    def __init__(self, room: int, size: Size, first: Path) -> None:
        self._pixels = np.empty((room, 1, *size), np.uint8)
        self._first = first
        self._count = 0

    def add(self, image: Pixels, file: Path) -> None:
        size = self._pixels.shape[2:]
        if image.shape[:2] != size:
            raise DatasetError(
                f"the images differ in size ({self._first} has {size[0]}x{size[1]} pixels, "
                f"{file} {image.shape[0]}x{image.shape[1]})",
                remedy="resize",
            )
        if image.ndim == 3 and self._pixels.shape[1] == 1:
            coloured = np.empty((len(self._pixels), 3, *size), np.uint8)
            coloured[: self._count] = self._pixels[: self._count]
            self._pixels = coloured
        self._pixels[self._count] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        self._count += 1

    def content(self) -> npt.NDArray[np.uint8]:
        return self._pixels[: self._count]


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Progress, stage: str
) -> Iterator[Result]:
    """Yield ``work`` of each of ``items`` in their order; ``progress`` counts them as ``stage``.

    Threads suffice: Pillow decodes without Python's lock.
    """
    threads = min(MOST_THREADS, _cores())
    if threads == 1 or len(items) < 2 * threads:
        yield from (work(item) for item in counted(items, progress, stage))
        return
    rest = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        waiting = deque(pool.submit(work, item) for item in islice(rest, threads * _AHEAD))
        try:
            for _ in counted(items, progress, stage):
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
                yield result
        finally:
            for one in waiting:
                one.cancel()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
