"""The ways to find networks that ``fronts.py`` compares: searches, and trainings from scratch by halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from front_figures import OWN
from front_parts import Candidate, Cost, Part, Searched, Task, accuracies_of, fresh, latencies_of

from cars_hw.callbacks import SearchCallback
from cars_hw.config.training import Recipe
from cars_hw.config.units import format_latency
from cars_hw.errors import InputError
from cars_hw.evolution.halving import Rungs, cost_of, plan_rungs, survivors
from cars_hw.evolution.nominees import stretch_of
from cars_hw.evolution.passes import TRAINING, JudgedImages, search_passes
from cars_hw.evolution.pnsga3 import pareto_front
from cars_hw.evolution.population import Finalist
from cars_hw.evolution.strategies import STRATEGIES
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.final_plan import short_recipe
from cars_hw.pipeline.front import with_best_of_stretches
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.progress import no_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype
from cars_hw.training.standalone import NetworkTraining, counts_on
from cars_hw.training.threads import torch_threads

WIRINGS = 50
"""The latency of a size is the median of so many random wirings."""

ALIKE = 0.1
"""Sizes whose latencies differ by this fraction from the wanted one are alike."""

MOST_DRAWS = 10_000


class Told(SearchCallback):
    """Tells what a search says of its final stage, and a line for each generation."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Tell the figures of a generation."""
        costs = [member["costs"][0] for member in record["population"]]
        self._log(
            f"generation {record['generation']}: best accuracy {record['best_accuracy']:.3f}, "
            + ("" if record["loss"] is None else f"loss {record['loss']:.3f}, ")
            + f"{format_latency(min(costs))} to {format_latency(max(costs))}"
        )

    def on_final_stage(self, text: str) -> None:
        """Tell ``text``."""
        self._log(text)


def search(part: Part, plan: SearchPlan) -> Searched:
    """Search by ``plan`` and return its front."""
    path = part.folder / "run"
    plan = replace(plan, seed=part.seed)
    with part.clock("search"), torch_threads(part.task.settings.threads):
        run = run_search(plan, path, resume=True, jobs=1, progress=silent, log=no_log, callbacks=[Told(part.log)])
    front = [
        Candidate(one.architecture, one.latency_estimates[0].predicted_ms, one.accuracy) for one in run.front()
    ]
    return Searched(sorted(front, key=lambda one: one.ms), cost_of_run(plan, run, part.task.images))


def cost_of_run(plan: SearchPlan, run: RunFolder, images: JudgedImages) -> Cost:
    """Return the cost of the finished search of ``run``, with its final stage."""
    stage = run.final_stage()
    assert stage is not None
    training = plan.preset.training
    passes = sum(search_passes(plan.preset.evolution, training.architectures, images, trains=training.trains))
    passes /= TRAINING
    multiply_adds = 1e6 * stage.searched
    for one in stage.networks:
        own = stage.epochs_of(one) * images.trains + len(one.results) * images.evaluates / TRAINING
        passes += own
        multiply_adds += TRAINING * own * network_cost(one.spec, one.genotype).multiply_adds
    return Cost(passes, multiply_adds)


def both(part: Part, _budget: float) -> Searched:
    """Search cells and size together."""
    return search(part, part.task.plan)


def by(strategy: str) -> Callable[[Part, float], Searched]:
    """Return the search over cells and size by ``strategy`` of the library."""

    def way(part: Part, _budget: float) -> Searched:
        plan = part.task.plan
        evolution = STRATEGIES[strategy].changed(plan.preset.evolution)
        return search(part, replace(plan, preset=replace(plan.preset, evolution=evolution)))

    return way


def of_one_size(place: float) -> Callable[[Part, float], Searched]:
    """Return the search of the cells of one size, at ``place`` (0 to 1) of the range of sizes."""

    def way(part: Part, _budget: float) -> Searched:
        network = size_at(part.task, place)
        part.log(f"one size: {network.size}")
        sizes = SizeGrid((network.channels,), (network.layers,))
        return search(part, replace(part.task.plan, network=network, sizes=sizes))

    return way


