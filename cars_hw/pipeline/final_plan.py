"""The plan of a final stage: the networks that it trains, and for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cars_hw.config.training import Recipe
from cars_hw.evolution.halving import cost_of, further_places, plan_rungs
from cars_hw.evolution.nominees import Grown, Nominee, best_first, grow, nominate, parents_of_growth
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages
from cars_hw.evolution.population import Finalist
from cars_hw.pipeline.final_images import ImagesOf, load_images
from cars_hw.pipeline.near_limit import near_limit, reaches, uses_most
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.records import FinalStage
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_cost import judged_images, multiply_adds, sizing
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec


def short_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """Return ``recipe`` for a training of ``epochs`` that keeps the weights of the last epoch.

    It lacks what is for long trainings only: drop-path, the auxiliary head, and a moving average of the weights,
    which needs more steps than a short training has. It holds out no images. The warm-up is shortened by the same
    factor as the training.
    """
    return replace(
        recipe,
        epochs=epochs,
        warmup_epochs=recipe.warmup_epochs * min(1.0, epochs / recipe.epochs),
        auxiliary=0.0,
        drop_path=0.0,
        ema=0.0,
        hold_out=0.0,
    )


@dataclass(frozen=True, eq=False)
class Ended:
    """A search after its last generation, with which the final stage begins.

    ``supernet`` is the network of the SuperNet. ``population`` are the architectures of all generations.
    """

    plan: SearchPlan
    run: RunFolder
    supernet: NetworkSpec
    resolution: tuple[int, int] | None
    objectives: Sequence[CostObjective]
    finalists: Sequence[Finalist]
    population: Sequence[Architecture]

    @cached_property
    def reaches_a_limit(self) -> bool:
        """Whether the slowest network of the space uses most of a limit. Every plan of the stage asks for it."""
        return reaches(self.plan.architectures, self.objectives, np.random.default_rng((self.plan.seed, 4)))

    def images_of(self, network: NetworkSpec) -> ImagesOf:
        """Return what loads the images of ``network``. Those of a proxy have their own resolution."""
        plan = self.plan
        resolution = None if self.resolution is None else network.resolution
        return ImagesOf(self.run.path, plan.data, resolution, plan.preset.training.validation_fraction, plan.seed)


def plan_final_stage(ended: Ended) -> FinalStage:
    """Return the plan of the stage, with its nominees."""
    plan = ended.plan
    images = _numbers_of_images(ended)
    sized = sizing(plan, ended.supernet, images, ended.objectives, ended.population)
    evaluation = images.evaluates / (TRAINING * images.trains)
    nominations: dict[int, _Nominations] = {}

    def costs(nominees: Sequence[Nominee]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in range(plan.preset.final.stretches)]
        for one in nominees:
            an_epoch = TRAINING * images.trains * multiply_adds(plan, ended.supernet, one.architecture)
            found[one.stretch - 1].append(an_epoch)
        return found

    def with_places(places: int) -> _Nominations:
        if places not in nominations:
            nominations[places] = _Nominations(ended, places)
        return nominations[places]

    rungs = plan_rungs(
        lambda places: costs(with_places(places).nominees()),
        sized.affordable,
        most_epochs=plan.preset.recipe.epochs,
        evaluation=evaluation,
    )
    chosen = with_places(rungs.places)
    further = further_places(
        rungs,
        plan.preset.final.stretches,
        lambda further: costs(chosen.nominees(further)),
        sized.affordable,
        evaluation,
    )
    nominees = chosen.nominees(further)
    planned = cost_of(rungs, costs(nominees), evaluation)
    recipe = short_recipe(plan.preset.recipe, rungs.epochs[-1])
    return FinalStage(rungs, recipe, sized.searched, planned, tuple(nominees))


def _numbers_of_images(ended: Ended) -> JudgedImages:
    data, judged = load_images(ended.images_of(ended.supernet))
    return judged_images(ended.plan, len(data.train), len(judged))


class _Nominations:
    """What the final stage may train, with ``places`` for each stretch: the finalists, and networks beside them.

    The networks beside are grown. At least one nominee uses most of a limit, if the search could propose such a
    network and one is found.
    """

    def __init__(self, ended: Ended, places: int) -> None:
        self._ended, self._places = ended, places
        plan, objectives = ended.plan, ended.objectives
        objective = plan.preset.evolution.objective
        parents = parents_of_growth(ended.finalists, places, plan.preset.final.stretches, objective)
        known = {one.architecture.key() for one in ended.finalists}
        larger = grow(
            [one.architecture for one in parents],
            plan.architectures,
            lambda one: one.key() not in known and feasible(objectives, one),
            places,
        )
        self._grown = [Grown(one, _costs(objectives, one)) for one in larger]
        if any(uses_most(objectives, one.architecture) for one in self.nominees()):
            return
        # Otherwise, nothing would be known of networks that use the limit.
        best = best_first(ended.finalists, objective)[:places]
        near = near_limit(
            plan.architectures,
            objectives,
            [one.genotype for one in best],
            np.random.default_rng((plan.seed, 3)),
            lambda: ended.reaches_a_limit,
        )
        if near is not None:
            self._grown.append(Grown(near, _costs(objectives, near), "near-limit"))

    def nominees(self, further: Sequence[int] = ()) -> list[Nominee]:
        """Return the nominees, cheapest first; ``further`` are places that the stretches have beside."""
        plan = self._ended.plan
        return nominate(
            self._ended.finalists,
            self._grown,
            stretches=plan.preset.final.stretches,
            places=self._places,
            logarithmic=plan.sizes is not None,
            objective=plan.preset.evolution.objective,
            further=further,
        )


def nominees_of(ended: Ended, places: int) -> list[Nominee]:
    """Return the networks that the final stage trains, with ``places`` for each stretch."""
    return _Nominations(ended, places).nominees()


def _costs(objectives: Sequence[CostObjective], architecture: Architecture) -> tuple[float, ...]:
    return tuple(objective.value(architecture) for objective in objectives)
