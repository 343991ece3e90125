"""Labelled images that are read from a store while they are used, for data sets that do not fit into memory.

A thread reads the next batches while the present one is used. What it holds in memory is a few batches. The system
keeps what was read in its cache as long as it has room, and takes the room back when programs need it.

An epoch is shuffled by blocks: blocks of neighbours in the store come in a random order, and the images of
:data:`WINDOW` blocks at a time are mixed. Since neighbours in the store were drawn at random when it was made, a
batch has images of the whole data set, and a disk reads megabytes at a time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch
from torch import Tensor

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.data.dataset import LEVELS, Dataset, levels_of
from cars_hw.data.image_store import ImageStore, Rows
from cars_hw.errors import DatasetError

WINDOW: Final = 64
"""The images of so many blocks are mixed with each other."""

AHEAD: Final = 2
"""So many batches are read before they are needed."""

PIECE_BYTES: Final = 1 << 20
"""What goes through all images reads so many bytes at once. Counting makes eight times as much of them."""

_LEVELS: Final = ChecksummedFormat("cars-hw levels of stored images", 1, "check-data", DatasetError)


class StreamedDataset(Dataset):
    """The images at ``rows`` of a store, int64 of shape ``(images,)`` on the CPU, and their ``labels``.

    Batches are on the ``device``. ``images`` reads all of them into memory.
    """

    def __init__(self, store: ImageStore, rows: Tensor, labels: Tensor, device: torch.device | str = "cpu") -> None:
        if labels.dtype != torch.int64 or labels.shape != rows.shape:
            raise ValueError(f"labels must be int64 {tuple(rows.shape)}, not {labels.dtype} {tuple(labels.shape)}")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < store.shape[0]:
            raise ValueError(f"rows must be those of {store.shape[0]} images")
        object.__setattr__(self, "labels", labels.to(device))
        self._store = store
        self._rows = rows
        self._device = torch.device(device)

    @property
    def images(self) -> Tensor:
        """All images, read into memory: uint8 of shape ``(images, channels, height, width)``, on the device."""
        return torch.from_numpy(self._store.take(self._rows.numpy())).to(self._device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self._store.shape[1:]

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self._device

    def to(self, device: torch.device | str) -> StreamedDataset:
        """Return the same images with their batches on ``device``."""
        return StreamedDataset(self._store, self._rows, self.labels, device)

    def select(self, indices: Tensor) -> StreamedDataset:
        """Return the images at ``indices``, int64 of shape ``(chosen,)``, in that order; no image is read."""
        chosen = self.labels[indices.to(self.labels.device)]
        return StreamedDataset(self._store, self._rows[indices.cpu()], chosen, self._device)

    def joined(self, others: Sequence[Dataset]) -> Dataset:
        """Return the images of this data set and then those of ``others``, which are of the same store."""
        same = [one for one in others if isinstance(one, StreamedDataset) and one._store is self._store]
        if len(same) < len(others):
            raise ValueError("only images of the same store can be joined")
        rows, labels = ([getattr(one, name) for one in (self, *same)] for name in ("_rows", "labels"))
        return StreamedDataset(self._store, torch.cat(rows), torch.cat(labels), self._device)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images, shuffled by blocks: int64 of shape ``(images,)``, on the CPU."""
        return blockwise_order(self._rows, self._store.block, generator)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels for each of ``indices``; a thread reads :data:`AHEAD` of them in advance."""
        parts = [chosen.cpu() for chosen in indices]
        for images, chosen in zip(self._read([self._rows[part] for part in parts]), parts, strict=True):
            yield images, self.labels[chosen.to(self.labels.device)]

    def consecutive(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in their order, in ``count`` parts that are as equal as can be."""
        yield from zip(self._read(self._rows.tensor_split(count)), self.labels.tensor_split(count), strict=True)

    def pieces(self) -> Iterator[Tensor]:
        """Yield all images in their order, on the CPU, a part at a time."""
        for images in self._read(torch.split(self._rows, self._piece)):
            yield images.cpu()

    def levels(self) -> Tensor:
        """Return how many pixels have each value; they are counted once and kept with the store."""
        rows = self._rows.sort().values
        path = self._store.folder / f"levels-{hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]}.json"
        if path.is_file():
            try:
                content = _LEVELS.read(path)
                # Of a store that was made again, these would be those of other images.
                if content["sums"] == self._sums():
                    return torch.tensor(content["levels"], dtype=torch.int64)
            except (DatasetError, KeyError):
                path.unlink(missing_ok=True)
        total = torch.zeros(LEVELS, dtype=torch.int64)
        for images in self._read(torch.split(rows, self._piece)):
            total += levels_of(images).cpu()
        _LEVELS.write(path, {"sums": self._sums(), "levels": total.tolist()})
        return total

    @property
    def _piece(self) -> int:
        return max(1, PIECE_BYTES // self._store.image_bytes)

    def _sums(self) -> str:
        return hashlib.sha256(self._store.sums.tobytes()).hexdigest()

    def _read(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images at each of ``parts``, rows of the store, on the device."""
        pinned = self._device.type == "cuda"

        def one(rows: Tensor) -> Tensor:
            images = torch.empty((len(rows), *self.shape), dtype=torch.uint8, pin_memory=pinned)
            self._store.take(rows.numpy(), images.numpy())
            return images

        told = _Announced(self._store, parts)
        told.up_to(0)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            rest = iter(enumerate(parts))
            waiting = deque(pool.submit(one, rows) for _, rows in itertools.islice(rest, AHEAD))
            try:
                while waiting:
                    images = waiting.popleft().result()
                    for place, rows in itertools.islice(rest, 1):
                        told.up_to(place)
                        waiting.append(pool.submit(one, rows))
                    yield images.to(self._device, non_blocking=True)
            finally:
                for future in waiting:
                    future.cancel()


class _Announced:
    """Tells the system which blocks are needed next: those of the images of a window in advance, each once."""

    def __init__(self, store: ImageStore, parts: Sequence[Tensor]) -> None:
        self._store = store
        self._parts = parts
        self._next = 0
        self._images = 0
        self._known: set[int] = set()

    def up_to(self, place: int) -> None:
        """Announce what is needed from the part at ``place`` on."""
        self._next = max(self._next, place)
        wanted = WINDOW * self._store.block
        ahead = sum(len(part) for part in self._parts[place : self._next])
        while self._next < len(self._parts) and ahead < wanted:
            rows: Rows = self._parts[self._next].numpy()
            blocks = set((rows // self._store.block).tolist()) - self._known
            self._store.announce(sorted(blocks))
            self._known |= blocks
            ahead += len(rows)
            self._next += 1


def blockwise_order(rows: Tensor, block: int, generator: torch.Generator) -> Tensor:
    """Return an order of the images at ``rows`` of a store, as a shuffled epoch has it.

    The images, in the order of the store, are divided into stretches of ``block``. The stretches come in a random
    order, and :data:`WINDOW` of them at a time are mixed.

    Args:
        rows: where each image is stored, int64 of shape ``(images,)``, on the CPU.
        block: the images of a stretch.
        generator: decides the order.

    Returns:
        A permutation of ``0 ... images - 1``: int64, on the CPU.
    """
    stretches = torch.split(rows.argsort(), block)
    order = torch.randperm(len(stretches), generator=generator, device=generator.device).tolist()
    mixed = []
    for first in range(0, len(order), WINDOW):
        window = torch.cat([stretches[place] for place in order[first : first + WINDOW]])
        drawn = torch.randperm(len(window), generator=generator, device=generator.device)
        mixed.append(window[drawn.cpu()])
    return torch.cat(mixed) if mixed else torch.empty(0, dtype=torch.int64)