def size_at(task: Task, place: float) -> NetworkSpec:
    """Return the size at ``place`` (0 to 1) of the sizes of the table, on a scale of log latency.

    The latency of a size is the median of :data:`WIRINGS` random wirings. 0 is the fastest size, and 1 the slowest
    one whose median keeps to the limit. Of the sizes within :data:`ALIKE` of the wanted latency, that with the most
    multiply-adds is taken: it does most in this time. The draw is the same for all seeds.
    """
    plan = task.plan
    assert plan.sizes is not None
    rng = np.random.default_rng(0)
    medians: dict[NetworkSpec, float] = {}
    work: dict[NetworkSpec, float] = {}
    for network in plan.sizes.networks(plan.network):
        space = plan.architectures.cells_for(network)
        wirings = [Architecture(space.sample(rng), network) for _ in range(WIRINGS)]
        ms = median(task.candidate(one).ms for one in wirings)
        if ms <= task.settings.limit_ms:
            medians[network] = ms
            work[network] = median(network_cost(network, one.genotype).multiply_adds for one in wirings)
    if not medians:
        raise InputError(f"no size keeps to {format_latency(task.settings.limit_ms)} with a median wiring")
    least, most = min(medians.values()), max(medians.values())
    wanted = least * (most / least) ** place
    nearest = min(abs(math.log(ms / wanted)) for ms in medians.values())
    alike = max(math.log(1 + ALIKE), nearest)
    return max(
        (network for network, ms in medians.items() if abs(math.log(ms / wanted)) <= alike),
        key=lambda network: work[network],
    )


def of_one_genotype(name: str) -> Callable[[Part, float], Searched]:
    """Return the way that trains the published genotype ``name`` at several sizes from scratch."""

    def way(part: Part, budget: float) -> Searched:
        task, rng = part.task, np.random.default_rng(part.seed)
        known = sizes_of(task, resolve_genotype(name))
        return halve(part, lambda count: spread(known, count, rng), len(known), budget)

    return way


def sizes_of(task: Task, genotype: Genotype) -> list[Candidate]:
    """Return ``genotype`` at all sizes of the table that keep to the limit, cheapest first."""
    plan = task.plan
    space, sizes = plan.architectures, plan.sizes
    assert sizes is not None
    networks = [
        space.with_channels(space.with_stages(plan.network, stages), channels)
        for channels in sizes.channels
        for stages in sizes.stages
    ]
    known = [Architecture(genotype, network) for network in networks]
    return sorted((task.candidate(one) for one in known if task.allows(one)), key=lambda one: one.ms)


def spread(known: Sequence[Candidate], count: int, rng: np.random.Generator) -> list[Candidate]:
    """Return ``count`` of ``known``, cheapest first: one of each of ``count`` equal intervals of log latency.

    Within an interval it is drawn uniformly. An interval without a free network takes the nearest free one.
    """
    least, most = (math.log(known[place].ms) for place in (0, -1))
    width = (most - least) / count
    free, found = list(known), []
    for number in range(count):
        low = least + number * width
        inside = [one for one in free if low <= math.log(one.ms) <= low + width]
        if inside:
            one = inside[int(rng.integers(len(inside)))]
        else:
            one = min(free, key=lambda one: abs(math.log(one.ms) - low - width / 2))
        free.remove(one)
        found.append(one)
    return sorted(found, key=lambda one: one.ms)


def of_random_architectures(part: Part, budget: float) -> Searched:
    """Train random architectures from scratch."""
    task, rng = part.task, np.random.default_rng(part.seed)

    def draw(count: int) -> list[Candidate]:
        found: dict[Any, Architecture] = {}
        for _ in range(MOST_DRAWS):
            if len(found) == count:
                break
            one = task.plan.architectures.sample(rng)
            if task.allows(one):
                found.setdefault(one.key(), one)
        return sorted((task.candidate(one) for one in found.values()), key=lambda one: one.ms)

    return halve(part, draw, MOST_DRAWS, budget)


# Trainings from scratch.


def halve(part: Part, draw: Callable[[int], list[Candidate]], most: int, budget: float) -> Searched:
    """Return the front of ``draw(count)`` networks after successive halving at a cost of ``budget`` passes.

    :func:`cars_hw.evolution.halving.plan_rungs` plans the epochs of the rungs by ``budget``. ``count`` is the
    largest number of networks, at most ``most``, whose trainings keep to it.
    """
    task = part.task
    images, stretches = task.images, task.settings.stretches
    evaluation = images.evaluates / (TRAINING * images.trains)
    affordable = budget / images.trains
    rungs = plan_rungs(
        lambda places: [[1.0] * places] * stretches,
        affordable,
        most_epochs=task.settings.front_epochs,
        evaluation=evaluation,
    )
    count = min(rungs.places * stretches, most)
    while count < most and cost_of(rungs, _even(count + 1, stretches), evaluation) <= affordable:
        count += 1
    networks = draw(count)
    part.log(f"{len(networks)} networks, rungs of {rungs.epochs} epochs, {latencies_of(networks)}")
    with part.clock("search"):
        return _run_rungs(part, networks, rungs)


