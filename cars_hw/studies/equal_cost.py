"""What a run cost, and the random architectures that can be trained at the same cost.

Costs are in passes of an image times millions of multiply-adds; see :mod:`cars_hw.evolution.passes`. They come from
the records of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.codec import structure
from cars_hw.data import DataBundle
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages
from cars_hw.evolution.population import Member
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan, plan_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_cost import judged_images, multiply_adds, sizing
from cars_hw.pipeline.search_images import run_images
from cars_hw.pipeline.supernet import supernet_spec
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.front_membership import EqualCost
from cars_hw.training.standalone import hold_out

MOST_DRAWS: Final = 10_000
"""If so many draws in a row are not allowed, the limits are too tight for a random search."""


class Parts(NamedTuple):
    """The numbers of images that train a network, and that choose its best epoch."""

    trains: int
    holds_out: int

    @classmethod
    def of(cls, data: DataBundle, share: float, seed: int) -> Parts:
        """Return those of a training on ``data`` that holds out ``share``, unless there is a validation part."""
        if data.validation is not None:
            return cls(len(data.train), len(data.validation))
        train, held = hold_out(data.train, share, seed)
        return cls(len(train), 0 if held is None else len(held))


class Trained(NamedTuple):
    """A training: the network, its epochs, and its images."""

    architecture: Architecture
    epochs: int
    parts: Parts

    @property
    def cost(self) -> float:
        """The cost of all epochs, each with its evaluation on the held-out images."""
        genotype, network = self.architecture
        adds = network_cost(network, genotype).multiply_adds / 1e6
        return self.epochs * (TRAINING * self.parts.trains + self.parts.holds_out) * adds


@dataclass(frozen=True)
class RandomSearch:
    """Random architectures that cost together at most what the run cost, by name, and the costs."""

    chosen: tuple[tuple[str, Architecture], ...]
    cost: EqualCost


def random_search(run: RunFolder, front: Sequence[Trained], epochs: int, parts: Parts, seed: int) -> RandomSearch:
    """Return the random architectures of which as many are trained for ``epochs`` as the cost of ``run`` pays for.

    The cost is that of the search, of its final stage, and of the trainings ``front`` of the run's networks. Cells
    and sizes are drawn as a search draws them, and all of them keep to the limits of the run; ``seed`` decides
    which. The draw ends at the first architecture that costs more than what is left, since leaving it out would
    prefer small ones. A run that cost more gets the same ones and further ones.

    Raises:
        InputError: the run shared no weights, its cost does not pay for one training, or almost no architecture
            keeps to the limits.
        RunError: the search has not finished, or a file of it is damaged.
        DatasetError: the search was on a proxy whose images are gone.
    """
    plan = plan_of(run, None)
    if plan.standalone_epochs:
        raise InputError("the run trained every architecture standalone: its cost is not comparable")
    search, final = search_cost(run, plan)
    trained = sum(one.cost for one in front)
    left = affordable = search + final + trained
    objectives = cost_objectives(plan)
    rng = np.random.default_rng((seed, 3))
    found: list[Architecture] = []
    known: set[object] = set()
    missed = 0
    while missed < MOST_DRAWS:
        one = plan.architectures.sample(rng)
        if one.key() in known or not feasible(objectives, one):
            missed += 1
            continue
        missed = 0
        cost = Trained(one, epochs, parts).cost
        if cost > left:
            break
        left -= cost
        known.add(one.key())
        found.append(one)
    if not found:
        reason = "few architectures keep to its limits" if missed else f"it does not pay for {epochs} epochs of one"
        raise InputError(f"there are no random architectures at the cost of the run: {reason}")
    names = [f"random-{number:03d}" for number in range(1, len(found) + 1)]
    start = run.start()
    earlier = None if start is None else start.run
    costs = EqualCost(search, final, trained, affordable - left, len(found), earlier)
    return RandomSearch(tuple(zip(names, found, strict=True)), costs)


def search_cost(run: RunFolder, plan: SearchPlan) -> tuple[float, float]:
    """Return what the search of ``run`` by ``plan`` cost before its final stage, and what that cost.

    Raises:
        RunError: a file of the run is damaged.
        DatasetError: the search was on a proxy whose images are gone.
    """
    splits = {split.use: split.images for split in run.data.splits}
    images = judged_images(plan, splits["weights"], splits["architectures"])
    # A search on a proxy has the classes and the resolution of its images.
    supernet = supernet_spec(plan, run_images(plan, run, run.data)) if plan.proxy else _supernet(plan)
    population = [
        member.architecture
        for record in run.history()
        for member in structure(record["population"], tuple[Member, ...])
    ]
    searched = sizing(plan, supernet, images, cost_objectives(plan), population).searched
    return searched, _final_cost(run, plan, supernet, images)


def _supernet(plan: SearchPlan) -> NetworkSpec:
    if plan.sizes is not None:
        return plan.network
    return plan.network.with_changes(channels=plan.preset.supernet_channels, layers=plan.preset.supernet_layers)


def _final_cost(run: RunFolder, plan: SearchPlan, supernet: NetworkSpec, images: JudgedImages) -> float:
    stage = run.final_stage()
    if stage is None:
        return 0.0
    return sum(
        (TRAINING * images.trains * stage.epochs_of(one) + images.evaluates * len(one.results))
        * multiply_adds(plan, supernet, one.architecture)
        for one in stage.networks
    )
