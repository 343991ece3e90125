"""The estimate of a search's time and memory: the time of each kind of work, multiplied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from cars_hw.config.search import Widening
from cars_hw.config.training import EvaluatedClassifier
from cars_hw.evolution.passes import evaluations_without_training
from cars_hw.pipeline.pace import FinalPace, Pace, measure_pace
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search_cost import sizing_of
from cars_hw.pipeline.time_plan import StageSeconds
from cars_hw.progress import Progress
from cars_hw.progress_line import show

RENEWED: Final = 1 / 3
"""The share of a population that its offspring replace in a generation.

In simulated searches with the settings of the preset ``paper`` it is 0.34, and about 1,900 of 5,760 in a search on
a GPU.
"""


EVALUATED_BY: Final[Mapping[EvaluatedClassifier, str]] = MappingProxyType(
    {
        "shared": "the shared classifier",
        "probe": "linear probes",
        "untrained-probe": "linear probes on untrained weights",
    }
)
"""How the evaluation of architectures is described."""

WIDENS: Final[Mapping[Widening, str]] = MappingProxyType(
    {
        "none": "",
        "sizes": ", the largest first",
        "operations": ", of few operations first",
        "both": ", the largest and of few operations first",
    }
)
"""How draws that widen are described."""


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
    """The estimated time of a search, by part and by stage, and the memory in MB that the timed steps used."""

    parts: tuple[Part, ...]
    stages: StageSeconds
    memory_mb: float
    on_gpu: bool

    DERIVED: ClassVar = ("seconds",)

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return sum(part.total_seconds for part in self.parts)


def estimate(plan: SearchPlan, jobs: int | None = None, *, progress: Progress = show) -> Estimate:
    """Return the estimated time and memory of the search of ``plan`` in one process.

    The parts are those of section 3.5 of CARS: the warm-up epochs; in each generation the evaluation of the
    population and its offspring, and the epochs of the generation. Two parts are not in the paper. A protection
    that uses the gain in accuracy evaluates offspring under the previous weights too, and at the end the finalists
    are evaluated on all validation images.

    A final stage is counted by its share of the cost, in steps of networks of the mean size, ``jobs`` of them side
    by side. The networks are not known yet: if few are found, or the recipe is short, it takes less.

    Over sizes the time of an architecture is the mean over the space, or after the warm-up the mean over the
    architectures that keep to the limits. The memory is that of the largest size. A population of smaller or larger
    networks takes less or more time.

    What the search of ``plan`` refuses before it begins is refused here, too, with the same error.

    Raises:
        BudgetError: no architecture keeps to the limits.
        DatasetError: the data cannot be used.
        RunError: the weights of an earlier run cannot be used.
        InputError: the data does not fit the network, or the memory does not suffice; the message names the
            settings to lower.
        TableError: a table cannot predict.
    """
    return estimate_at(plan, measure_pace(plan, jobs, final=plan.has_final_stage, progress=progress))


def estimate_at(plan: SearchPlan, pace: Pace) -> Estimate:
    """Return the estimate of the search of ``plan`` at ``pace``, that of a search of some other length.

    If ``plan`` has a final stage, ``pace`` must have its pace.
    """
    evolution, steps_of = plan.preset.evolution, pace.steps
    population, generations = evolution.population, evolution.generations
    if not plan.preset.training.trains:
        return _without_training(plan, pace)
    # The first generation has no parents: twice as many new architectures are evaluated.
    evaluations = 2 * population * generations
    if evolution.protection in ("speed", "both"):
        evaluations += population * (generations + 1)
    epochs = evolution.warmup_epochs + generations * evolution.epochs_per_generation
    batches, at_once = epochs * pace.batches, min(plan.preset.training.architectures, population)
    warm_up = evolution.warmup_epochs * pace.batches * at_once
    steps = batches * at_once - warm_up
    recordings = _recordings(plan, steps) if pace.records else 0
    widens = WIDENS[evolution.widening]
    warming = [Part(f"warm-up steps, an architecture each{widens}", warm_up, steps_of.first)]
    evolving = [Part("steps of the population, an architecture each", steps - recordings, steps_of.again)]
    ends = [Part("steps of the largest and the smallest size", batches, steps_of.ends)] if steps_of.ends else []
    if recordings:
        evolving.append(Part("steps that are recorded for replay", recordings, steps_of.recording))
    evolving.append(_evaluated(plan, evaluations, pace))
    last, final = [_evaluated(plan, 3 * population, pace, full=True)], _final(plan, pace)
    # Each epoch has as many steps of both ends.
    of_ends = sum(part.total_seconds for part in ends) / epochs
    return Estimate(
        (*warming, evolving[0], *ends, *evolving[1:], *last, *final),
        StageSeconds(
            warm_up=_total(warming) + of_ends * evolution.warmup_epochs,
            generations=_total(evolving) + of_ends * (epochs - evolution.warmup_epochs),
            finalists=_total(last),
            final=_total(final),
        ),
        pace.memory_mb,
        pace.on_gpu,
    )


def _without_training(plan: SearchPlan, pace: Pace) -> Estimate:
    """Return the estimate of a search that evaluates untrained weights, each architecture once."""
    evaluations, finalists = evaluations_without_training(plan.preset.evolution, pace.images)
    evolving = [_evaluated(plan, evaluations, pace)]
    last, final = [_evaluated(plan, finalists, pace, full=True)], _final(plan, pace)
    stages = StageSeconds(0.0, _total(evolving), _total(last), _total(final))
    return Estimate((*evolving, *last, *final), stages, pace.memory_mb, pace.on_gpu)


def _evaluated(plan: SearchPlan, times: int, pace: Pace, *, full: bool = False) -> Part:
    """Return the evaluation of ``times`` architectures on the subset, or of as many finalists on all images."""
    by = EVALUATED_BY[plan.preset.training.classifier]
    if full:
        return Part(f"finalists evaluated on all validation images by {by}", times, pace.evaluated_fully)
    return Part(f"architectures evaluated on the subset by {by}", times, pace.evaluated)


def _final(plan: SearchPlan, pace: Pace) -> list[Part]:
    if not plan.has_final_stage:
        return []
    assert pace.final is not None
    return [_final_stage(plan, pace, pace.final)]


def _recordings(plan: SearchPlan, steps: int) -> int:
    """Return how many architectures are recorded in ``steps`` of the population: those with two passes at least.

    An architecture is in the population for as many generations as it takes to renew all of it. Its passes in that
    time have a Poisson distribution.
    """
    evolution = plan.preset.evolution
    population, generations = evolution.population, evolution.generations
    new = population * (1 + RENEWED * (generations - 1))
    passes = (1 - evolution.uniform_draws) * steps / new
    return min(round(new * (1 - math.exp(-passes) * (1 + passes))), steps)


def _total(parts: list[Part]) -> float:
    return sum(part.total_seconds for part in parts)


def _final_stage(plan: SearchPlan, pace: Pace, final: FinalPace) -> Part:
    """Return the steps of the final stage: as many as its share pays for, with networks of the mean cost.

    A share that pays for less than the shortest stage, one epoch of one network of each stretch, is exceeded.
    """
    affordable = sizing_of(plan.preset, pace.images, final.adds).affordable
    least = plan.preset.final.stretches * final.batches
    beside = f", {final.side} networks side by side" if final.side > 1 else ""
    return Part(f"steps of the final stage{beside}", round(max(affordable / final.passes, least)), final.seconds)
