"""The members of a population, and the rows of objectives that the selection compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cars_hw.config.evaluation import ClassCounts, SearchObjective
from cars_hw.config.setting import Settings, count, fraction, setting
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec


@dataclass(frozen=True)
class Member(Settings):
    """An architecture with the figures of its last evaluation.

    ``spec`` (in the file: ``network``) is the network that the genotype fills. ``accuracy`` is a fraction of the
    evaluated images under the shared weights, or with the objective ``balanced-accuracy`` the mean of the classes'
    fractions. ``costs`` are the values of the cost objectives, in their units. ``loss`` is the mean cross-entropy
    of these images; None where it was not computed. ``gain`` is the increase of :func:`quality` since the previous
    generation.
    """

    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    costs: tuple[float, ...] = setting(minimum=-1e12, maximum=1e12)
    accuracy: float = fraction()
    gain: float = setting(0.0, minimum=-1, maximum=1)
    loss: float | None = setting(None, unit="nats", minimum=0)

    PLAIN_NAMES: ClassVar = {"spec": "network"}
    ADDED: ClassVar = frozenset({"loss"})

    @property
    def architecture(self) -> Architecture:
        """The genotype and the network that it fills."""
        return Architecture(self.genotype, self.spec)


@dataclass(frozen=True)
class Finalist(Member):
    """A candidate for the front; ``validation`` has its right answers among all validation images, by class.

    ``trained_epochs`` are its epochs of training in the final stage. If it is 0, the accuracy is under shared
    weights. ``stretch`` is the number of its stretch of the first cost there, from 1; 0 without a final stage.
    """

    validation: ClassCounts | None = None
    trained_epochs: int = count(0)
    stretch: int = count(0)


@dataclass(frozen=True)
class CostScale(Settings):
    """The scale on which the selection compares a cost: multiples of ``most``, or logarithms if ``least`` is given.

    On the logarithmic scale, ``least`` becomes 0 and ``most`` becomes 1. Both are in the cost's unit.
    """

    most: float = setting(above=0)
    least: float | None = setting(None, above=0)

    def of(self, cost: float) -> float:
        """Return ``cost`` on this scale."""
        if self.least is None or cost <= 0:
            return cost / self.most
        return math.log(cost / self.least) / math.log(self.most / self.least)


def quality(accuracy: float, loss: float | None, objective: SearchObjective) -> float:
    """Return what the selection maximises, a fraction: ``accuracy``, or by ``loss`` its exponential exp(-loss).

    That is the geometric mean of the probabilities that the network gives to the right classes.
    """
    if objective != "loss":
        return accuracy
    if loss is None:
        raise ValueError("a search by the loss needs evaluations with a loss")
    return math.exp(-loss)


def objective_rows(
    members: Sequence[Member], scales: Sequence[CostScale], objective: SearchObjective = "accuracy"
) -> NDArray[np.float64]:
    """Return shape (N, 1 + M): the error (one minus the :func:`quality`), then each cost on its scale."""
    return np.array(
        [
            [
                1 - quality(member.accuracy, member.loss, objective),
                *(scale.of(cost) for cost, scale in zip(member.costs, scales, strict=True)),
            ]
            for member in members
        ]
    )


def gains(members: Sequence[Member]) -> NDArray[np.float64]:
    """Return shape (N,): the gain of each member."""
    return np.array([member.gain for member in members])
