"""Batches that are made where the training happens.

A data set in memory stays on the training device as bytes. A batch is gathered, varied and normalised there, all
images at once: nothing waits for the host, and no worker processes are needed. A data set that is larger than the
memory is read by a thread, see :mod:`cars_hw.data.streamed`, and varied and normalised on the device, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cars_hw.data.dataset import Dataset
from cars_hw.data.mixing import mix, rand_augment
from cars_hw.data.photo_augmentation import crop_and_resize, jitter_colours
from cars_hw.data.splits import mixed_order
from cars_hw.errors import DatasetError


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied, each in its own way.

    ``crop_padding`` pixels of zeros are put around an image and a window of the image's size is cut out
    anywhere; with ``flip``, every second image on average is mirrored left to right; ``cutout`` is the side,
    in pixels, of a square that is blanked, whose centre lies anywhere in the image and which the borders
    clip. A ``crop_scale`` above 0 takes the place of ``crop_padding``: a part of the image of at least this share
    of its area is blown up to the image's size. ``colour_jitter`` is how far brightness, contrast and saturation
    may be scaled up or down, and twice how far the hue may be turned (as a share of the circle).

    ``randaugment`` is the number of random operations on each image after crop and flip, as strong as ``magnitude``
    says. ``mixup`` and ``cutmix`` mix each image with another one of its batch, and their classes with them; they
    need the number of ``classes``. See :mod:`cars_hw.data.mixing`.

    0 turns a step off. Raises ``ValueError`` for a negative number, a share above 1, or mixing without classes.
    """

    crop_padding: int = 4
    flip: bool = True
    cutout: int = 0
    crop_scale: float = 0.0
    colour_jitter: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        if min(self.randaugment, self.mixup, self.cutmix) < 0 or not 0 <= self.magnitude <= 30:
            raise ValueError(f"randaugment, mixup and cutmix must not be negative, magnitude be 0 to 30: {self}")
        if self.mixes and self.classes < 2:
            raise ValueError(f"mixing needs the number of classes: {self}")
        if self.crop_padding < 0 or self.cutout < 0:
            raise ValueError(f"crop_padding and cutout must not be negative: {self}")
        if not (0 <= self.crop_scale <= 1 and 0 <= self.colour_jitter <= 1):
            raise ValueError(f"crop_scale and colour_jitter must be from 0 to 1: {self}")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def mixed(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return ``images`` (N, C, H, W) after :meth:`apply`, mixed, with the shares of classes (N, classes)."""
        return mix(images, labels, generator, classes=self.classes, mixup=self.mixup, cutmix=self.cutmix)

    def apply(
        self,
        images: Tensor,
        generator: torch.Generator,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return ``images`` of shape ``(N, C, H, W)``, varied.

        Crop, flip and colours come before ``normalise``, so that the padding is black. Cutout comes after it,
        so that its zeros are the data set's mean, as in the DARTS recipe. Without ``normalise`` the dtype is
        kept.

        The numbers are drawn on the generator's device and then moved: one on the CPU makes a CPU and a GPU
        vary the same images in the same way.
        """
        if self.crop_scale:
            images = crop_and_resize(images, self.crop_scale, self.flip, generator)
        else:
            images = self._cropped_and_flipped(images, generator)
        if self.randaugment:
            images = rand_augment(images, self.randaugment, self.magnitude, generator)
        if self.colour_jitter:
            images = jitter_colours(images, self.colour_jitter, generator)
        if normalise is not None:
            images = normalise(images)
        return self._cut(images, generator)

    def _cropped_and_flipped(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.crop_padding and not self.flip:
            return images
        device = images.device
        count, channels, height, width = images.shape
        rows = torch.arange(height, device=device).expand(count, height)
        columns = torch.arange(width, device=device).expand(count, width)
        if self.flip:
            mirrored = _draw(2, count, generator, device).bool()
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.crop_padding:
            rows = rows + _draw(2 * self.crop_padding + 1, count, generator, device)
            columns = columns + _draw(2 * self.crop_padding + 1, count, generator, device)
            images = functional.pad(images, (self.crop_padding,) * 4)
        return images[
            torch.arange(count, device=device)[:, None, None, None],
            torch.arange(channels, device=device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]

    def _cut(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.cutout:
            return images
        count, _, height, width = images.shape
        inside = []
        for length in (height, width):
            first = _draw(length, count, generator, images.device) - self.cutout // 2
            position = torch.arange(length, device=images.device)
            inside.append((position >= first) & (position < first + self.cutout))
        rows, columns = inside
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _draw(below: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return one whole number from 0 to ``below - 1`` for each image, shape ``(count, 1)``, on ``device``."""
    drawn = torch.randint(below, (count, 1), generator=generator, device=generator.device)
    return drawn.to(device, non_blocking=True)


class _Normalisation:
    """Bytes in, ``(pixel / 255 - mean) / std`` out, a value of ``mean`` and ``std`` for each channel."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.scale, self.shift = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (
                [1 / (255 * deviation) for deviation in std],
                [-centre / deviation for centre, deviation in zip(mean, std, strict=True)],
            )
        )

    def __call__(self, images: Tensor) -> Tensor:
        # In float32 even when halves are wanted: otherwise the product and the sum would each be rounded.
        normalised = torch.addcmul(self.shift, images.float(), self.scale)
        return normalised.to(self.dtype).contiguous(memory_format=torch.channels_last)


class TrainingBatches:
    """A data set, on the training device, that is handed out in shuffled and varied batches.

    Args:
        dataset: the images; they are moved to ``device`` and stay there as bytes.
        batch_size: images in a batch, at least 2.
        mean: each channel's mean, in units of [0, 1] pixel values.
        std: each channel's standard deviation, in the same units.
        augmentation: how the images are varied; None leaves them as they are.
        device: where the batches are wanted.
        drop_last: leave out the images that do not fill a batch. A last batch of a single image is always
            left out: batch normalisation has no use for it.
        dtype: of the images in the batches.
        targets: the shares of the classes of every image, float ``(images, classes)``, in place of its label.

    Raises:
        ValueError: ``batch_size`` is below 2, or ``mean`` and ``std`` do not have a value for each channel.
        DatasetError: there are too few images for a single batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None,
        *,
        device: torch.device | str,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        targets: Tensor | None = None,
    ) -> None:
        if batch_size < 2:
            raise ValueError(f"batch normalisation needs at least 2 images in a batch, not {batch_size}")
        _check_channels(dataset, mean, std)
        full, rest = divmod(len(dataset), batch_size)
        self._count = full if drop_last or rest < 2 else full + 1
        if self._count == 0:
            raise DatasetError(
                f"{len(dataset)} training images do not make a batch of {batch_size if drop_last else 2}; "
                "add images, or make the batches smaller"
            )
        self._dataset = dataset.to(device)
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._targets = None if targets is None else targets.to(self._dataset.labels.device)
        self._normalise = _Normalisation(mean, std, self._dataset.device, dtype)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._count

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every batch of an epoch, shuffled and varied.

        A batch is its images, shape ``(N, C, H, W)`` in channels-last format, and its labels, int64 ``(N,)``. Where
        images are mixed or have ``targets``, it has the shares of the classes in place of labels, float32
        ``(N, classes)``.
        ``generator`` decides the order and the variation; it is drawn from batch by batch.
        """
        order = self._dataset.shuffled(generator)
        size = self._batch_size
        chosen = [order[batch * size : (batch + 1) * size] for batch in range(self._count)]
        for indices, (images, labels) in zip(chosen, self._dataset.batches(chosen), strict=True):
            wanted = labels if self._targets is None else self._targets[indices]
            yield self._varied(images, wanted, generator)

    def _varied(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self._augmentation is None:
            return self._normalise(images), labels
        varied = self._augmentation.apply(images, generator, self._normalise)
        return self._augmentation.mixed(varied, labels, generator) if self._augmentation.mixes else (varied, labels)


class EvaluationBatches:
    """A data set, on the training device, whose batches are the same, in the same order, in every iteration.

    Batch normalisation uses the statistics of the evaluated batch, so that an accuracy depends on which
    images share a batch. Therefore the order is mixed by class and fixed by ``seed``, and the batches are as
    equal in size as can be: 1,000 images in batches of at most 300 are 4 batches of 250.

    Iterating yields images ``(N, C, H, W)`` in channels-last format, not varied, and labels int64 ``(N,)``;
    every image comes exactly once.

    Args:
        dataset: the images; they are moved to ``device`` and stay there as bytes.
        batch_size: the largest number of images in a batch, at least 1.
        mean: each channel's mean, in units of [0, 1] pixel values.
        std: each channel's standard deviation, in the same units.
        device: where the batches are wanted.
        seed: fixes the order.
        dtype: of the images in the batches.

    Raises:
        ValueError: ``batch_size`` is below 1, or ``mean`` and ``std`` do not have a value for each channel.
        DatasetError: there are no images.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"a batch must hold at least 1 image, not {batch_size}")
        if len(dataset) == 0:
            raise DatasetError("there are no images to evaluate on; give the data set a larger test part")
        _check_channels(dataset, mean, std)
        order = mixed_order(dataset.labels, torch.Generator().manual_seed(seed))
        self._dataset = dataset.select(order).to(device)
        self._count = math.ceil(len(dataset) / batch_size)
        self._normalise = _Normalisation(mean, std, self._dataset.device, dtype)

    @property
    def labels(self) -> Tensor:
        """The class of every image in the order of the batches, int64 of shape ``(images,)``."""
        return self._dataset.labels

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._dataset.consecutive(self._count):
            yield self._normalise(images), labels


def _check_channels(dataset: Dataset, mean: Sequence[float], std: Sequence[float]) -> None:
    channels = dataset.shape[0]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std must have a value for each of {channels} channels: {mean}, {std}")
