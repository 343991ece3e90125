"""What the test accuracies of trained networks say: which are equal to the best, and which only name one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cars_hw.config.evaluation import ClassCounts, told_apart
from cars_hw.formatting import accuracy_text, percent
from cars_hw.pipeline.networks import TrainedNetwork


@dataclass(frozen=True)
class Standing:
    """The trained network with the highest test accuracy, and those that cannot be told from it at 95%.

    ``compared`` is the number of the other networks. ``paired`` is whether all networks answered for the same
    images.
    """

    best: TrainedNetwork
    equal: tuple[TrainedNetwork, ...]
    compared: int
    paired: bool

    @property
    def sentence(self) -> str:
        """What can be said of the best, in one sentence or two."""
        share = accuracy_text(self.best.accuracy, self.best.test.interval("accuracy"))
        names = f"{self.best.name} has the highest test accuracy, {share}"
        images = f"{self.best.test.total:,} test images"
        if not self.compared:
            return f"{names}, on {images}."
        if self.equal:
            *first, last = (one.name for one in self.equal)
            others = f"{', '.join(first)} and {last}" if first else last
            return f"{names}. By these {images} it cannot be told from {others} at 95% ({self.method})."
        return f"{names}, and is better than the others by these {images} at 95% ({self.method})."

    @property
    def method(self) -> str:
        """How the networks were compared."""
        if self.paired:
            return "exact test of McNemar, image by image, with the correction of Holm"
        return "confidence intervals, as the networks answered for different images"


def standing(trained: Sequence[TrainedNetwork]) -> Standing | None:
    """Return the comparison of ``trained`` with the best of them; None without networks."""
    if not trained:
        return None
    best = max(trained, key=lambda one: one.accuracy)
    others = [one for one in trained if one is not best]
    apart = told_apart(best.test, [one.test for one in others])
    return Standing(
        best,
        tuple(one for one, different in zip(others, apart, strict=True) if not different),
        len(others),
        all(one.test.evaluated == best.test.evaluated for one in others),
    )


def majority_sentence(name: str, counts: ClassCounts, class_names: Sequence[str]) -> str | None:
    """Return that ``name`` is not better than the answer that is always one class, None where it is better."""
    if counts.beats_majority:
        return None
    return (
        f"{name} is not shown to be better than the answer '{class_names[counts.majority]}' for every image, which "
        f"is right for {percent(counts.majority_share)} of the {counts.total:,} test images."
    )


def decided(trained: Sequence[TrainedNetwork]) -> list[TrainedNetwork]:
    """Return one training of each network: what the held-out images decided, otherwise the first training.

    Test images decide nothing here. Trainings are compared where all of them held out equally many images of each
    class, and chose their epoch by the same objective.
    """
    chosen = []
    for network in dict.fromkeys(one.network for one in trained):
        trainings = sorted((one for one in trained if one.network == network), key=_number)
        scores = [one.held_out.score(one.recipe.objective) for one in trainings if one.held_out is not None]
        alike = {(one.recipe.objective, None if one.held_out is None else one.held_out.images) for one in trainings}
        comparable = len(scores) == len(trainings) and len(alike) == 1
        chosen.append(trainings[scores.index(max(scores))] if comparable else trainings[0])
    return chosen


def _number(trained: TrainedNetwork) -> int:
    """Return the number of a training of its network: 1 for ``net-01``, 2 for ``net-01@2``."""
    return int(trained.name[len(trained.network) + 1 :] or 1)
