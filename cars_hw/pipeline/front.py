"""The front of a search: the networks that it hands over."""

from __future__ import annotations

from collections.abc import Sequence

from cars_hw.evolution.population import Finalist


def longest_trained(members: Sequence[Finalist]) -> list[Finalist]:
    """Return those of ``members`` with the most epochs of training; accuracies after fewer epochs are lower."""
    most = max(one.trained_epochs for one in members)
    return [one for one in members if one.trained_epochs == most]


def with_best_of_stretches(front: Sequence[Finalist], members: Sequence[Finalist]) -> list[Finalist]:
    """Return ``front`` and the most accurate of ``members`` in each stretch, cheapest first.

    Large networks learn slowly: after a short training, a cheaper network may be more accurate than all of a
    stretch, and less accurate after a long one. The best of each stretch is therefore handed over as well, unless
    it has no right answer at all.
    """
    best: dict[int, Finalist] = {}
    for one in sorted(members, key=lambda one: (-one.accuracy, one.costs)):
        if one.stretch and one.accuracy > 0:
            best.setdefault(one.stretch, one)
    chosen = [*front, *(one for one in best.values() if one not in front)]
    return sorted(chosen, key=lambda one: (one.costs, -one.accuracy))
