"""Judging without shared weights: every architecture is trained by itself, which is what sharing saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cars_hw.space.genotype import Genotype
from cars_hw.training.shared_weights import SuperNetWeights


class StandaloneWeights:
    """Trains each architecture alone before it is judged; what a search asks for in place of shared weights.

    ``fresh`` makes a SuperNet with untrained weights, the same ones each time; along one architecture it is that
    architecture's own network. Each is trained for ``epochs`` epochs, once.
    """

    def __init__(self, fresh: Callable[[], SuperNetWeights], epochs: int) -> None:
        self.fresh = fresh
        self.epochs = epochs
        # By genotype: accuracy on the subset, on all validation images, and the loss of the last epoch.
        self._known: dict[str, tuple[float, float, float]] = {}

    def train(self, draw: Callable[[int], Sequence[Genotype]]) -> float:  # noqa: ARG002 -- as the protocol has it
        """Train nothing: there are no weights in common. Return the mean loss of those that were trained."""
        losses = [loss for _, _, loss in self._known.values()]
        return sum(losses) / len(losses) if losses else 0.0

    def remember(self) -> None:
        """Keep nothing: an architecture's weights do not change."""

    def accuracies(
        self,
        genotypes: Sequence[Genotype],
        *,
        before: bool = False,  # noqa: ARG002 -- as the protocol has it
        full: bool = False,
    ) -> list[float]:
        """Return each one's accuracy after its own training, a fraction; ``before`` makes no difference."""
        return [self._evaluated(genotype)[1 if full else 0] for genotype in genotypes]

    def state(self) -> dict[str, Any]:
        """Return what has been trained so far."""
        return {"known": dict(self._known)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that :meth:`state` returned."""
        self._known = dict(state["known"])

    def _evaluated(self, genotype: Genotype) -> tuple[float, float, float]:
        key = repr(genotype.key())
        if key not in self._known:
            weights = self.fresh()
            loss = 0.0
            for _ in range(self.epochs):
                loss = weights.train(lambda _count: [genotype])
            (subset,), (everything,) = weights.accuracies([genotype]), weights.accuracies([genotype], full=True)
            self._known[key] = subset, everything, loss
        return self._known[key]
