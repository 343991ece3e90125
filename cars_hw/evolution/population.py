"""The members of a population, and the rows of objectives that the selection compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.setting import Settings, fraction, setting
from cars_hw.space.genotype import Genotype


@dataclass(frozen=True)
class Member(Settings):
    """An architecture with the figures of its last evaluation.

    ``accuracy`` is a fraction of the evaluated images under the shared weights, or with the objective
    ``balanced-accuracy`` the mean of the classes' fractions; ``gain`` is its increase since the previous
    generation. ``costs`` are the values of the cost objectives, in their units.
    """

    genotype: Genotype = setting(kind="genotype")
    costs: tuple[float, ...] = setting(minimum=-1e12, maximum=1e12)
    accuracy: float = fraction()
    gain: float = setting(0.0, minimum=-1, maximum=1)


@dataclass(frozen=True)
class Finalist(Member):
    """A candidate for the front; ``validation`` has its right answers among all validation images, by class."""

    validation: ClassCounts | None = None


def objective_rows(members: Sequence[Member], scales: Sequence[float]) -> NDArray[np.float64]:
    """Return shape (N, 1 + M): the error (a fraction), then each cost divided by its scale."""
    return np.array(
        [
            [1 - member.accuracy, *(cost / scale for cost, scale in zip(member.costs, scales, strict=True))]
            for member in members
        ]
    )


def gains(members: Sequence[Member]) -> NDArray[np.float64]:
    """Return shape (N,): the gain in accuracy of each member."""
    return np.array([member.gain for member in members])
