"""What a count of right answers is worth: confidence intervals, and the comparison of two networks.

All functions are closed forms of whole numbers, and need no package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

LEVEL: Final = 0.95
"""The confidence level of every interval and comparison."""

Z: Final = 1.959963984540054
"""The quantile of the standard normal distribution that a two-sided interval at this level needs."""

Interval = tuple[float, float]
"""The lower and the upper end of a confidence interval."""


def wilson_interval(right: int, images: int) -> Interval:
    """Return the 95% confidence interval of a fraction, of which ``right`` of ``images`` were counted.

    It is the score interval of Wilson (1927), "Probable inference, the law of succession, and statistical
    inference", which Brown, Cai and DasGupta (2001), "Interval estimation for a binomial proportion", recommend for
    small numbers. It lies within 0 and 1 and has a width for 0 and for all right answers too.

    Raises:
        ValueError: there are no images, or ``right`` is not from 0 to ``images``.
    """
    if not 0 <= right <= images or images < 1:
        raise ValueError(f"{right} of {images} is no fraction")
    share, square = right / images, Z * Z / images
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    # At the ends, rounding would leave a distance of 1e-17.
    low = 0.0 if right == 0 else middle - half
    high = 1.0 if right == images else middle + half
    return low, high


def interval_of(share: float | None, images: int | None) -> Interval | None:
    """Return the 95% confidence interval of ``share``, a fraction of ``images``; None where one is not known."""
    return None if share is None or not images else wilson_interval(round(share * images), images)


def mean_interval(right: Sequence[int], images: Sequence[int]) -> Interval:
    """Return the 95% confidence interval of the mean of several fractions, each with its own number of images.

    It is that of Price and Bonett (2004), "An improved confidence interval for a linear function of binomial
    proportions": the four answers that Agresti and Coull add to one fraction are shared among all of them.

    Raises:
        ValueError: there is no fraction, or one is of no images.
    """
    groups = len(images)
    if groups == 0 or min(images) < 1:
        raise ValueError("each fraction needs at least one image")
    extra = 2 / groups
    counts = [count + 2 * extra for count in images]
    shares = [(hits + extra) / count for hits, count in zip(right, counts, strict=True)]
    middle = sum(shares) / groups
    variance = sum(share * (1 - share) / count for share, count in zip(shares, counts, strict=True))
    half = Z * math.sqrt(variance) / groups
    return max(0.0, middle - half), min(1.0, middle + half)


def tau_of_chance(networks: int) -> float:
    """Return the Kendall's tau that two unrelated orders of ``networks`` exceed in one of 20 cases, up or down.

    It is the normal approximation of Kendall (1938), "A new measure of rank correlation", for orders without ties.

    Raises:
        ValueError: there are fewer than two.
    """
    if networks < 2:
        raise ValueError(f"an order needs at least two, not {networks}")
    return min(1.0, Z * math.sqrt(2 * (2 * networks + 5) / (9 * networks * (networks - 1))))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value that two networks are equally good, by the exact test of McNemar (1947).

    Both answer for the same images. ``first_only`` images are right in the first network only, ``second_only`` in
    the second only. Images that both get right, or both wrong, tell nothing about the difference.
    """
    differing = first_only + second_only
    term = tail = 1
    for number in range(1, min(first_only, second_only) + 1):
        term = term * (differing - number + 1) // number
        tail += term
    p_value: float = 2 * tail / 2**differing
    return min(1.0, p_value)


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Return for each of several comparisons whether it shows a difference, all of them together at ``level``.

    It is the procedure of Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    shown = [False] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        if p_values[index] > (1 - level) / (len(p_values) - place):
            break
        shown[index] = True
    return shown
