"""The pace of a search on this machine: how long each kind of its work takes, by a few timed steps.

The pace does not depend on how long the search is, so that searches of several lengths are estimated from one pace.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final, TypeVar

import numpy as np
import torch

from cars_hw.config.search import Widening
from cars_hw.data import DataBundle
from cars_hw.evolution.halving import KEPT
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages
from cars_hw.executors.workers import default_jobs
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.nn.reduced_images import reduced_images
from cars_hw.pipeline.final_plan import short_recipe
from cars_hw.pipeline.memory import enough_memory, require_memory
from cars_hw.pipeline.objectives import cost_objectives, find_anchor
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.prepare_search import require_start
from cars_hw.pipeline.run_data import splits_of
from cars_hw.pipeline.search_cost import MeanAdds, judged_images, mean_adds, multiply_adds
from cars_hw.pipeline.search_images import plan_data
from cars_hw.pipeline.supernet import supernet_weights_of, trained_spec
from cars_hw.progress import Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.widening import widening_draws
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.judging_images import judging_parts
from cars_hw.training.network_step import Stepping
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone import NetworkTraining
from cars_hw.training.threads import torch_threads

T = TypeVar("T")

STEPS: Final = 3
"""The number of architectures that are timed, after an untimed first one, which includes allocation."""

SIZED_STEPS: Final = 8
"""The number of architectures that are timed in a search over sizes."""

DRAWS: Final = 512
"""The number of random architectures from which the timed ones of a search over sizes are chosen."""

BLOCKS_RECORDED: Final = 100
"""Passes after which nearly all blocks are recorded: an operation on an edge of the last node is in one of 20."""


@dataclass(frozen=True)
class StepSeconds:
    """The seconds of a step: the first of an architecture, one that is recorded, and a later one.

    ``ends`` are those of a step of the largest and the smallest size; 0 where no step has both.
    """

    first: float
    recording: float
    again: float
    ends: float


@dataclass(frozen=True)
class FinalPace:
    """The pace of a final stage: a step takes ``seconds`` and costs ``passes``; ``side`` networks are side by side.

    ``passes`` are passes of an image times millions of multiply-adds. ``seconds`` are divided by ``side``. ``adds``
    are the mean millions of multiply-adds of the search. An epoch of a network has ``batches`` steps.
    """

    seconds: float
    passes: float
    side: int
    adds: MeanAdds
    batches: int


@dataclass(frozen=True)
class Pace:
    """The seconds of each kind of work, and the numbers that a search repeats it by.

    ``evaluated`` and ``evaluated_fully`` are the seconds of an evaluation on the subset and on all validation
    images. An epoch has ``batches`` steps. ``records`` tells whether passes are recorded and replayed. ``final`` is
    None where a final stage was not timed. ``memory_mb`` is what the timed steps used.
    """

    steps: StepSeconds
    evaluated: float
    evaluated_fully: float
    batches: int
    images: JudgedImages
    records: bool
    final: FinalPace | None
    memory_mb: float
    on_gpu: bool


TIMING: Final = "timing a few steps"
"""The stage under which :func:`measure_pace` reports its progress."""


def measure_pace(plan: SearchPlan, jobs: int | None = None, *, final: bool, progress: Progress = show) -> Pace:
    """Time the work of the search of ``plan`` in one process; with ``final``, that of a final stage too.

    A final stage trains ``jobs`` networks side by side. Over sizes the time of an architecture is the mean over the
    space, see :func:`timed_architectures`, or after the warm-up over architectures that keep to the limits.
    The memory is that of the largest size.

    What the search of ``plan`` refuses before it begins is refused here, too, with the same error.

    Raises:
        BudgetError: no architecture keeps to the limits.
        DatasetError: the data cannot be used.
        RunError: the weights of an earlier run cannot be used.
        InputError: the data does not fit the network, or the memory does not suffice; the message names the
            settings to lower.
        TableError: a table cannot predict.
    """
    sandwiched = plan.sizes is not None and plan.preset.training.size_sampling == "sandwich"
    objectives = cost_objectives(plan)
    find_anchor(plan, objectives)
    data = plan_data(plan, progress)
    splits_of(data, plan.preset.training, plan.seed)
    require_start(plan)
    weights = supernet_weights_of(_one_by_one(plan), data)
    evolution, space = plan.preset.evolution, plan.architectures
    drawn = timed_architectures(space, np.random.default_rng(plan.seed))
    later = _within_limits(plan, objectives) or drawn
    if evolution.widening != "none":
        rng = np.random.default_rng((plan.seed, 5))
        drawn = timed_architectures(space, rng, evolution.widening, evolution.warmup_epochs)
    # Over sizes, the times differ because the architectures differ: their mean counts. At one size, they differ
    # because of disturbances, which the median leaves out.
    middle = median if plan.sizes is None else fmean
    timed = later if plan.sizes is None else later[1:]
    on_gpu = weights.device.type == "cuda"
    if on_gpu:
        require_memory(plan, weights)
        torch.cuda.reset_peak_memory_stats(weights.device)
    kinds = 4 if final else 3
    with enough_memory(plan):
        progress(TIMING, 0, kinds)
        steps = _steps(plan, weights, drawn, later, middle, ends=sandwiched)
        of_evaluations = []
        for done, full in enumerate((False, True), 1):
            progress(TIMING, done, kinds)
            # Together, as in a population: the threads share the architectures.
            seconds = _seconds(
                weights,
                [timed] * 2,
                lambda some, full=full: weights.accuracies(some, full=full),  # type: ignore[misc]
                middle,
            )
            of_evaluations.append(seconds / len(timed))
        evaluated, evaluated_fully = of_evaluations
        progress(TIMING, 3, kinds)
        train, judged = judging_parts(
            data, plan.preset.training.validation_fraction, torch.Generator().manual_seed(plan.seed)
        )
        parts = replace(data, train=train, validation=None)
        final_pace = _final_pace(plan, parts, weights, later, jobs) if final else None
        progress(TIMING, kinds, kinds)
    return Pace(
        steps,
        evaluated,
        evaluated_fully,
        len(weights.batches),
        judged_images(plan, len(train), len(judged)),
        weights.records,
        final_pace,
        torch.cuda.max_memory_allocated(weights.device) / 2**20 if on_gpu else _resident_mb(),
        on_gpu,
    )


def _steps(
    plan: SearchPlan,
    weights: SuperNetWeights,
    drawn: Sequence[Architecture],
    later: Sequence[Architecture],
    middle: Callable[[Sequence[float]], float],
    *,
    ends: bool,
) -> StepSeconds:
    """Time the steps of ``drawn``, which the warm-up trains, and of ``later``, which stand for the population."""
    images, labels = next(weights.batches.epoch(torch.Generator().manual_seed(plan.seed)))
    sizes = (plan.architectures.largest, plan.architectures.smallest)
    both = [Architecture(drawn[0].genotype, size) for size in sizes]

    def seconds(
        architectures: Sequence[Architecture], middle: Callable[[Sequence[float]], float] = middle
    ) -> float:
        return _seconds(weights, architectures, lambda one: weights.step(images, labels, [one]), middle)

    deterministic = deterministic_algorithms(plan.preset.training.deterministic)
    with torch_threads(weights.threads), deterministic:
        if weights.composes:
            # So that the blocks of later architectures are recorded, but for a few.
            rng = np.random.default_rng((plan.seed, 6))
            for _ in range(BLOCKS_RECORDED):
                weights.step(images, labels, [plan.architectures.sample(rng)])
        # Draws that widen differ by their operations, too.
        first = seconds(drawn, middle if later is drawn else fmean)
        recording = again = first if later is drawn else seconds(later)
        if weights.records:
            # An architecture is recorded at its second step and replayed from the third on.
            recording, again = seconds(later), seconds(later)
        together = (
            _seconds(weights, [both] * 3, lambda some: weights.step(images, labels, some), median) if ends else 0
        )
    return StepSeconds(first, recording, again, together)


def _one_by_one(plan: SearchPlan) -> SearchPlan:
    """Return ``plan`` with steps that train the given architectures only, so that each can be timed."""
    training = replace(plan.preset.training, size_sampling="drawn")
    return replace(plan, preset=replace(plan.preset, training=training))


def _final_pace(
    plan: SearchPlan, parts: DataBundle, weights: SuperNetWeights, drawn: Sequence[Architecture], jobs: int | None
) -> FinalPace:
    """Return the pace of a final stage whose networks have the mean cost of ``drawn``, without the first."""
    supernet = weights.supernet.spec
    recipe = short_recipe(plan.preset.recipe, plan.preset.recipe.epochs)
    adds, seconds, stepping = [], [], Stepping(plan.step_replay)
    with torch.random.fork_rng(devices=[]), torch_threads(0 if weights.device.type == "cuda" else 1):
        for one in drawn[1:]:
            network = Network(trained_spec(plan, supernet, one), one.genotype)
            training = NetworkTraining(
                network, parts, recipe, seed=plan.seed, device=weights.device, stepping=stepping
            )
            images, labels = next(training.batches.epoch(torch.Generator().manual_seed(plan.seed)))
            training.network.train()
            training.step.begin_epoch(recipe.drop_path)
            # The timed networks have several resolutions, and ``parts`` have the largest.
            again = [(reduced_images(images, network.spec.resolution), labels)] * 2
            for batch in again[: training.first_steps - 1]:
                training.step(*batch)
            seconds.append(_seconds(weights, again, lambda batch: training.step(*batch), fmean))  # noqa: B023
            adds.append(multiply_adds(plan, supernet, one))
    side = jobs or default_jobs(weights.device.type, KEPT * plan.preset.final.stretches)
    passes = TRAINING * len(labels) * fmean(adds)
    return FinalPace(
        fmean(seconds) / side, passes, side, mean_adds(plan, supernet, cost_objectives(plan)), len(training.batches)
    )


def _within_limits(plan: SearchPlan, objectives: Sequence[CostObjective]) -> list[Architecture]:
    """Return the timed architectures of a population over sizes, which keep to the limits; none without limits."""
    if plan.sizes is None or all(one.limit is None and one.at_least is None for one in objectives):
        return []
    space, rng = plan.architectures, np.random.default_rng((plan.seed, 3))
    allowed = [one for one in (space.sample(rng) for _ in range(DRAWS)) if feasible(objectives, one)]
    if not allowed:
        return []
    allowed.sort(key=_multiply_adds)
    places = [round((index + 0.5) * len(allowed) / SIZED_STEPS - 0.5) for index in range(SIZED_STEPS)]
    return [allowed[-1], *(allowed[place] for place in places)]


def timed_architectures(
    space: ArchitectureSpace, rng: np.random.Generator, widening: Widening = "none", epochs: int = 1
) -> list[Architecture]:
    """Return the architectures whose steps are timed, after a first one whose steps are not timed.

    Over sizes, the first has the largest size. For the others, :data:`DRAWS` architectures are drawn and sorted by
    their multiply-adds. They are divided into :data:`SIZED_STEPS` parts, and the middle one of each part is timed.
    The mean time of these is close to that of all draws, although times differ by a factor of up to a hundred.

    With a ``widening``, also of one size, they are drawn as in a warm-up of ``epochs``.
    """
    if space.sizes is None and widening == "none":
        return [space.sample(rng) for _ in range(STEPS + 1)]
    drawn = sorted(widening_draws(space, widening, epochs, DRAWS, rng), key=_multiply_adds)
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
