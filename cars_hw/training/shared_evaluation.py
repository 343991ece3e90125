"""Evaluation of architectures under shared weights: all of them on each batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from cars_hw.nn.paths import Common, SharedNetwork
from cars_hw.nn.slices import Slices, cells_within
from cars_hw.space.architecture import Architecture

Batch = tuple[Tensor, Tensor]
Hits = Callable[[Architecture], Tensor]

_ROOM: Final = {False: 256 << 20, True: 2 << 30}
"""Bytes for results that architectures share, in main memory (False) and in GPU memory (True)."""


def evaluate(
    slices: Slices,
    architectures: Sequence[Architecture],
    batches: Iterable[Batch],
    autocast: Callable[[], torch.autocast],
    room: int | None = None,
) -> list[list[int]]:
    """Return for each architecture how many images in ``batches`` it gets right under the shared weights, by class.

    Batch normalisation uses the statistics of each batch. All architectures are evaluated on a batch before the
    next, so that what those of one number of channels share is computed once for each batch: the stem, and
    operations of the first cell, for which there are ``room`` bytes in all (None: a default for the device). On a
    CPU each of torch's threads evaluates architectures of its own, since an operation on a small activation is too
    short for several threads. On a GPU the counts stay in its memory until the end, so that it never waits for
    Python.
    """
    counts: list[Tensor] = []
    # The largest first, so that no thread begins with a large one when the others end.
    order = sorted(range(len(architectures)), key=lambda index: -_size(architectures[index]))
    ordered = [architectures[index] for index in order]
    with _threads() as run:
        for images, labels in batches:
            share = _ROOM[images.is_cuda] if room is None else room
            batch = _Evaluated(slices, images, labels, autocast)
            batch.prepare(ordered, share)
            found = run(batch.hits, ordered, images.is_cuda)
            counts = found if not counts else [so_far + new for so_far, new in zip(counts, found, strict=True)]
    rows = dict(zip(order, [count.tolist() for count in counts], strict=True))
    return [rows[index] for index in range(len(architectures))]


@dataclass
class _Evaluated:
    """One batch of images, and what architectures share on it."""

    slices: Slices
    images: Tensor
    labels: Tensor
    autocast: Callable[[], torch.autocast]

    def prepare(self, architectures: Sequence[Architecture], room: int) -> None:
        """Compute what is the same for those of ``architectures`` that begin alike."""
        alike: dict[object, list[Architecture]] = {}
        for one in architectures:
            alike.setdefault(self._beginning(one), []).append(one)
        with torch.inference_mode(), self.autocast():
            self._common: dict[object, Common] = {
                beginning: self._network(some[0]).common(
                    self.images, [one.genotype for one in some], room // len(alike)
                )
                for beginning, some in alike.items()
            }

    def hits(self, architecture: Architecture) -> Tensor:
        """Return how many images ``architecture`` gets right, by class: int64 of shape (classes,)."""
        with torch.inference_mode(), self.autocast():
            network, common = self._network(architecture), self._common[self._beginning(architecture)]
            right = network.along(common, architecture.genotype).argmax(dim=1) == self.labels
            zeros = torch.zeros(self.slices.shared.spec.classes, dtype=torch.int64, device=self.labels.device)
            # The shapes do not depend on the answers, so that a GPU is not waited for.
            return zeros.index_add_(0, self.labels, right.to(torch.int64))

    def _beginning(self, architecture: Architecture) -> object:
        """Return what two architectures have in common if their stems and the inputs of two cells are the same."""
        network = architecture.network
        return network.channels, cells_within(network, self.slices.shared.spec)[1]

    def _network(self, architecture: Architecture) -> SharedNetwork:
        shared = self.slices.shared
        return shared if architecture.network == shared.spec else self.slices.path(architecture)


@contextmanager
def _threads() -> Iterator[Callable[[Hits, Sequence[Architecture], bool], list[Tensor]]]:
    """Yield what evaluates architectures: in torch's threads, or in this one on a GPU or without others."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield lambda hits, architectures, _: [hits(one) for one in architectures]
        return
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            # Threads begin with the first task only.
            yield lambda hits, architectures, on_gpu: list((map if on_gpu else pool.map)(hits, architectures))
    finally:
        # The number that the workers set is the default of later threads, so it is restored.
        torch.set_num_threads(threads)


def _size(architecture: Architecture) -> int:
    """Return about what the time of a pass grows with."""
    network = architecture.network
    return network.layers * network.channels
