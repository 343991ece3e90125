"""The costs that a plan minimises, and an architecture that keeps to all limits of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from cars_hw.config.units import format_latency
from cars_hw.errors import BudgetError
from cars_hw.evolution.objectives import CostObjective, excess, feasible
from cars_hw.latency import fastest_genotype
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.architecture import Architecture

DRAWS: Final = 2000
"""So many random architectures are tried if the fastest one is faster than ``--at-least``."""


def cost_objectives(plan: SearchPlan) -> list[CostObjective]:
    """Return the cost objectives of ``plan``: the latencies in the order of the targets, then the other costs."""
    objectives = [target.objective() for target in plan.targets]
    for name in plan.costs:
        attribute = name.replace("-", "_")

        def millions(architecture: Architecture, attribute: str = attribute) -> float:
            return float(getattr(network_cost(architecture.network, architecture.genotype), attribute)) / 1e6

        objectives.append(CostObjective(name=name, unit="M", value=millions))
    return objectives


def find_anchor(plan: SearchPlan, objectives: Sequence[CostObjective]) -> Architecture | None:
    """Return an architecture that all of ``objectives`` allow; None if they have no limit.

    It is the fastest one that was found. If that one is cheaper than an objective's ``at_least``, it is a random
    one.

    Raises:
        BudgetError: no architecture was found that all objectives allow.
    """
    if all(objective.limit is None and objective.at_least is None for objective in objectives):
        return None
    rng = np.random.default_rng(plan.seed)
    space = plan.architectures
    smallest = space.smallest
    cells = space.cells_for(smallest)
    fastest = fastest_genotype(cells, lambda genotype: excess(objectives, Architecture(genotype, smallest)), rng)
    anchor = Architecture(fastest, smallest)
    if feasible(objectives, anchor):
        return anchor
    if all(objective.at_least is None for objective in objectives):
        raise _over(objectives, anchor)
    # The anchor is between the limits and what is of interest: it does not tell which of the two is out of reach.
    limits = [replace(objective, at_least=None) for objective in objectives]
    cheapest = fastest_genotype(cells, lambda genotype: excess(limits, Architecture(genotype, smallest)), rng)
    within = [Architecture(cheapest, smallest)]
    if not feasible(limits, within[0]):
        raise _over(objectives, within[0])
    for _ in range(DRAWS):
        drawn = space.sample(rng)
        if feasible(objectives, drawn):
            return drawn
        if feasible(limits, drawn):
            within.append(drawn)
    raise _too_cheap(objectives, within)


def _over(objectives: Sequence[CostObjective], anchor: Architecture) -> BudgetError:
    """Return the error of limits to which not even ``anchor`` keeps."""
    limited = [objective for objective in objectives if objective.limit is not None]
    uppers = tuple(objective.upper(anchor) for objective in limited)
    comparison = "; ".join(
        f"{objective.name}: limit {format_latency(objective.limit or 0)}, possible {format_latency(upper)}"
        for objective, upper in zip(limited, uppers, strict=True)
    )
    return BudgetError(
        f"no architecture keeps to the budget ({comparison}, upper bounds)", uppers, remedy="smaller-network"
    )


def _too_cheap(objectives: Sequence[CostObjective], within: Sequence[Architecture]) -> BudgetError:
    """Return the error of ``within``, which keep to the limits and are cheaper than what is of interest."""
    wanted = " and ".join(
        f"{objective.name} of at least {format_latency(objective.at_least)} (the slowest of {len(within):,} tried "
        f"takes {format_latency(max(map(objective.value, within)))})"
        for objective in objectives
        if objective.at_least is not None
    )
    uppers = tuple(objective.upper(within[0]) for objective in objectives if objective.limit is not None)
    return BudgetError(
        f"no architecture was found within the budget with {wanted}", uppers, remedy="larger-network"
    )
