"""Evaluation without shared weights: every architecture is trained standalone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cars_hw.space.genotype import Genotype
from cars_hw.training.shared_weights import SuperNetWeights


class StandaloneWeights:
    """Trains each architecture standalone before its evaluation; a search uses this in place of shared weights.

    ``fresh`` returns a SuperNet with untrained weights, the same ones each time. Only the architecture is trained
    in it, which makes it that architecture's network. Each architecture is trained once, for ``epochs`` epochs.
    """

    def __init__(self, fresh: Callable[[], SuperNetWeights], epochs: int) -> None:
        self.fresh = fresh
        self.epochs = epochs
        # By genotype: accuracy on the subset, on all validation images, and the loss of the last epoch.
        self._known: dict[str, tuple[float, float, float]] = {}

    def train(self, draw: Callable[[int], Sequence[Genotype]]) -> float:  # noqa: ARG002 -- as the protocol has it
        """Train nothing, since no weights are shared; return the mean loss of the trained architectures."""
        losses = [loss for _, _, loss in self._known.values()]
        return sum(losses) / len(losses) if losses else 0.0

    def remember(self) -> None:
        """Keep nothing, since an architecture's weights do not change."""

    def accuracies(
        self,
        genotypes: Sequence[Genotype],
        *,
        before: bool = False,  # noqa: ARG002 -- as the protocol has it
        full: bool = False,
    ) -> list[float]:
        """Return the accuracy (a fraction) of each genotype after its own training; ``before`` changes nothing."""
        return [self._evaluated(genotype)[1 if full else 0] for genotype in genotypes]

    def state(self) -> dict[str, Any]:
        """Return the figures of the architectures that have been trained."""
        return {"known": dict(self._known)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
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
