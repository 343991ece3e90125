"""The length of a search that fits into a given time: epochs, population, generations and final stage.

The preset sets the shape. Where the epochs are multiplied by a factor, the population, the generations and the
epochs of a generation are multiplied by its square root, as between the presets ``cifar`` and ``paper``. The
warm-up keeps its share of the epochs. Settings that were given stay.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cars_hw.config.presets import PRESETS, Preset
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.units import format_seconds
from cars_hw.errors import InputError
from cars_hw.evolution.halving import KEPT, Rungs, cost_of, further_places, going_on, longest_rungs, plan_rungs
from cars_hw.evolution.passes import TRAINING
from cars_hw.pipeline.estimate import Estimate, estimate_at
from cars_hw.pipeline.pace import Pace
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_cost import Sizing, sizing_of
from cars_hw.pipeline.time_plan import TimePlan

POPULATION: Final = "evolution.population"
EPOCHS: Final = "evolution.epochs"
WARM_UP: Final = "evolution.warmup_epochs"
EACH: Final = "evolution.epochs_per_generation"
SHARE: Final = "final.share"

CHOSEN: Final = (POPULATION, EPOCHS, WARM_UP, EACH, SHARE)
"""The settings that are chosen."""

RESERVE: Final = 0.1
"""The share of the time that is left for what the estimate misses: loading, checkpoints, a population of networks
that are larger than the mean."""

LEAST_POPULATION: Final = 8
LEAST_GENERATIONS: Final = 4
"""The shortest search: one epoch of warm-up, and four generations of one epoch with a population of eight.

With fewer generations, few offspring have parents that were selected.
"""

LONGEST: Final = PRESETS["paper"].evolution
"""The longest search that is chosen is the paper's: there is no evidence that a longer one is better."""

SHARE_OF_FINAL: Final = 1 / 3
"""The share of a final stage that is added where the preset has none: that of the other presets."""

SHARE_WITHOUT_TRAINING: Final = 0.75
"""The same of a search that trains no shared weights: its evaluations cost little."""

FINALISTS: Final = 3
"""How many finalists a search has for each architecture of its population: the population and twice as many
offspring."""

STEP: Final = 1.03
"""The ratio of the factors that are tried."""


@dataclass(frozen=True)
class Fitted:
    """A search that fits into the time: its plan, its estimate, and what was chosen of :data:`CHOSEN`.

    ``longest`` tells that the time would allow a longer search than the paper's.
    """

    plan: SearchPlan
    estimate: Estimate
    chosen: tuple[str, ...]
    longest: bool


def fit_within(plan: SearchPlan, seconds: float, pace: Pace, given: Collection[str] = ()) -> Fitted:
    """Return the search of ``plan``, its length chosen so that search and final stage take ``seconds`` at most.

    ``pace`` is that of ``plan`` with the pace of a final stage. ``given`` are the paths of the settings that stay,
    such as ``evolution.epochs``. A tenth of the time is reserved, see :data:`RESERVE`. Of the lengths that fit, the
    one with the largest estimate is chosen; one with a final stage of two rungs goes before all without.

    Raises:
        InputError: everything is given, the shortest search takes longer, or no weights are shared.
    """
    if plan.standalone_epochs:
        raise InputError("a time cannot be given for a search without shared weights")
    chosen = tuple(path for path in CHOSEN if path not in given)
    if not chosen:
        raise InputError("there is nothing to choose: epochs, population and final stage are all given")
    usable = (1 - RESERVE) * seconds
    best, shortest, most = None, None, 0.0
    for preset in _lengths(plan, pace, given):
        found = estimate_at(replace(plan, preset=preset), pace)
        most = max(most, found.seconds)
        if shortest is None or found.seconds < shortest[0].seconds:
            shortest = found, preset
        key = preset.final.share > 0, found.seconds
        if found.seconds <= usable and (best is None or key > best[0]):
            best = key, found, preset
    # The preset's settings, with those that are given, are a search.
    assert shortest is not None
    if best is None:
        raise _too_short(seconds, *shortest)
    _, found, preset = best
    time = TimePlan(seconds, found.stages)
    longest = most <= usable and EPOCHS in chosen
    return Fitted(
        replace(plan, preset=preset, time=time, chosen=tuple(dict.fromkeys((*plan.chosen, *chosen)))),
        found,
        chosen,
        longest,
    )


