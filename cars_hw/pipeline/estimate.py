"""The estimate of a search's time and memory: a few steps are timed and multiplied."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import ClassVar, Final, TypeVar

import numpy as np
import torch

from cars_hw.data import DataBundle
from cars_hw.evolution.halving import KEPT
from cars_hw.evolution.passes import TRAINING
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline.final_stage import judged_images, multiply_adds, short_recipe, sizing, trained_spec
from cars_hw.pipeline.memory import out_of_memory, require_memory
from cars_hw.pipeline.objectives import cost_objectives, find_anchor
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_data import splits_of
from cars_hw.pipeline.search import plan_data, supernet_weights_of
from cars_hw.pipeline.workers import default_jobs
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.training.shared_weights import SuperNetWeights, judging_parts, torch_threads
from cars_hw.training.standalone import NetworkTraining

T = TypeVar("T")

STEPS: Final = 3
"""The number of architectures that are timed, after an untimed first one, which includes allocation."""

SIZED_STEPS: Final = 8
"""The number of architectures that are timed in a search over sizes."""

DRAWS: Final = 512
"""The number of random architectures from which the timed ones of a search over sizes are chosen."""


@dataclass(frozen=True)
class Part:
    """Work that is done ``times`` times and takes ``seconds`` each time."""

    name: str
    times: int
    seconds: float

    DERIVED: ClassVar = ("total_seconds",)

    @property
    def total_seconds(self) -> float:
        """The seconds of all repetitions."""
        return self.times * self.seconds


@dataclass(frozen=True)
class Estimate:
    """The estimated time of a search, by part, and the memory in MB that the timed steps used."""

    parts: tuple[Part, ...]
    memory_mb: float
    on_gpu: bool

    DERIVED: ClassVar = ("seconds",)

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return sum(part.total_seconds for part in self.parts)


def estimate(plan: SearchPlan, jobs: int | None = None) -> Estimate:
    """Return the estimated time and memory of the search of ``plan`` in one process.

    The parts are those of section 3.5 of CARS: the warm-up epochs; in each generation the evaluation of the
    population and its offspring, and the epochs of the generation. Two parts are not in the paper. A protection
    that uses the gain in accuracy evaluates offspring under the previous weights too, and at the end the finalists
    are evaluated on all validation images.

    A final stage is counted by its share of the cost, in steps of networks of the mean size, ``jobs`` of them side
    by side. The networks are not known yet: if few are found, or the recipe is short, it takes less.

    Over sizes the time of an architecture is the mean over the space, see :func:`timed_architectures`, and the
    memory is that of the largest size. A population of smaller or larger networks takes less or more time.

    What the search of ``plan`` refuses before it begins is refused here, too, with the same error.

    Raises:
        BudgetError: no architecture keeps to the limits.
        DatasetError: the data cannot be used.
        InputError: the data does not fit the network, or the memory does not suffice; the message names the
            settings to lower.
        TableError: a table cannot predict.
    """
    find_anchor(plan, cost_objectives(plan))
    data = plan_data(plan)
    splits_of(data, plan.preset.training, plan.seed)
    weights = supernet_weights_of(_one_by_one(plan), data)
    on_gpu = weights.device.type == "cuda"
    if on_gpu:
        require_memory(plan, weights)
        torch.cuda.reset_peak_memory_stats(weights.device)
    try:
        times = _time(plan, data, weights, jobs)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(plan) from error
    memory = torch.cuda.max_memory_allocated(weights.device) / 2**20 if on_gpu else _resident_mb()
    return Estimate(_parts(plan, weights, times), memory, on_gpu)


@dataclass(frozen=True)
class _Times:
    """The seconds of each piece of work; ``final`` is the whole final stage, None without one."""

    steps: _StepSeconds
    evaluated: float
    evaluated_fully: float
    final: Part | None


def _time(plan: SearchPlan, data: DataBundle, weights: SuperNetWeights, jobs: int | None) -> _Times:
    """Return the times of steps and evaluations of random architectures."""
    drawn = timed_architectures(plan.architectures, np.random.default_rng(plan.seed))
    # Over sizes, the times differ because the architectures differ: their mean counts. At one size, they differ
    # because of disturbances, which the median leaves out.
    middle = median if plan.sizes is None else fmean
    timed = drawn if plan.sizes is None else drawn[1:]
    steps = _steps(plan, weights, drawn, middle, ends=_sandwiched(plan))
    # Together, as in a population: the threads share the architectures.
    evaluated, evaluated_fully = (
        _seconds(weights, [timed] * 2, lambda some, full=full: weights.accuracies(some, full=full), middle)  # type: ignore[misc]
        / len(timed)
        for full in (False, True)
    )
    final = _final_stage(plan, data, weights, drawn, jobs) if plan.has_final_stage else None
    return _Times(steps, evaluated, evaluated_fully, final)


def _parts(plan: SearchPlan, weights: SuperNetWeights, times: _Times) -> tuple[Part, ...]:
    """Return the work of the search, each piece as often as it is done."""
    evolution, sandwiched = plan.preset.evolution, _sandwiched(plan)
    population, generations = evolution.population, evolution.generations
    # The first generation has no parents: twice as many new architectures are evaluated.
    evaluations = 2 * population * generations
    if evolution.protection in ("speed", "both"):
        evaluations += population * (generations + 1)
    epochs = evolution.warmup_epochs + generations * evolution.epochs_per_generation
    batches, at_once = epochs * len(weights.batches), min(plan.preset.training.architectures, population)
    warm_up = evolution.warmup_epochs * len(weights.batches) * at_once
    steps = batches * at_once - warm_up
    # At most, every architecture of every population is new.
    recordings = min(population * generations, steps) if weights.records else 0
    ends, recording = times.steps.ends, times.steps.recording
    return (
        Part("warm-up steps, an architecture each", warm_up, times.steps.first),
        Part("steps of the population, an architecture each", steps - recordings, times.steps.again),
        *([Part("steps of the largest and the smallest size", batches, ends)] if sandwiched else []),
        *([Part("steps that are recorded for replay", recordings, recording)] if recordings else []),
        Part("architectures evaluated on the subset", evaluations, times.evaluated),
        Part("finalists evaluated on all validation images", 3 * population, times.evaluated_fully),
        *([times.final] if times.final is not None else []),
    )


def _sandwiched(plan: SearchPlan) -> bool:
    return plan.sizes is not None and plan.preset.training.size_sampling == "sandwich"


@dataclass(frozen=True)
class _StepSeconds:
    """The seconds of a step: the first of an architecture, one that is recorded, and a later one.

    ``ends`` are those of a step of the largest and the smallest size; 0 where no step has both.
    """

    first: float
    recording: float
    again: float
    ends: float


def _steps(
    plan: SearchPlan,
    weights: SuperNetWeights,
    drawn: Sequence[Architecture],
    middle: Callable[[Sequence[float]], float],
    *,
    ends: bool,
) -> _StepSeconds:
    images, labels = next(weights.batches.epoch(torch.Generator().manual_seed(plan.seed)))
    sizes = (plan.architectures.largest, plan.architectures.smallest)
    both = [Architecture(drawn[0].genotype, size) for size in sizes]

    def seconds() -> float:
        return _seconds(weights, drawn, lambda one: weights.step(images, labels, [one]), middle)

    with torch_threads(plan.preset.training.threads):
        first = recording = again = seconds()
        if weights.records:
            # An architecture is recorded at its second step and replayed from the third on.
            recording, again = seconds(), seconds()
        together = (
            _seconds(weights, [both] * 3, lambda some: weights.step(images, labels, some), median) if ends else 0
        )
    return _StepSeconds(first, recording, again, together)


def _one_by_one(plan: SearchPlan) -> SearchPlan:
    """Return ``plan`` with steps that train the given architectures only, so that each can be timed."""
    training = replace(plan.preset.training, size_sampling="drawn")
    return replace(plan, preset=replace(plan.preset, training=training))


def _final_stage(
    plan: SearchPlan, data: DataBundle, weights: SuperNetWeights, drawn: Sequence[Architecture], jobs: int | None
) -> Part:
    """Return the steps of the final stage: as many as its share pays for, with networks of the mean cost.

    A share that pays for less than the shortest stage, one epoch of one network of each stretch, is exceeded.
    """
    supernet = weights.supernet.spec
    train, judged = judging_parts(
        data, plan.preset.training.validation_fraction, torch.Generator().manual_seed(plan.seed)
    )
    recipe = short_recipe(plan.preset.recipe, plan.preset.recipe.epochs)
    budget = sizing(plan, supernet, judged_images(plan, len(train), len(judged)), cost_objectives(plan)).affordable
    adds, seconds = [], []
    with torch.random.fork_rng(devices=[]), torch_threads(0 if weights.device.type == "cuda" else 1):
        for one in drawn[1:]:
            network = Network(trained_spec(plan, supernet, one), one.genotype)
            parts = replace(data, train=train, validation=None)
            training = NetworkTraining(network, parts, recipe, seed=plan.seed, device=weights.device)
            images, labels = next(training.batches.epoch(torch.Generator().manual_seed(plan.seed)))
            training.network.train()
            again = [(images, labels)] * 2
            seconds.append(_seconds(weights, again, lambda batch: training.step(*batch), fmean))  # noqa: B023
            adds.append(multiply_adds(plan, supernet, one))
    least = plan.preset.final.stretches * len(training.batches)
    steps = max(budget / (TRAINING * len(labels) * fmean(adds)), least)
    side = jobs or default_jobs(weights.device.type, KEPT * plan.preset.final.stretches)
    beside = f", {side} networks side by side" if side > 1 else ""
    return Part(f"steps of the final stage{beside}", round(steps), fmean(seconds) / side)


def timed_architectures(space: ArchitectureSpace, rng: np.random.Generator) -> list[Architecture]:
    """Return the architectures whose steps are timed, after a first one whose steps are not timed.

    Over sizes, the first has the largest size. For the others, :data:`DRAWS` architectures are drawn and sorted by
    their multiply-adds. They are divided into :data:`SIZED_STEPS` parts, and the middle one of each part is timed.
    The mean time of these is close to that of all draws, although times differ by a factor of up to a hundred.
    """
    if space.sizes is None:
        return [space.sample(rng) for _ in range(STEPS + 1)]
    drawn = sorted((space.sample(rng) for _ in range(DRAWS)), key=_multiply_adds)
    part = DRAWS // SIZED_STEPS
    largest = Architecture(space.cells_for(space.largest).sample(rng), space.largest)
    return [largest, *drawn[part // 2 :: part]]


def _multiply_adds(architecture: Architecture) -> int:
    return network_cost(architecture.network, architecture.genotype).multiply_adds


def _seconds(
    weights: SuperNetWeights,
    items: Sequence[T],
    work: Callable[[T], object],
    middle: Callable[[Sequence[float]], float],
) -> float:
    """Return the time in seconds of ``work`` on one of ``items``, by ``middle``; the first one is not counted."""
    taken = []
    for one in items:
        _wait(weights)
        began = time.perf_counter()
        work(one)
        _wait(weights)
        taken.append(time.perf_counter() - began)
    return middle(taken[1:])


def _wait(weights: SuperNetWeights) -> None:
    if weights.device.type == "cuda":
        torch.cuda.synchronize(weights.device)


def _resident_mb() -> float:
    """Return the peak memory of this process in MB; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kilobytes, macOS in bytes.
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
