"""Images in a file that is mapped into memory: for data sets that do not fit there.

A store is a folder with the pixels of one data set at one size:

- ``pixels``: every image as bytes, channels first, one after the other, without any header.
- ``index.json``: what the images are of, their shape, and a CRC-32 of every block of ``pixels``. It is written last
  and in one step: a store without it is unfinished.
- ``journal``: of an unfinished store, a line for each block that was written. A store whose making was interrupted
  goes on after the last block that is as its line says.

Images do not stand in the order of the data set but in one that the maker gives, so that neighbours are of all
classes. A block is verified when one of its images is first read.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import parse_json
from cars_hw.config.lock import locked
from cars_hw.data.images import Pixels
from cars_hw.errors import DatasetError, RunError
from cars_hw.formatting import size
from cars_hw.progress import Log, Progress

_LOG: Final = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]

BLOCK_BYTES: Final = 4 << 20
"""About so many bytes make a block. It is what a disk reads at once, and what is shuffled as a whole."""

SUFFIX: Final = ".stored"
INDEX: Final = "index.json"
PIXELS: Final = "pixels"
JOURNAL: Final = "journal"

FORMAT: Final = ChecksummedFormat("cars-hw image store", 1, "check-data", DatasetError)

WAIT_SECONDS: Final = 1.0
UNUSED_SECONDS: Final = 30 * 86400.0


@dataclass(frozen=True)
class Item:
    """An image of a data set as its maker reads it: shape ``(height, width, channels)``; None if it cannot be read.

    ``about`` is kept with the image: plain values, or the reason why it cannot be read.
    """

    pixels: Pixels | None
    about: Any = None


@dataclass(frozen=True)
class Making:
    """How a store is made.

    ``about`` identifies its content, in plain values. ``order`` has the place in the data set of each stored image.
    ``read`` yields the items at places, in the order of the places. ``name`` names a place in errors. ``grey``
    tells whether the images are assumed to be grey: a coloured one makes the store begin again in colour.
    """

    folder: Path
    about: Mapping[str, Any]
    order: Rows
    read: Callable[[Sequence[int], Progress], Iterable[Item]]
    name: Callable[[int], str]
    grey: bool = False
    block_bytes: int = field(default_factory=lambda: BLOCK_BYTES)


@dataclass(eq=False)
class ImageStore:
    """The images of a finished store.

    ``shape`` is ``(images, channels, height, width)``. ``row_of`` has for each place of the data set where its
    image is stored. ``abouts`` has what was kept of each place, empty if that is nothing. ``failed`` are the places
    of images that could not be read: what is stored of these is black.
    """

    folder: Path
    shape: tuple[int, int, int, int]
    block: int
    sums: Rows
    row_of: Rows
    abouts: tuple[Any, ...]
    failed: tuple[int, ...]
    _verified: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._verified = np.zeros(len(self.sums), np.bool_)
        with (self.folder / PIXELS).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, np.uint8).reshape(self.shape)

    @property
    def image_bytes(self) -> int:
        """The bytes of an image."""
        return int(np.prod(self.shape[1:]))

    def take(self, rows: Rows, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Return a copy of the images at ``rows``, uint8 of shape ``(len(rows), channels, height, width)``.

        It is written to ``out`` if that is given.

        Raises:
            DatasetError: a block of them is not as it was written.
        """
        self._verify(rows)
        # Without a mode, numpy takes a second buffer of this size. The rows are known to be within the store.
        return np.take(self._rows, rows, axis=0, out=out, mode="clip")

    def announce(self, blocks: Iterable[int]) -> None:
        """Tell the system that ``blocks`` are read soon, so that it reads them meanwhile."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        length = self.block * self.image_bytes
        for block in blocks:
            start = block * length // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, min(length + mmap.PAGESIZE, len(self._map) - start))

    def _verify(self, rows: Rows) -> None:
        blocks = np.unique(rows // self.block)
        for block in blocks[~self._verified[blocks]].tolist():
            pixels = self._rows[block * self.block : (block + 1) * self.block]
            if zlib.crc32(pixels.data) != self.sums[block]:
                raise DatasetError(
                    f"the stored images in {self.folder} were changed or damaged (block {block} of "
                    f"{len(self.sums)}: checksum mismatch); remove this folder, and they are made again"
                )
            self._verified[block] = True


def open_or_make(making: Making, progress: Progress, log: Log) -> ImageStore:
    """Return the store that ``making`` describes: as it is, gone on with, or made.

    ``progress`` counts the images. ``log`` tells where a store is made, or that another process makes it.

    Raises:
        DatasetError: images differ in size, or there is no space for the store.
    """
    store = _opened(making, log)
    if store is not None:
        return store
    with _alone(making.folder, log):
        # Another process may have made it meanwhile.
        store = _opened(making, log)
        if store is None:
            remove_unused(making.folder.parent)
            _make(making, progress, log)
            store = _opened(making, log)
    if store is None:
        raise DatasetError(f"the stored images in {making.folder} are gone again; run the command again")
    return store


def _opened(making: Making, log: Log) -> ImageStore | None:
    """Return the finished store; None if there is none, or if it is of other images."""
    path = making.folder / INDEX
    if not path.is_file():
        return None
    try:
        content = FORMAT.read(path)
        if content["about"] != _plain(making.about):
            return None
        shape = tuple(content["shape"])
        pixels = making.folder / PIXELS
        if shape[0] != len(making.order) or pixels.stat().st_size != int(np.prod(shape)):
            raise DatasetError(f"{pixels} does not have {shape[0]} images of {shape[1:]}")
        row_of = np.empty(len(making.order), np.int64)
        row_of[making.order] = np.arange(len(making.order))
        os.utime(path)
        return ImageStore(
            making.folder,
            shape,
            content["block"],
            np.array(content["sums"], np.int64),
            row_of,
            tuple(content["abouts"]),
            tuple(content["failed"]),
        )
    except (OSError, DatasetError, KeyError, TypeError, ValueError) as error:
        log(f"the stored images in {making.folder} cannot be used ({error}); they are made again")
        return None


@contextmanager
def _alone(folder: Path, log: Log) -> Iterator[None]:
    """Hold the lock of the store in ``folder``; wait for another process that makes it."""
    # Pictures may be private, and this is a copy of them.
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = False
    while True:
        lock = locked(folder.with_suffix(".lock"), str(folder))
        try:
            lock.__enter__()
            break
        except RunError:
            if not told:
                log(f"another process makes {folder}: waiting for it")
            told = True
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


class _ColouredError(Exception):
    """A coloured image came after grey ones."""


def _make(making: Making, progress: Progress, log: Log) -> None:
    try:
        _Maker(making, progress, log, grey=making.grey).make()
    except _ColouredError:
        _Maker(making, progress, log, grey=False).make()


@dataclass
class _Maker:
    """The making of a store, from the beginning or after the last block that is there."""

    making: Making
    progress: Progress
    log: Log
    grey: bool
    shape: tuple[int, int, int] | None = None
    """Channels, height and width of an image."""
    first: str = ""
    sums: list[int] = field(default_factory=list)
    abouts: dict[int, Any] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)

    def make(self) -> None:
        folder = self.making.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        images = len(self.making.order)
        done = self._resume()
        if done:
            self.log(f"goes on with {folder} after {done:,} of {images:,} images")
        rest = self.making.order[done:].tolist()
        items = iter(
            self.making.read(rest, lambda stage, count, _total: self.progress(stage, done + count, images))
        )
        if not done:
            # A new file, as commands that use the store before have its pixels mapped into memory: they keep those.
            (folder / PIXELS).unlink(missing_ok=True)
        mode = "ab" if done else "wb"
        with (folder / PIXELS).open(mode) as pixels, (folder / JOURNAL).open(mode) as journal:
            (folder / PIXELS).chmod(0o600)
            if not done:
                journal.write(_line({"about": _plain(self.making.about), "grey": self.grey}))
            waiting: list[tuple[int, Item]] = []
            for place, item in zip(rest, items, strict=True):
                waiting.append((place, item))
                self._look_at(place, item)
                while self.shape is not None and len(waiting) >= self.block:
                    self._write(waiting[: self.block], pixels, journal)
                    del waiting[: self.block]
            if self.shape is None:
                raise DatasetError(f"no image for {folder} can be read: {waiting[0][1].about}")
            while waiting:
                self._write(waiting[: self.block], pixels, journal)
                waiting = waiting[self.block :]
            pixels.flush()
            os.fsync(pixels.fileno())
        assert self.shape is not None
        FORMAT.write(
            folder / INDEX,
            {
                "about": _plain(self.making.about),
                "shape": [images, *self.shape],
                "block": self.block,
                "sums": self.sums,
                "abouts": [self.abouts.get(place) for place in range(images)] if self.abouts else [],
                "failed": sorted(self.failed),
            },
        )
        (folder / JOURNAL).unlink()

    @property
    def block(self) -> int:
        """The images of a block."""
        assert self.shape is not None
        return max(1, self.making.block_bytes // int(np.prod(self.shape)))

    def _look_at(self, place: int, item: Item) -> None:
        """Take the shape of the first image, and check that others have it, too."""
        if item.pixels is None:
            return
        height, width, channels = item.pixels.shape
        if channels == 3 and self.grey:
            raise _ColouredError
        if self.shape is None:
            self.shape = (1 if self.grey else 3, height, width)
            self.first = self.making.name(place)
            self._require_space()
        elif self.shape[1:] != (height, width):
            raise DatasetError(
                f"the images differ in size ({self.first} has {self.shape[1]}x{self.shape[2]} pixels, "
                f"{self.making.name(place)} {height}x{width})",
                remedy="resize",
            )

    def _write(self, items: Sequence[tuple[int, Item]], pixels: Any, journal: Any) -> None:  # noqa: ANN401 -- files
        assert self.shape is not None
        block = np.zeros((len(items), *self.shape), np.uint8)
        for row, (_, item) in enumerate(items):
            if item.pixels is not None:
                # One channel becomes as many as the store has.
                block[row] = item.pixels.transpose(2, 0, 1)
        pixels.write(block.data)
        # The line tells that the block is there, so it must not come before it.
        pixels.flush()
        line = {
            "shape": list(self.shape),
            "first": self.first,
            "sum": zlib.crc32(block.data),
            "abouts": [item.about for _, item in items],
            "failed": [place for place, item in items if item.pixels is None],
        }
        journal.write(_line(line))
        journal.flush()
        self._count([place for place, _ in items], line)

    def _count(self, places: Sequence[int], line: Mapping[str, Any]) -> None:
        self.sums.append(line["sum"])
        self.failed += line["failed"]
        kept = zip(places, line["abouts"], strict=True)
        self.abouts.update({place: about for place, about in kept if about is not None})

    def _resume(self) -> int:
        """Return how many images are there already, after their blocks were verified."""
        folder, images = self.making.folder, len(self.making.order)
        try:
            head, *lines = (folder / JOURNAL).read_bytes().splitlines()
            begun = parse_json(head)
            if begun["about"] != _plain(self.making.about):
                return 0
            # A store that was begun in colour stays in colour.
            self.grey = begun["grey"] and self.grey
            if begun["grey"] is not self.grey:
                return 0
            done, end = 0, len(head) + 1
            with (folder / PIXELS).open("rb") as pixels:
                for text in lines:
                    line = parse_json(text)
                    self.shape, self.first = tuple(line["shape"]), line["first"]
                    number = min(self.block, images - done)
                    if zlib.crc32(pixels.read(number * int(np.prod(self.shape)))) != line["sum"]:
                        break
                    self._count(self.making.order[done : done + number].tolist(), line)
                    done, end = done + number, end + len(text) + 1
                    self.progress("checking stored images", done, images)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.debug("%s: %s", folder, error)
            if not self.sums:
                return 0
        if done:
            assert self.shape is not None
            os.truncate(folder / PIXELS, done * int(np.prod(self.shape)))
            os.truncate(folder / JOURNAL, end)
        return done

    def _require_space(self) -> None:
        assert self.shape is not None
        folder = self.making.folder
        needed = len(self.making.order) * int(np.prod(self.shape))
        left = shutil.disk_usage(folder).free
        self.log(f"the images are stored in {folder} ({size(needed)})")
        if needed > left:
            raise DatasetError(
                f"the images take {size(needed)} in {folder.parent}, which has {size(left)} left; free some space, "
                "or give a smaller resolution",
                remedy="other-image-cache",
            )


def remove_unused(folder: Path) -> None:
    """Remove the stores in ``folder`` that were not used for :data:`UNUSED_SECONDS`."""
    for path in folder.glob(f"*{SUFFIX}"):
        used = [one.stat().st_mtime for name in (INDEX, JOURNAL) if (one := path / name).is_file()]
        if used and time.time() - max(used) > UNUSED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _plain(about: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- as JSON has it
    return json.loads(json.dumps(about))
