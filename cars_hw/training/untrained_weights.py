"""Evaluation on untrained weights: linear probes on the features that networks have before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import ClassCounts
from cars_hw.space.architecture import Architecture
from cars_hw.training.shared_weights import SuperNetWeights


class UntrainedWeights:
    """Evaluates architectures by linear probes on untrained weights; a search uses this in place of shared weights.

    ``weights`` is a SuperNet with fresh weights, and with linear probes (:mod:`cars_hw.training.linear_probe`). The
    part of it that an architecture uses is that architecture's network with fresh weights. Nothing is trained, so
    each architecture is evaluated once: on the subset in a generation, and on all images at the end.
    """

    trains: Final = False

    def __init__(self, weights: SuperNetWeights) -> None:
        self.weights = weights
        # What is known of each architecture: on the subset (False), and on all validation images (True).
        self._known: dict[bool, dict[str, ClassCounts]] = {False: {}, True: {}}

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:  # noqa: ARG002 -- as the protocol has it
        """Train nothing: a search without training does not ask for it.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("untrained weights are not trained")

    def remember(self) -> None:
        """Keep nothing, since the weights do not change."""

    def counts(
        self,
        architectures: Sequence[Architecture],
        *,
        before: bool = False,  # noqa: ARG002 -- as the protocol has it
        full: bool = False,
    ) -> list[ClassCounts]:
        """Return what each gets right by its own linear probe, by class; ``before`` changes nothing."""
        known = self._known[full or self.weights.evaluates_all]
        new = {repr(one.key()): one for one in architectures if repr(one.key()) not in known}
        if new:
            known.update(zip(new, self.weights.counts(list(new.values()), full=full), strict=True))
        return [known[repr(one.key())] for one in architectures]

    def state(self) -> dict[str, Any]:
        """Return the results so far. The weights are those of the seed, so they are not part of it."""
        return {
            name: {key: unstructure(one) for key, one in self._known[full].items()}
            for name, full in (("subset", False), ("all", True))
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        for name, full in (("subset", False), ("all", True)):
            self._known[full] = {key: structure(one, ClassCounts) for key, one in state[name].items()}
