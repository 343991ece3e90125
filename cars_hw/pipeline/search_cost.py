"""The cost of a search in multiply-adds, and what its final stage may cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.presets import Preset
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages, search_passes
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.supernet import trained_spec
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.widening import widening_draws

DRAWS: Final = 64
"""The mean multiply-adds of the space are estimated by so many random architectures."""


class Sizing(NamedTuple):
    """The figures that decide how long a final stage is.

    ``searched`` is the cost of the search before it, and ``affordable`` the largest cost of the stage. Both are in
    passes of an image times millions of multiply-adds. ``images`` are the numbers of images of the search.
    """

    searched: float
    affordable: float
    images: JudgedImages


def judged_images(plan: SearchPlan, trains: int, evaluates: int) -> JudgedImages:
    """Return the numbers of images of the search of ``plan``: ``trains`` train, and ``evaluates`` evaluate."""
    return JudgedImages(trains, evaluates, min(plan.preset.training.evaluation_images or evaluates, evaluates))


class MeanAdds(NamedTuple):
    """Mean millions of multiply-adds: of the draws of the warm-up, of those from the space, and of the population.

    ``ends`` are those of the largest and the smallest size together, if every step trains both; otherwise 0.
    """

    warm_up: float
    space: float
    population: float
    ends: float = 0.0


def sizing(
    plan: SearchPlan,
    supernet: NetworkSpec,
    images: JudgedImages,
    objectives: Sequence[CostObjective],
    population: Sequence[Architecture] = (),
) -> Sizing:
    """Return what the final stage of ``plan`` may cost; ``population`` is that of :func:`mean_adds`."""
    return sizing_of(plan.preset, images, mean_adds(plan, supernet, objectives, population))


def mean_adds(
    plan: SearchPlan,
    supernet: NetworkSpec,
    objectives: Sequence[CostObjective],
    population: Sequence[Architecture] = (),
) -> MeanAdds:
    """Return the mean multiply-adds of the architectures that the search of ``plan`` trains and evaluates.

    ``population`` are the architectures of all generations. Before a search they are not known: random
    architectures that keep to every limit replace them, or all random ones if none does.
    """
    rng = np.random.default_rng((plan.seed, 2))
    drawn = [plan.architectures.sample(rng) for _ in range(DRAWS)]
    later = population or [one for one in drawn if feasible(objectives, one)] or drawn

    def mean(architectures: Sequence[Architecture]) -> float:
        unique = {one.key(): one for one in architectures}
        costs = {key: multiply_adds(plan, supernet, one) for key, one in unique.items()}
        return float(np.mean([costs[one.key()] for one in architectures]))

    ends = 0.0
    if plan.sizes is not None and plan.preset.training.size_sampling == "sandwich":
        sizes = (plan.architectures.largest, plan.architectures.smallest)
        ends = sum(mean([Architecture(one.genotype, size) for one in drawn]) for size in sizes)
    evolution, warming = plan.preset.evolution, drawn
    if evolution.widening != "none":
        warming = list(widening_draws(plan.architectures, evolution.widening, evolution.warmup_epochs, DRAWS, rng))
    return MeanAdds(mean(warming), mean(drawn), mean(later), ends)


def sizing_of(preset: Preset, images: JudgedImages, adds: MeanAdds) -> Sizing:
    """Return what the final stage of a search by ``preset`` may cost; ``adds`` are those of its architectures."""
    evolution = preset.evolution
    trains = preset.training.trains
    passes = search_passes(evolution, preset.training.architectures, images, trains=trains)
    searched = passes.warm_up * adds.warm_up + passes.space * adds.space + passes.population * adds.population
    epochs = evolution.warmup_epochs + evolution.generations * evolution.epochs_per_generation
    searched += trains * epochs * TRAINING * images.trains * adds.ends
    share = preset.final.share
    return Sizing(searched, searched * share / (1 - share), images)


def multiply_adds(plan: SearchPlan, supernet: NetworkSpec, architecture: Architecture) -> float:
    """Return the millions of multiply-adds of the network as which ``architecture`` runs in the search."""
    return network_cost(trained_spec(plan, supernet, architecture), architecture.genotype).multiply_adds / 1e6