def _even(count: int, stretches: int) -> list[list[float]]:
    """Return ``count`` networks of cost 1, divided among ``stretches``."""
    return [[1.0] * (count // stretches + (place < count % stretches)) for place in range(stretches)]


def _run_rungs(part: Part, networks: Sequence[Candidate], rungs: Rungs) -> Searched:
    images, stretches = part.task.images, part.task.settings.stretches
    least, most = networks[0].ms, networks[-1].ms
    recipe = short_recipe(part.task.recipe, rungs.epochs[-1])

    def stretch(one: Candidate) -> int:
        return stretch_of(one.ms, least, most, stretches, logarithmic=True)

    passes = multiply_adds = 0.0
    running, before = list(networks), 0
    for rung, until in enumerate(rungs.epochs, start=1):
        if before:
            running = survivors(running, stretch, lambda one: (-one.accuracy, one.ms), rungs.kept)
        running = [_trained_until(part, one, recipe, until) for one in running]
        part.log(f"rung {rung}: {until} epochs, held-out accuracy {accuracies_of(running)}")
        for one in running:
            own = (until - before) * images.trains + images.evaluates / TRAINING
            passes += own
            multiply_adds += TRAINING * own * one.multiply_adds
        before = until
    members = [Finalist(*one.architecture, (one.ms,), one.accuracy, stretch=stretch(one)) for one in running]
    return Searched(front_of(members), Cost(passes, multiply_adds))


def _trained_until(part: Part, one: Candidate, recipe: Recipe, until: int) -> Candidate:
    """Return ``one`` with its accuracy on the held-out images after ``until`` epochs."""
    accuracy = part.result(f"{one.name} after {until}", lambda: _train(part, one, recipe, until))
    return one._replace(held_out=accuracy)


def _train(part: Part, one: Candidate, recipe: Recipe, until: int) -> float:
    """Train ``one`` to the end of epoch ``until``; return its accuracy on the held-out images."""
    data = part.task.bundle
    assert data.validation is not None
    checkpoint = part.checkpoint(one, recipe)
    with torch_threads(part.task.settings.threads):
        training = NetworkTraining(fresh(one, part.seed), replace(data, validation=None), recipe, seed=part.seed)
        kept = checkpoint.load()
        if kept is not None:
            training.restore(kept)
        while training.epoch < until:
            training.run_epoch()
            checkpoint.save(training.state())
        accuracy = counts_on(training.evaluated, data.validation, data).accuracy
    if until == recipe.epochs:
        checkpoint.remove()
    return accuracy


def front_of(members: Sequence[Finalist]) -> list[Candidate]:
    """Return the front of ``members`` as the final stage of a search does, cheapest first.

    It has those that no other dominates in held-out accuracy and latency, and the best of each stretch.
    """
    rows = np.array([[1 - one.accuracy, *one.costs] for one in members])
    front = with_best_of_stretches([members[row] for row in pareto_front(rows)], members)
    return [Candidate(one.architecture, one.costs[0], one.accuracy) for one in front]


@dataclass(frozen=True)
class Way:
    """A way to find networks, in one line, and what runs it with a budget of passes."""

    summary: str
    run: Callable[[Part, float], Searched]


WAYS: Mapping[str, Way] = {
    OWN: Way("cells and size in one search, large networks are protected", both),
    "cells": Way("cells alone, at the size in the middle of the range", of_one_size(0.5)),
    "cells-small": Way("cells alone, at the fastest size", of_one_size(0.0)),
    "cells-large": Way("cells alone, at the slowest size that keeps to the limit", of_one_size(1.0)),
    "size:DARTS_V2": Way("size alone, with the genotype DARTS_V2", of_one_genotype("DARTS_V2")),
    "size:CARS_E": Way("size alone, with the genotype CARS_E", of_one_genotype("CARS_E")),
    "random": Way("random search over cells and size with shared weights", by("random")),
    "plain": Way("plain NSGA-III over cells and size, nothing is protected", by("none")),
    "speed": Way("cells and size, networks that learn fast are protected", by("speed")),
    "both-protection": Way("cells and size, fast learners and large networks are protected", by("both")),
    "standalone-random": Way("random architectures trained from scratch", of_random_architectures),
}
"""The ways by their names on the command line."""

FIRST = (OWN, "cells", "size:DARTS_V2", "size:CARS_E")
