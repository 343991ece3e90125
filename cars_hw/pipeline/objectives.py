"""The costs that a plan minimises, and an architecture that keeps to all limits of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from cars_hw.config.measurement import Precision
from cars_hw.config.units import in_milliseconds
from cars_hw.errors import BudgetError
from cars_hw.evolution.objectives import CostObjective, excess, feasible
from cars_hw.latency import fastest_genotype
from cars_hw.pipeline.costs import ENERGY, named_objective, parse_cost
from cars_hw.pipeline.latency_target import energy_target
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace

DRAWS: Final = 2000
"""So many random architectures are tried if the fastest one is faster than ``--at-least``."""

NAMED_TRIES: Final = 400
"""So many architectures are tried where a cost that is no latency has a limit."""


def cost_objectives(plan: SearchPlan) -> list[CostObjective]:
    """Return the cost objectives of ``plan``: the latencies in the order of the targets, then the other costs."""
    precision = plan.exported_precision
    return [
        *(target.objective() for target in plan.targets),
        *(_named(text, plan, precision) for text in plan.costs),
    ]


def _named(text: str, plan: SearchPlan, precision: Precision) -> CostObjective:
    name, limit = parse_cost(text)
    if name != ENERGY:
        return named_objective(text, precision)
    return energy_target(plan.targets).energy_objective(limit)


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
    if any(objective.limit is not None for objective in objectives[len(plan.targets) :]):
        return _anchor_of_named(plan, objectives, rng)
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
    within = Architecture(cheapest, smallest)
    if not feasible(limits, within):
        raise _over(objectives, within)
    return _of_interest(plan, objectives, within, rng, DRAWS)


def _of_interest(
    plan: SearchPlan, objectives: Sequence[CostObjective], first: Architecture, rng: np.random.Generator, draws: int
) -> Architecture:
    """Return one of ``draws`` random architectures that all of ``objectives`` allow.

    ``first`` keeps to all limits, and is cheaper than an objective's ``at_least``.

    Raises:
        BudgetError: none of them is allowed.
    """
    limits = [replace(objective, at_least=None) for objective in objectives]
    within = [first]
    for _ in range(draws):
        drawn = plan.architectures.sample(rng)
        if feasible(objectives, drawn):
            return drawn
        if feasible(limits, drawn):
            within.append(drawn)
    raise _too_cheap(objectives, within)


def _anchor_of_named(
    plan: SearchPlan, objectives: Sequence[CostObjective], rng: np.random.Generator
) -> Architecture:
    """Return an architecture that all of ``objectives`` allow, one of which is no latency and has a limit.

    Latencies come from tables within microseconds. Another cost may take long, so few architectures are tried: the
    fastest one, random ones of the smallest size, and steps from the best of them. If the one that keeps to all
    limits is cheaper than an objective's ``at_least``, random ones of all sizes follow.

    Raises:
        BudgetError: none of them is allowed.
    """
    limits = [replace(objective, at_least=None) for objective in objectives]
    within = _within_named(plan, limits, rng)
    return within if feasible(objectives, within) else _of_interest(plan, objectives, within, rng, NAMED_TRIES)


def _within_named(plan: SearchPlan, objectives: Sequence[CostObjective], rng: np.random.Generator) -> Architecture:
    """Return an architecture that keeps to all limits of ``objectives``, one of which is no latency.

    Raises:
        BudgetError: none was found.
    """
    latencies, space = objectives[: len(plan.targets)], plan.architectures
    smallest = space.smallest
    cells = space.cells_for(smallest)
    best: tuple[float, Architecture] | None = None
    for number in range(NAMED_TRIES):
        if number == 0 and any(objective.limit is not None for objective in latencies):
            genotype = fastest_genotype(cells, lambda one: excess(latencies, Architecture(one, smallest)), rng)
        elif best is None or number < NAMED_TRIES // 2:
            genotype = cells.sample(rng)
        else:
            genotype = _changed(cells, best[1].genotype, rng)
        tried = Architecture(genotype, smallest)
        if feasible(objectives, tried):
            return tried
        missed = excess(objectives, tried)
        if best is None or missed < best[0]:
            best = missed, tried
    assert best is not None
    raise _over(objectives, best[1])


def _changed(cells: GenotypeSpace, genotype: Genotype, rng: np.random.Generator) -> Genotype:
    """Return ``genotype`` with another choice at one place, such that it still fits the network."""
    places = cells.places()
    while True:
        place = places[int(rng.integers(len(places)))]
        choices = cells.choices(place)
        changed = cells.with_choice(genotype, place, choices[int(rng.integers(len(choices)))])
        if cells.fits(changed):
            return changed


def _over(objectives: Sequence[CostObjective], anchor: Architecture) -> BudgetError:
    """Return the error of limits to which not even ``anchor`` keeps."""
    limited = [objective for objective in objectives if objective.limit is not None]
    uppers = tuple(objective.upper(anchor) for objective in limited)
    comparison = "; ".join(
        f"{objective.name}: limit {_text(objective.limit or 0, objective)}, possible {_text(upper, objective)}"
        for objective, upper in zip(limited, uppers, strict=True)
    )
    return BudgetError(
        f"no architecture keeps to the budget ({comparison}, upper bounds)", uppers, remedy="smaller-network"
    )


def _text(value: float, objective: CostObjective) -> str:
    return in_milliseconds(value) if objective.unit == "ms" else f"{value:.4g} {objective.unit}"


def _too_cheap(objectives: Sequence[CostObjective], within: Sequence[Architecture]) -> BudgetError:
    """Return the error of ``within``, which keep to the limits and are cheaper than what is of interest."""
    wanted = " and ".join(
        f"{objective.name} of at least {in_milliseconds(objective.at_least)} (the slowest of {len(within):,} tried "
        f"takes {in_milliseconds(max(map(objective.value, within)))})"
        for objective in objectives
        if objective.at_least is not None
    )
    uppers = tuple(objective.upper(within[0]) for objective in objectives if objective.limit is not None)
    return BudgetError(
        f"no architecture was found within the budget with {wanted}", uppers, remedy="larger-network"
    )
