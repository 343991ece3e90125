"""Trained fronts of several ways to find networks, at equal cost and over several seeds.

    python benchmarks/fronts.py --data FOLDER --table TABLE --out fronts.json --work DIR [--ways both cells ...]
    python benchmarks/fronts.py --out fronts.json --summary

A search over cells and size is compared with searches that vary one of them, with other strategies, and with
random networks; ``WAYS`` lists them. ``--table`` is a latency table over sizes, and FOLDER has the parts ``train``,
``val`` and ``test`` (``tools/make_small_images.py`` makes such a folder, smaller ones too).

**Cost.** A training step on an image is one pass, and its evaluation a third of a pass. The search over cells and
size is the first of every seed, and its passes are the budget of the others. Ways with a SuperNet have the same
epochs, evaluations and share of the final stage; ways without one train as many networks from scratch as the budget
pays for, by successive halving. The summary has each way's passes relative to that search.

**Choice.** Every choice is made on the images of ``val``. ``--front`` networks of each front, spread over log
latency, are then trained with one recipe, and the test images score them. At a budget, the network with the highest
accuracy on ``val`` after this training counts. Nothing is measured on a device: latencies are the table's
predictions.

The trainings run one after the other. All ways are run with the first seed before any with the second. Each
finished way is written at once, and the same command again resumes after the last finished epoch. ``--work`` keeps
the run folders and checkpoints.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import front_figures
import numpy as np
import torch
from front_figures import FORMAT, OWN, Box
from timing import machine

from cars_hw.callbacks import SearchCallback
from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.data import DataSource
from cars_hw.config.lock import locked
from cars_hw.config.presets import Preset
from cars_hw.config.search import EvolutionSettings, FinalSettings, VariationRates
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.config.units import format_latency
from cars_hw.data import DataBundle, load_source
from cars_hw.errors import CarsHwError, InputError
from cars_hw.evolution.halving import Rungs, cost_of, plan_rungs, survivors
from cars_hw.evolution.nominees import stretch_of
from cars_hw.evolution.objectives import feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages, search_passes
from cars_hw.evolution.pnsga3 import pareto_front
from cars_hw.evolution.population import Finalist
from cars_hw.evolution.strategies import STRATEGIES
from cars_hw.latency import LatencyTable
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline.final_stage import judged_images, short_recipe, with_best_of_stretches
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_data import require_fit
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.progress import no_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.shared_weights import torch_threads
from cars_hw.training.standalone import NetworkTraining, counts_on, train_network

PART = ChecksummedFormat("part of a comparison of fronts", 1, "profile")
"""What a way has done so far: the results of its trainings by name, and its seconds."""

WIRINGS = 50
"""The latency of a size is the median of so many random wirings."""

ALIKE = 0.1
"""Sizes whose latencies differ by this fraction from the wanted one are alike."""

MOST_DRAWS = 10_000


class Candidate(NamedTuple):
    """A network and its predicted latency in ms; ``held_out`` is the accuracy that chooses it, if it is known."""

    architecture: Architecture
    ms: float
    held_out: float | None = None

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{zlib.crc32(repr(self.architecture.key()).encode()):08x}"

    @property
    def accuracy(self) -> float:
        """The accuracy on the held-out images, which must be known."""
        assert self.held_out is not None
        return self.held_out

    @property
    def multiply_adds(self) -> int:
        """Those of the exported network."""
        return network_cost(self.architecture.network, self.architecture.genotype).multiply_adds


class Cost(NamedTuple):
    """What a search cost: passes of images, and the multiply-adds of these passes."""

    passes: float
    multiply_adds: float


class Searched(NamedTuple):
    """The front of a way, cheapest first, and what it cost."""

    front: list[Candidate]
    cost: Cost


@dataclass(frozen=True)
class Settings:
    """What all ways have in common. ``table`` is when the table was made, and ``images`` are those of the parts."""

    data: str
    images: list[int]
    table: str
    least_ms: float
    limit_ms: float
    population: int
    epochs: int
    warmup_epochs: int
    search_batch: int
    search_rate: float
    evaluation_images: int
    final: float
    stretches: int
    front: int
    front_epochs: int
    batch: int
    rate: float
    threads: int


OPTIONS = [one.name for one in fields(Settings)][5:]
"""The settings that are options of the command line."""


@dataclass(frozen=True, eq=False)
class Task:
    """The images, the table and the settings."""

    data: DataSource
    table: LatencyTable
    bundle: DataBundle
    settings: Settings

    @cached_property
    def recipe(self) -> Recipe:
        """How networks are trained from scratch."""
        settings = self.settings
        return Recipe(
            epochs=settings.front_epochs,
            batch_size=settings.batch,
            learning_rate=settings.rate,
            crop_padding=self._padding,
        )

    @property
    def _padding(self) -> int:
        return max(1, self.table.spec.resolution[0] // 8)

    @cached_property
    def plan(self) -> SearchPlan:
        """The search over cells and size with seed 0."""
        settings = self.settings
        preset = Preset(
            summary="",
            recipe=self.recipe,
            evolution=EvolutionSettings(
                population=settings.population,
                epochs=settings.epochs,
                warmup_epochs=settings.warmup_epochs,
                epochs_per_generation=1,
                protection="size",
                rates=VariationRates(mutation=0.45, crossover=0.45, random=0.1),
            ),
            training=SharedTraining(
                batch_size=settings.search_batch,
                learning_rate=settings.search_rate,
                crop_padding=self._padding,
                evaluation_images=settings.evaluation_images,
                threads=settings.threads,
            ),
            final=FinalSettings(settings.final, settings.stretches),
        )
        target = LatencyTarget(self.table, settings.limit_ms)
        return SearchPlan(self.data, self.table.spec, preset, (target,), sizes=self.table.sizes)

    @cached_property
    def images(self) -> JudgedImages:
        """The numbers of images that train and that evaluate."""
        train, val, _ = self.settings.images
        return judged_images(self.plan, train, val)

    @property
    def box(self) -> Box:
        """The box of the hypervolumes."""
        return Box(self.settings.least_ms, self.settings.limit_ms, self.table.spec.classes)

    def candidate(self, architecture: Architecture) -> Candidate:
        """Return ``architecture`` with its predicted latency."""
        return Candidate(architecture, self.plan.targets[0].predict(architecture).ms)

    def allows(self, architecture: Architecture) -> bool:
        """Return whether the search may propose ``architecture``."""
        return self.plan.architectures.proposable(architecture) and feasible(self._objectives, architecture)

    @cached_property
    def _objectives(self) -> list[Any]:
        return cost_objectives(self.plan)


class Part:
    """A way with one seed: its folder, and what it has done so far."""

    def __init__(self, folder: Path, task: Task, seed: int, log: Callable[[str], None]) -> None:
        self.folder, self.task, self.seed, self.log = folder, task, seed, log
        self._path = folder / "part.json"
        self.results: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            content = PART.read(self._path)
            if content["settings"] != asdict(task.settings):
                raise InputError(f"{folder} was made with other settings; give another --work")
            self.results, self.seconds = content["results"], content["seconds"]
        else:
            self._write()

    def _write(self) -> None:
        settings = asdict(self.task.settings)
        PART.write(self._path, {"settings": settings, "results": self.results, "seconds": self.seconds})

    def result(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 -- what JSON holds
        """Return the result ``name``, which ``make`` gives if it is not there yet."""
        if name not in self.results:
            self.results[name] = make()
            self._write()
        return self.results[name]

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the processor seconds of the block to those of ``name``; an interrupted block counts."""
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.process_time() - began, 1)
            self._write()

    def checkpoint(self, one: Candidate, recipe: Recipe) -> TrainingCheckpoint:
        """Return the checkpoint of the training of ``one`` by ``recipe``."""
        about = {
            "network": repr(one.architecture.network),
            "genotype": repr(one.architecture.genotype),
            "recipe": repr(recipe),
            "seed": self.seed,
        }
        return TrainingCheckpoint(self.folder / f"{one.name}.checkpoint", about, no_log)


