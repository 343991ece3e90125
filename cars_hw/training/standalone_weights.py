"""Evaluation without shared weights: every architecture is trained standalone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import ClassCounts
from cars_hw.space.architecture import Architecture
from cars_hw.training.shared_weights import SuperNetWeights


class StandaloneWeights:
    """Trains each architecture standalone before its evaluation; a search uses this in place of shared weights.

    ``fresh`` returns a SuperNet with untrained weights, the same ones each time. Only the architecture is trained
    in it, which makes it that architecture's network. Each architecture is trained once, for ``epochs`` epochs.
    """

    def __init__(self, fresh: Callable[[], SuperNetWeights], epochs: int) -> None:
        self.fresh = fresh
        self.epochs = epochs
        self.trains = True
        # By architecture: the counts on the subset, on all validation images, and the loss of the last epoch.
        self._known: dict[str, tuple[ClassCounts, ClassCounts, float]] = {}

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:  # noqa: ARG002 -- as the protocol has it
        """Train nothing, since no weights are shared; return the mean loss of the trained architectures."""
        losses = [loss for _, _, loss in self._known.values()]
        return sum(losses) / len(losses) if losses else 0.0

    def remember(self) -> None:
        """Keep nothing, since an architecture's weights do not change."""

    def counts(
        self,
        architectures: Sequence[Architecture],
        *,
        before: bool = False,  # noqa: ARG002 -- as the protocol has it
        full: bool = False,
    ) -> list[ClassCounts]:
        """Return what each gets right after its own training, by class; ``before`` changes nothing."""
        found = map(self._evaluated, architectures)
        return [everything if full else subset for subset, everything, _ in found]

    def state(self) -> dict[str, Any]:
        """Return the figures of the architectures that have been trained."""
        return {"known": {key: unstructure(known) for key, known in self._known.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        for key, (subset, everything, loss) in state["known"].items():
            self._known[key] = structure(subset, ClassCounts), structure(everything, ClassCounts), loss

    def _evaluated(self, architecture: Architecture) -> tuple[ClassCounts, ClassCounts, float]:
        key = repr(architecture.key())
        if key not in self._known:
            weights = self.fresh()
            loss = 0.0
            for _ in range(self.epochs):
                loss = weights.train(lambda _count: [architecture])
            (subset,), (everything,) = weights.counts([architecture]), weights.counts([architecture], full=True)
            self._known[key] = subset, everything, loss
        return self._known[key]
