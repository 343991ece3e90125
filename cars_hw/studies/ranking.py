"""The result of a check of the SuperNet's order: what ``ranking.json`` holds. Reading it needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from cars_hw.config.evaluation import Objective, SearchObjective
from cars_hw.config.setting import Settings, count, fraction, setting
from cars_hw.config.training import EvaluatedClassifier, Recipe
from cars_hw.latency.validation import kendall_tau
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

FILE: Final = "ranking.json"

MINIMUM: Final = 4
"""Architectures that a rank correlation needs."""


@dataclass(frozen=True)
class Ranked(Settings):
    """One architecture with its accuracies, which are fractions. ``spec`` is the network that was trained.

    If the search maximised the balanced accuracy, they are balanced accuracies.

    ``shared`` is the accuracy under shared weights on the validation images, ``standalone`` the accuracy after
    training from scratch on the test images. ``again`` is that of a second training with another seed, None without
    one. ``name`` is that of the front, or begins with ``random``. ``validation_images`` and ``test_images`` are the
    numbers of images behind them. ``shared_loss`` is the mean cross-entropy under shared weights on the validation
    images; None unless the search compared losses.
    """

    name: str = setting(name=True)
    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    shared: float = fraction()
    standalone: float = fraction()
    again: float | None = fraction(None)
    validation_images: int | None = count(None, minimum=1)
    test_images: int | None = count(None, minimum=1)
    shared_loss: float | None = setting(None, unit="nats", minimum=0)

    OPTIONAL: ClassVar = frozenset({"shared_loss"})
    PLAIN_NAMES: ClassVar = {"spec": "network"}

    @property
    def drawn(self) -> bool:
        """Whether it was drawn at random, rather than taken from the front."""
        return self.name.startswith("random")


@dataclass(frozen=True)
class Ranking:
    """The architectures of a sample, and the recipe of their training.

    An empty sample has no networks, and its recipe is None. ``objective`` is what the search compared under shared
    weights: with ``loss``, the order under shared weights is that of the losses, otherwise that of the accuracies.
    ``classifier`` tells what classified the images under shared weights.
    """

    networks: tuple[Ranked, ...]
    recipe: Recipe | None
    objective: SearchObjective = "accuracy"
    classifier: EvaluatedClassifier = "shared"

    OPTIONAL: ClassVar = frozenset({"objective", "classifier"})
    DERIVED: ClassVar = ("tau", "agreement")

    @property
    def tau(self) -> float | None:
        """Kendall's tau between the order under shared weights and that of the standalone accuracies.

        It is 1 for equal orders, 0 for unrelated ones, and None where all networks are equal in one of the two.
        """
        pairs = self.pairs
        return kendall_tau([one for one, _ in pairs], [other for _, other in pairs]) if pairs else None

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """For each network, the figure of its order under shared weights, and its standalone accuracy.

        Higher figures are better: a loss has a negative sign here.
        """
        if not self.by_loss:
            return [(one.shared, one.standalone) for one in self.networks]
        return [(-one.shared_loss, one.standalone) for one in self.networks if one.shared_loss is not None]

    @property
    def by_loss(self) -> bool:
        """Whether the order under shared weights is that of the losses."""
        return self.objective == "loss"

    @property
    def accuracy(self) -> Objective:
        """Which accuracy the networks have."""
        return "accuracy" if self.objective == "loss" else self.objective

    @property
    def agreement(self) -> float | None:
        """Kendall's tau between two trainings of the same networks; None where they were trained once.

        It shows how well one training predicts the order of another. The noise of both trainings lowers it, so an
        order with less noise than a training can have a higher tau.
        """
        again = [one.again for one in self.networks if one.again is not None]
        if not again or len(again) < len(self.networks):
            return None
        return kendall_tau([one.standalone for one in self.networks], again)


def read_ranking(run: RunFolder) -> Ranking | None:
    """Return the ranking that ``rank_run`` wrote, None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    return run.record(FILE, Ranking)


def spread(networks: Sequence[Ranked]) -> float:
    """Return the range of the standalone accuracies, a fraction: where it is small, the order means little."""
    accuracies = [one.standalone for one in networks]
    return max(accuracies) - min(accuracies)
