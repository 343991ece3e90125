"""RandAugment, mixup and CutMix as torchvision has them, drawn from a generator of one's own.

torchvision draws from torch's global generator on the CPU. Here that generator is seeded from the training's own
for the duration of a call, and is as before afterwards. So a batch depends on the training's seed alone, and an
epoch can be repeated. The images stay on their device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def rand_augment(images: Tensor, operations: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Return ``images``, uint8 of shape ``(N, C, H, W)``, each after ``operations`` random operations.

    The operations are geometric ones and changes of colour; ``magnitude``, from 0 to 30, says how strong they are
    (Cubuk et al., RandAugment, 2020). Each image has operations of its own.
    """
    from torchvision.transforms import v2

    transform = v2.RandAugment(num_ops=operations, magnitude=magnitude)
    with _drawing(generator):
        return torch.stack([transform(image) for image in images])


def mix(
    images: Tensor, labels: Tensor, generator: torch.Generator, *, classes: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Return images that are each mixed with its neighbour in the batch, and the shares of the classes in them.

    Args:
        images: float of shape ``(N, C, H, W)``.
        labels: the class of every image, int64 of shape ``(N,)``, or shares of classes, ``(N, classes)``.
        generator: decides what is drawn.
        classes: the number of classes.
        mixup: both images are added with shares from a beta distribution with this parameter; 0: they are not
            (Zhang et al., mixup, 2018).
        cutmix: a rectangle of the one image is put into the other, whose area is drawn from a beta distribution
            with this parameter; 0: it is not (Yun et al., CutMix, 2019). With both parameters, each batch is mixed
            in one of the two ways, drawn evenly.

    Returns:
        The images, and float32 labels of shape ``(N, classes)``.
    """
    from torchvision.transforms import v2

    ways = []
    if mixup:
        ways.append(v2.MixUp(alpha=mixup, num_classes=classes))
    if cutmix:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=classes))
    with _drawing(generator):
        way = ways[int(torch.randint(len(ways), ()))]
        mixed, shares = way(images, labels)
    return mixed.contiguous(memory_format=torch.channels_last), shares.float()


@contextmanager
def _drawing(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's generator of the CPU by a number from ``generator`` while the block runs."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # Not by torch.manual_seed, which seeds the generators of GPUs as well.
    own = torch.default_generator
    before = own.get_state()
    own.manual_seed(seed)
    try:
        yield
    finally:
        own.set_state(before)