def as_chosen(plan: SearchPlan, run: RunFolder, given: Collection[str] = ()) -> SearchPlan:
    """Return ``plan`` with what was chosen for ``run``, so that it goes on as it was begun.

    Raises:
        InputError: the settings do not fit each other.
    """
    about, own, preset = run.about, run.configuration, plan.preset
    # The settings of a group change together: some of them alone would not be allowed.
    values: dict[str, dict[str, object]] = {}
    for path in about.chosen:
        group, _, name = path.partition(".")
        if path not in given:
            values.setdefault(group, {})[name] = getattr(getattr(own, group), name)
    preset = replace(preset, **{group: replace(getattr(preset, group), **some) for group, some in values.items()})
    return replace(plan, preset=preset, time=about.time, chosen=about.chosen)


def _lengths(plan: SearchPlan, pace: Pace, given: Collection[str]) -> Iterator[Preset]:
    """Yield the presets of all lengths, with and without a final stage that is added."""
    seen = set()
    factor = 1.0 / plan.preset.evolution.epochs
    while factor * plan.preset.evolution.epochs <= LONGEST.epochs:
        evolution = _scaled(plan.preset.evolution, factor, given)
        factor *= STEP
        if evolution is None or evolution in seen:
            continue
        seen.add(evolution)
        scaled = replace(plan.preset, evolution=evolution)
        for share in [scaled.final.share] if SHARE in given else _shares(scaled, pace):
            yield replace(scaled, final=replace(scaled.final, share=share))


def _scaled(shape: EvolutionSettings, factor: float, given: Collection[str]) -> EvolutionSettings | None:
    """Return ``shape`` with its epochs multiplied by ``factor``; None where the given settings do not allow it."""
    root = math.sqrt(factor)
    population = shape.population
    if POPULATION not in given:
        population = min(max(2 * round(population * root / 2), LEAST_POPULATION), LONGEST.population)
    each = shape.epochs_per_generation if EACH in given else max(1, round(shape.epochs_per_generation * root))
    epochs = shape.epochs if EPOCHS in given else max(1, round(shape.epochs * factor))
    warm_up = shape.warmup_epochs
    if WARM_UP not in given and EPOCHS not in given:
        warm_up = max(1, round(shape.warmup_epochs * factor))
    if EPOCHS not in given:
        # No epoch is left over.
        epochs = warm_up + each * max(LEAST_GENERATIONS, round((epochs - warm_up) / each))
    if epochs - warm_up < each:
        return None
    return replace(shape, population=population, epochs=epochs, warmup_epochs=warm_up, epochs_per_generation=each)


def _shares(preset: Preset, pace: Pace) -> list[float]:
    """Return the shares of a final stage to choose from.

    They are that of ``preset``, and if it has none, :data:`SHARE_OF_FINAL` where this pays for two rungs, or
    :data:`SHARE_WITHOUT_TRAINING` without shared training. A share is less where the longest stage that the recipe
    allows costs less.
    """
    added = SHARE_OF_FINAL if preset.training.trains else SHARE_WITHOUT_TRAINING
    wanted, most = preset.final.share or added, preset.recipe.epochs
    sized = _sizing(replace(preset, final=replace(preset.final, share=wanted)), pace)
    longest = _cost(longest_rungs(most), preset, pace)
    if longest < sized.affordable:
        wanted = math.ceil(1000 * longest / (sized.searched + longest)) / 1000
    if preset.final.share or not preset.training.trains:
        return [wanted]
    two = most > 1 and _cost(Rungs((1, 2), KEPT), preset, pace) <= sized.affordable
    return [0.0, wanted] if two else [0.0]


def _sizing(preset: Preset, pace: Pace) -> Sizing:
    assert pace.final is not None
    return sizing_of(preset, pace.images, pace.final.adds)


def _an_epoch(pace: Pace) -> float:
    """Return the cost of an epoch of a network of the mean cost."""
    assert pace.final is not None
    return TRAINING * pace.images.trains * pace.final.adds.population


def _evaluation(pace: Pace) -> float:
    """Return the cost of an evaluation in epochs."""
    return pace.images.evaluates / (TRAINING * pace.images.trains)


def _cost(rungs: Rungs, preset: Preset, pace: Pace) -> float:
    stretches = [[_an_epoch(pace)] * rungs.places] * preset.final.stretches
    return cost_of(rungs, stretches, _evaluation(pace))


