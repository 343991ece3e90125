"""Labelled images in memory, and what training, evaluation and digests need of images wherever they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 256
"""The values that a pixel can have."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, all of one size, on one device.

    ``images`` is uint8 of shape ``(images, channels, height, width)``; ``labels`` is int64 of shape
    ``(images,)``. Raises ``ValueError`` if they are anything else.

    A subclass may keep its images elsewhere. Code that must work with such data sets does not use ``images``, which
    are then read into memory, but the methods.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 NCHW, not {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 N, not {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the batches of the data set are."""
        return self.images.device

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same images on ``device``; nothing is copied if they are there already."""
        return Dataset(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> Dataset:
        """Return a copy of the images at ``indices``, int64 of shape ``(chosen,)``, in that order."""
        indices = indices.to(self.images.device)
        return Dataset(self.images[indices], self.labels[indices])

    def joined(self, others: Sequence[Dataset]) -> Dataset:
        """Return the images of this data set and then those of ``others``."""
        parts = (self, *others)
        return Dataset(torch.cat([one.images for one in parts]), torch.cat([one.labels for one in parts]))

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images in an order that ``generator`` decides: int64 of shape ``(images,)``."""
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        return order.to(self.images.device)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels for each of ``indices``, int64 of shape ``(chosen,)``."""
        for chosen in indices:
            yield self.images[chosen], self.labels[chosen]

    def consecutive(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and labels in their order, in ``count`` parts that are as equal as can be."""
        yield from zip(self.images.tensor_split(count), self.labels.tensor_split(count), strict=True)

    def pieces(self) -> Iterator[Tensor]:
        """Yield all images in their order, on the CPU, a part at a time."""
        yield self.images.cpu()

    def levels(self) -> Tensor:
        """Return how many pixels of all channels have each value: int64 of shape ``(256,)``."""
        return levels_of(self.images)


def levels_of(images: Tensor) -> Tensor:
    """Return how many pixels of ``images``, uint8 of shape ``(N, C, H, W)``, have each value: int64 ``(256,)``."""
    # Channel by channel: bincount makes 64-bit integers of its input.
    counts = [torch.bincount(channel.flatten(), minlength=LEVELS) for channel in images.unbind(1)]
    return torch.stack(counts).sum(dim=0)
