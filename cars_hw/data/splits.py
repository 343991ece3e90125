"""Dividing and ordering a data set so that every part and every stretch holds every class in its share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def stratified_split(labels: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Divide the indices of ``labels`` into disjoint parts that each hold every class in the same share.

    Each class is divided by largest remainder: a part holds its fraction of the class, rounded down or up.
    What the fractions leave of 1 is a part too, which is not returned. Equal remainders go to the earlier
    part.

    Args:
        labels: the class of every image, shape ``(images,)``, on any device.
        fractions: each part's share of the images, each from 0 to 1, together at most 1.
        generator: a generator on the CPU; decides which images go where.

    Returns:
        One int64 tensor of indices on the CPU for each fraction, shuffled so that the classes are mixed.

    Raises:
        ValueError: a fraction is negative or not a number, or their sum exceeds 1.
    """
    rest = 1.0 - math.fsum(fractions)
    # The tolerance lets fractions such as 1/3 three times, whose sum may round to just over 1, through.
    if not all(fraction >= 0 for fraction in fractions) or not rest >= -1e-9:
        raise ValueError(f"fractions must not be negative, and at most 1 together: {list(fractions)}")
    shares = [*fractions, max(rest, 0.0)]
    pieces: list[list[Tensor]] = [[] for _ in shares]
    for members in _shuffled_members(labels, generator):
        sizes = _largest_remainder(len(members), shares)
        for piece, chosen in zip(pieces, torch.split(members, sizes), strict=True):
            piece.append(chosen)
    parts = [torch.cat(piece) if piece else torch.empty(0, dtype=torch.int64) for piece in pieces[:-1]]
    return [part[torch.randperm(len(part), generator=generator)] for part in parts]


def mixed_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return an order of all images in which every stretch holds every class in its share.

    Evaluation needs it. Batch normalisation that uses the statistics of the evaluated batch gives wrong
    accuracies for batches that are sorted by class, and a plain shuffle leaves the shares to chance.

    A class of ``n`` images puts one of them, at random, in each of ``n`` equal stretches of the order. In any
    stretch of it a class of share ``p`` therefore occurs close to ``p`` times its length.

    Args:
        labels: the class of every image, shape ``(images,)``, on any device.
        generator: a generator on the CPU.

    Returns:
        A permutation of ``0 ... images - 1``: int64, shape ``(images,)``, on the CPU.
    """
    place = torch.empty(len(labels), dtype=torch.float64)
    for members in _shuffled_members(labels, generator):
        count = len(members)
        within = torch.rand(count, dtype=torch.float64, generator=generator)
        place[members] = (torch.arange(count, dtype=torch.float64) + within) / count
    return torch.argsort(place, stable=True)


def _shuffled_members(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return each class's indices, shuffled, in the order of the class numbers."""
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels.cpu()[order]
    return [order[shuffled == label] for label in torch.unique(shuffled)]


def _largest_remainder(count: int, shares: Sequence[float]) -> list[int]:
    """Divide ``count`` into whole numbers by ``shares``, whose sum is 1."""
    # Unrounded, 50 * 0.07 is 3.5000000000000004, and such dust would decide between equal remainders.
    quotas = [round(count * share, 6) for share in shares]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda part: sizes[part] - quotas[part])
    for part in by_remainder[: count - sum(sizes)]:
        sizes[part] += 1
    return sizes