class ExpectedStage(NamedTuple):
    """A final stage as it is expected: its rungs, and the number of networks that each of them trains."""

    rungs: Rungs
    networks: tuple[int, ...]


def expected_stage(plan: SearchPlan, pace: Pace) -> ExpectedStage:
    """Return the final stage that ``plan`` pays for, if all networks have the mean cost and fill stretches alike.

    It is planned as :func:`cars_hw.pipeline.final_stage.run_final_stage` plans it, further networks included. Those
    that are grown, and those that are trained whatever they cost, are not known yet.
    """
    preset, budget, evaluation = plan.preset, _sizing(plan.preset, pace).affordable, _evaluation(pace)
    stretches = preset.final.stretches
    # A stretch cannot have more networks than the search hands over.
    most = math.ceil(FINALISTS * preset.evolution.population / stretches)

    def nominated(places: Sequence[int]) -> list[list[float]]:
        return [[_an_epoch(pace)] * min(one, most) for one in places]

    rungs = plan_rungs(
        lambda places: nominated([places] * stretches),
        budget,
        most_epochs=preset.recipe.epochs,
        evaluation=evaluation,
    )
    further = further_places(
        rungs,
        stretches,
        lambda further: nominated([rungs.places + one for one in further]),
        budget,
        evaluation,
    )
    left = [len(costs) for costs in nominated([rungs.places + one for one in further])]
    networks = []
    for _ in rungs.epochs:
        networks.append(sum(left))
        left = [going_on(one, rungs.kept) for one in left]
    return ExpectedStage(rungs, tuple(networks))


def _too_short(seconds: float, found: Estimate, preset: Preset) -> InputError:
    evolution = preset.evolution
    stage = " and its final stage" if preset.final.share else ""
    epochs = f"{evolution.epochs} epochs, " if preset.training.trains else ""
    return InputError(
        f"no useful search fits into {format_seconds(seconds)}: the shortest ({epochs}"
        f"{evolution.generations} generations of {evolution.population} architectures){stage} takes about "
        f"{format_seconds(found.seconds)}, and a tenth of the time is kept in reserve",
        remedy="more-time",
        least=f"{math.ceil(found.seconds / (1 - RESERVE) / 60)}min",
    )


def describe_choice(fitted: Fitted, pace: Pace) -> list[str]:
    """Return lines for people: what was chosen for the time, and the estimate by stage."""
    plan, stages = fitted.plan, fitted.estimate.stages
    assert plan.time is not None
    evolution, final = plan.preset.evolution, plan.preset.final
    each, generations = evolution.epochs_per_generation, f"{evolution.generations} generations"
    trained = (
        f"{evolution.epochs} epochs, of which {evolution.warmup_epochs} warm-up, {generations} of {each} "
        f"{'epoch' if each == 1 else 'epochs'}"
    )
    trains = plan.preset.training.trains
    lines = [
        f"For {format_seconds(plan.time.within)}: {trained if trains else generations}, "
        f"population {evolution.population}, {_final_text(plan, pace)}."
    ]
    parts = [
        *([f"warm-up {format_seconds(stages.warm_up)}"] if trains else []),
        f"generations {format_seconds(stages.generations)}",
        f"finalists {format_seconds(stages.finalists)}",
        *([f"final stage {format_seconds(stages.final)}"] if final.share else []),
    ]
    lines.append(
        f"Estimated: {format_seconds(stages.total)} ({', '.join(parts)}). A tenth of the time is kept in reserve."
    )
    if fitted.longest:
        lines.append("A search longer than the paper's is not chosen, unless the number of epochs is given.")
    return lines


def _final_text(plan: SearchPlan, pace: Pace) -> str:
    """Return the final stage of ``plan`` in words."""
    if not plan.has_final_stage:
        return "no final stage"
    rungs, networks = expected_stage(plan, pace)
    texts = [f"{number} for {epochs}" for number, epochs in zip(networks, rungs.epochs, strict=True)]
    texts[0] = texts[0].replace(" for ", " networks for ")
    return (
        f"and a final stage of {plan.preset.final.share:.0%} of the cost (about {', '.join(texts)} "
        f"{'epoch' if rungs.epochs[-1] == 1 else 'epochs'})"
    )
