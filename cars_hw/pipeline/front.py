"""The front of a search: the networks that it hands over, and how they are written to the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from cars_hw.evolution.pnsga3 import pareto_front
from cars_hw.evolution.population import Finalist
from cars_hw.nn.cost import both_costs
from cars_hw.pipeline.costs import COUNTED, parse_cost
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.architecture import Architecture


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


def describe_front(
    plan: SearchPlan,
    front: Sequence[Finalist],
    measured: Mapping[Architecture, Sequence[float | None]] = MappingProxyType({}),
    prefix: str = "net",
) -> list[FrontNetwork]:
    """Return the networks of ``front`` as they are written to the run, named in their order.

    ``measured`` has for an architecture the milliseconds on each target's device, None for a target without one.
    """
    not_measured = (None,) * len(plan.targets)
    best = set(_undominated(front))
    networks = []
    names = [parse_cost(text)[0] for text in plan.costs]
    standalone = bool(plan.standalone_epochs)
    for number, member in enumerate(front, start=1):
        times = measured.get(member.architecture, not_measured)
        counted = member.costs[len(plan.targets) :]
        networks.append(
            FrontNetwork(
                name=f"{prefix}-{number:02d}",
                genotype=member.genotype,
                spec=member.spec,
                accuracy=member.accuracy,
                latency_estimates=tuple(
                    target.estimate(member.architecture, ms) for target, ms in zip(plan.targets, times, strict=True)
                ),
                **both_costs(member.spec, member.genotype),
                objective=plan.preset.evolution.printed_accuracy,
                validation=member.validation,
                trained_epochs=member.trained_epochs,
                # Without a final stage, the search itself chose the front, by what it maximises.
                dominated=bool(member.stretch) and number - 1 not in best,
                costs={name: one for name, one in zip(names, counted, strict=True) if name not in COUNTED},
                classifier=None if standalone or member.trained_epochs else plan.preset.training.classifier,
            )
        )
    return networks


def _undominated(front: Sequence[Finalist]) -> list[int]:
    """Return the positions of those of ``front`` that no other exceeds in accuracy and all costs."""
    if not front:
        return []
    return [int(row) for row in pareto_front(np.array([(-one.accuracy, *one.costs) for one in front]))]