def fresh(one: Candidate, seed: int) -> Network:
    """Return the network of ``one`` with fresh weights."""
    torch.manual_seed(seed)
    return Network(one.architecture.network, one.architecture.genotype)


# The ways.


class Told(SearchCallback):
    """Tells what a search says of its final stage, and a line for each generation."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Tell the figures of a generation."""
        costs = [member["costs"][0] for member in record["population"]]
        self._log(
            f"generation {record['generation']}: best shared accuracy {record['best_accuracy']:.3f}, loss "
            f"{record['loss']:.3f}, {format_latency(min(costs))} to {format_latency(max(costs))}"
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
    passes = sum(search_passes(plan.preset.evolution, plan.preset.training.architectures, images)) / TRAINING
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
    part.log(f"{len(networks)} networks, rungs of {rungs.epochs} epochs, {_range(networks)}")
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
        part.log(f"rung {rung}: {until} epochs, held-out accuracy {_accuracies(running)}")
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


# The fronts are trained and scored.


def offered(front: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return ``count`` networks of ``front`` spread over log latency, cheapest first, both ends among them."""
    if count >= len(front):
        return list(front)
    least, most = (math.log(front[place].ms) for place in (0, -1))
    aims = [least + (most - least) * step / (count - 1) for step in range(count)] if count > 1 else [most]
    found: list[Candidate] = []
    # The ends first, which no other aim may take.
    for aim in sorted(aims, key=lambda aim: -abs(aim - (least + most) / 2)):
        free = [one for one in front if one not in found]
        found.append(min(free, key=lambda one: abs(math.log(one.ms) - aim)))
    return sorted(found, key=lambda one: one.ms)


def trained(part: Part, front: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Train networks of ``front`` by the recipe, and return what the file has of each."""
    found = []
    for one in offered(front, part.task.settings.front):
        found.append(part.result(f"{one.name} of the front", partial(_scored, part, one)))
        part.log(
            f"{format_latency(one.ms)}, {one.architecture.network.size}: held-out accuracy "
            f"{found[-1]['held_out']:.3f}, test accuracy {found[-1]['test']:.3f}"
        )
    return found


def _scored(part: Part, one: Candidate) -> dict[str, Any]:
    """Train ``one`` by the recipe, and return what the file has of it."""
    task = part.task
    checkpoint = part.checkpoint(one, task.recipe)
    with part.clock("front"), torch_threads(task.settings.threads):
        result = train_network(
            fresh(one, part.seed), task.bundle, task.recipe, seed=part.seed, checkpoint=checkpoint, progress=silent
        )
    checkpoint.remove()
    return {
        **about(one),
        "epoch": result.best_epoch,
        "held_out": result.held_out_accuracy,
        "test": result.accuracy,
    }


def about(one: Candidate) -> dict[str, Any]:
    """Return what the file has of a network before its training."""
    network, genotype = one.architecture.network, one.architecture.genotype
    return {
        "ms": one.ms,
        "channels": network.channels,
        "depths": list(network.stages),
        "multiply_adds": one.multiply_adds,
        "chosen_by": one.held_out,
        "genotype": genotype.to_darts(),
    }


def run_way(name: str, part: Part, budget: float) -> dict[str, Any]:
    """Return the entry of the file of the way ``name``."""
    part.log(WAYS[name].summary)
    searched = WAYS[name].run(part, budget)
    part.log(
        f"front of {len(searched.front)} networks, {_range(searched.front)}, {_accuracies(searched.front)}; "
        f"{searched.cost.passes:,.0f} passes" + (f", {searched.cost.passes / budget - 1:+.1%}" if budget else "")
    )
    networks = trained(part, searched.front)
    return {
        "way": name,
        "seed": part.seed,
        "passes": searched.cost.passes,
        "multiply_adds": searched.cost.multiply_adds,
        "seconds": part.seconds,
        "front": [about(one) for one in searched.front],
        "networks": networks,
    }


def _range(networks: Sequence[Candidate]) -> str:
    latencies = [one.ms for one in networks]
    return f"{format_latency(min(latencies))} to {format_latency(max(latencies))}"


def _accuracies(networks: Sequence[Candidate]) -> str:
    values = [one.accuracy for one in networks]
    return f"{min(values):.3f} to {max(values):.3f}"


# The file.


@dataclass
class Comparison:
    """The file: what is found so far."""

    out: Path
    task: Task
    found: list[dict[str, Any]] = field(default_factory=list)

    def resume(self) -> None:
        """Take over what the file has.

        Raises:
            InputError: it was made with other settings.
        """
        if not self.out.exists():
            return
        content = FORMAT.read(self.out)
        if content["settings"] != asdict(self.task.settings):
            raise InputError(f"{self.out} was made with other settings; give another --out")
        self.found = content["found"]

    def has(self, way: str, seed: int) -> bool:
        """Return whether ``way`` is finished with ``seed``."""
        return any((one["way"], one["seed"]) == (way, seed) for one in self.found)

    def budget(self, seed: int) -> float:
        """Return the passes of the search over cells and size with ``seed``; 0 before it is finished."""
        return next((one["passes"] for one in self.found if (one["way"], one["seed"]) == (OWN, seed)), 0.0)

    def keep(self, entry: dict[str, Any]) -> None:
        """Add ``entry``, and write the file."""
        self.found.append(entry)
        content = {
            "machine": machine(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": asdict(self.task.settings),
            "ways": {name: WAYS[name].summary for name in dict.fromkeys(one["way"] for one in self.found)},
            "found": self.found,
            "summary": front_figures.summary(self.found, self.task.box),
        }
        FORMAT.write(self.out, content)


def task_of(args: argparse.Namespace) -> Task:
    """Return what the command line describes, with its images.

    Raises:
        InputError: a table of one size, or a folder without a part for choices.
    """
    table = LatencyTable.read(args.table)
    if table.sizes is None:
        raise InputError(f"{args.table} is for one size; profile a range of sizes")
    data = DataSource(args.data).absolute()
    bundle = load_source(data, table.spec.resolution)
    require_fit(bundle, table.spec)
    if bundle.validation is None:
        raise InputError(f"{args.data} has no part val, on which networks are chosen")
    measured = [network.measured.ms for network in table.calibration]
    settings = Settings(
        data=Path(args.data).name,
        images=[len(bundle.train), len(bundle.validation), len(bundle.test)],
        table=table.created,
        least_ms=min(measured),
        limit_ms=args.limit or max(measured),
        **{name: getattr(args, name) for name in OPTIONS},
    )
    return Task(data, table, bundle, settings)


def make(args: argparse.Namespace) -> None:
    """Run what is missing."""
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] {line}", file=sys.stderr, flush=True)

    task = task_of(args)
    torch.set_num_threads(args.threads)
    log("{} images to train on, {} to choose by, {} to score".format(*task.settings.images))
    comparison = Comparison(args.out, task)
    comparison.resume()
    for seed in args.seeds:
        for way in sorted({OWN, *args.ways}, key=[OWN, *args.ways].index):
            if comparison.has(way, seed):
                continue
            name = f"{way.replace(':', '-')}-{seed}"
            part = Part(args.work / name, task, seed, lambda line, name=name: log(f"{name}: {line}"))
            comparison.keep(run_way(way, part, comparison.budget(seed)))


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    ways = "; ".join(f"{name}: {way.summary}" for name, way in WAYS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with train/, val/ and test/, in each a folder a class")
    parser.add_argument("--table", type=Path, help="a latency table over sizes")
    parser.add_argument("--out", type=Path, required=True, help="the file of the comparison")
    parser.add_argument("--work", type=Path, help="the folder of the searches and trainings")
    parser.add_argument("--summary", action="store_true", help="run nothing; print what the file has, in Markdown")
    parser.add_argument("--ways", nargs="+", default=FIRST, choices=WAYS, metavar="WAY", help=ways)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument(
        "--limit", type=float, help="latency limit in ms [that of the slowest network of the table]"
    )
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12, help="of a search, without its final stage")
    parser.add_argument("--warmup-epochs", type=int, default=4)
    parser.add_argument("--search-batch", type=int, default=32)
    parser.add_argument("--search-rate", type=float, default=0.025)
    parser.add_argument("--evaluation-images", type=int, default=300, help="of val, in a generation")
    parser.add_argument("--final", type=float, default=0.5, help="share of the final stage in the cost of a search")
    parser.add_argument("--stretches", type=int, default=4, help="of log latency, in which networks compete")
    parser.add_argument("--front", type=int, default=5, help="networks of a front that are trained and scored")
    parser.add_argument("--front-epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="of trainings from scratch")
    parser.add_argument("--rate", type=float, default=0.05, help="of trainings from scratch; falls along a cosine")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    missing = [name for name in ("data", "table", "work") if getattr(args, name) is None]
    if not args.summary and missing:
        parser.error(f"give --{missing[0]}")
    if not 0 < args.final < 1:
        parser.error("--final is between 0 and 1")
    return args


def main() -> None:
    """Run what is missing, and print the tables."""
    args = arguments()
    try:
        if not args.summary:
            with locked(args.out.with_suffix(".lock"), str(args.out)):
                make(args)
        print(front_figures.report(FORMAT.read(args.out)))
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
