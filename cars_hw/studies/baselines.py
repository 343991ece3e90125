"""A comparison of the run's search with other strategies, at equal cost and over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from cars_hw.config.command_line import command_line
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.data.manifest import DataManifest
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.evolution.passes import TRAINING, JudgedImages, search_passes
from cars_hw.evolution.strategies import OWN, STRATEGIES
from cars_hw.executors.engine import require_engine
from cars_hw.executors.spread import Spread, spread
from cars_hw.pipeline.chosen_networks import choose
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan, configuration, plan_of, recipe_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_images import plan_data, run_images
from cars_hw.pipeline.settings import TrainingDevice, TrainSettings
from cars_hw.pipeline.train import finished_training, train_run
from cars_hw.progress import Log, Progress, no_log, prefixed
from cars_hw.progress_line import show
from cars_hw.studies.settings import BaselinesSettings
from cars_hw.studies.strategy_comparison import (
    FILE,
    STANDALONE,
    Generation,
    StrategyComparison,
    Trained,
    Trial,
    fraction_dominated,
)
from cars_hw.training.precision import resolve_device

MIN_STANDALONE: Final = 4
"""Members of the smallest population that evolves without weight sharing."""

MARGIN: Final = 1.1
"""The reference point is this much worse than the worst of all fronts, so that their ends count for something."""


def compare_run(
    run: RunFolder, settings: BaselinesSettings, *, progress: Progress = show, log: Log = show.log
) -> StrategyComparison:
    """Search by each strategy of ``settings.against`` and by the run's own strategy, and train their fronts.

    All strategies have the same epochs, generations, populations and limits. Strategies that protect ``speed`` also
    evaluate new architectures under the previous weights. A strategy without shared weights trains as many
    architectures as the cost of the search allows. ``top`` networks of each front are trained from scratch,
    because a strategy's accuracies under shared weights may be wrong. Each strategy searches ``seeds`` times; the
    seeds count up from the run's seed. The run's own search is used as it is, and finished trials are not repeated.
    If the run has a final stage, every strategy with shared weights ends with one of the same share of its cost.
    ``jobs`` trials run in parallel, or ``settings.execution`` hands them to a cluster. The result is written to the
    run.

    Raises:
        InputError: there is nothing to compare, or a strategy needs a training that the run's search has not.
        RunError: the run has not finished, a file of it is damaged, trials in its folder are of other settings, or
            another process writes to it.
        DataChangedError: the images are not those of the search.
        DatasetError: the data cannot be used.
    """
    require_engine(settings.execution)
    with run.lock():
        return _compare(run, settings, progress, log)


def _compare(run: RunFolder, settings: BaselinesSettings, progress: Progress, log: Log) -> StrategyComparison:
    recipe = settings.recipe or recipe_of(run)
    run.front()
    if run.configuration.from_run is not None:
        raise InputError(
            f"{run.path} started from the weights of {run.configuration.from_run}: strategies that do not would "
            "not have the same cost; compare a run that started from fresh weights"
        )
    plan = plan_of(run, settings.data, resolve_device(settings.device, elsewhere=settings.execution.elsewhere))
    rivals = _rivals(settings.against, plan, log)
    plans = {name: _plan_by(name, plan) for name in (OWN, *rivals)}
    manifest = run.data
    # Before anything is searched: every trial needs the same images.
    run_images(plan, run, manifest, progress)
    tasks = [
        _Task(run.path, name, replace(planned, seed=plan.seed + step), settings.top, recipe, manifest)
        for step in range(settings.seeds)
        for name, planned in plans.items()
    ]
    spread(_work, tasks, Spread(run.path, plan.device, settings.jobs, settings.execution), progress, log)
    comparison = _compared(plan, tasks, recipe)
    run.write_record(FILE, comparison)
    device = cast("TrainingDevice", plan.device)
    run.add_step("baselines", replace(settings, data=plan.data.absolute(), recipe=recipe, device=device))
    return comparison


def standalone_plan(plan: SearchPlan) -> SearchPlan:
    """Return a plan that evolves without weight sharing at the cost of ``plan``, counted in images.

    A training step on an image costs as much as three forward passes, an evaluation as much as one. The new plan
    trains each architecture for one epoch and evaluates it. The number of architectures follows from the cost of
    the SuperNet's training, if ``plan`` has one, of all evaluations in ``plan``, and of its final stage, which the
    new plan lacks.

    Raises:
        InputError: the cost allows too few architectures for an evolution.
    """
    evolution, training = plan.preset.evolution, plan.preset.training
    images = len(plan_data(plan).train)
    evaluates = round(images * training.validation_fraction)
    trains = images - evaluates
    subset = min(training.evaluation_images or evaluates, evaluates)
    parts = JudgedImages(trains, evaluates, subset)
    passes = search_passes(evolution, training.architectures, parts, trains=training.trains)
    cost = sum(passes) / (1 - plan.preset.final.share)
    affordable = int(cost // (TRAINING * trains + subset + evaluates))
    # Twice a population to begin with and in the end, and one for each generation but the first.
    population = max(MIN_STANDALONE, affordable // 12)
    generations = affordable // population - 3
    if generations < 1:
        raise InputError(
            f"the cost of the run allows {affordable} standalone trainings, too few for an evolution; "
            f"leave '{STANDALONE}' out, or search for longer"
        )
    evolution = replace(
        evolution,
        population=population,
        epochs=1 + generations,
        warmup_epochs=1,
        epochs_per_generation=1,
    )
    if not training.trains:
        training = replace(training, classifier="shared")
    return replace(plan, preset=replace(plan.preset, evolution=evolution, training=training), standalone_epochs=1)


def _rivals(against: Sequence[str], plan: SearchPlan, log: Log) -> list[str]:
    """Return the strategies of ``against`` whose searches are neither that of ``plan`` nor each other's.

    ``log`` tells which of them are left out.

    Raises:
        InputError: one differs from the run's own only in a training that does not take place, or none differs.
    """
    own = plan.preset.evolution
    found = {repr(_deciding(own, plan)): OWN}
    idle = []
    for name in dict.fromkeys(against):
        if name == STANDALONE:
            found[name] = name
            continue
        changed = STRATEGIES[name].changed(own)
        same = found.setdefault(repr(_deciding(changed, plan)), name)
        if same == OWN and changed != own:
            idle.append(name)
        elif same == OWN:
            log(f"{name} is the run's own strategy: it is not searched again")
        elif same != name:
            log(f"{name} is the same search as {same} here: it is not made again")
    if idle:
        raise InputError(
            f"{' and '.join(idle)} would repeat the run's own search: only other architectures would be trained, "
            f"and with training.classifier = {plan.preset.training.classifier!r} none are; compare with "
            f"{', '.join(_useful(plan))}"
        )
    rivals = [name for name in found.values() if name != OWN]
    if not rivals:
        raise InputError("there is nothing to compare: all of these strategies are the run's own")
    return rivals


def _deciding(evolution: EvolutionSettings, plan: SearchPlan) -> EvolutionSettings:
    """Return ``evolution`` without what does not change a search as that of ``plan``."""
    return evolution if plan.preset.training.trains else replace(evolution, uniform_draws=0.0)


def _useful(plan: SearchPlan) -> list[str]:
    """Return the strategies with which the search of ``plan`` can be compared."""
    own, preset, found = plan.preset.evolution, plan.preset, []
    for name, strategy in STRATEGIES.items():
        changed = strategy.changed(own)
        try:
            replace(preset, evolution=changed)
        except InputError:
            # It protects what only a training shows.
            continue
        if _deciding(changed, plan) != _deciding(own, plan):
            found.append(name)
    return [*found, STANDALONE]


def _plan_by(strategy: str, plan: SearchPlan) -> SearchPlan:
    """Return ``plan``, the run's, changed to that of ``strategy``."""
    if strategy == STANDALONE:
        return standalone_plan(plan)
    evolution = STRATEGIES[strategy].changed(plan.preset.evolution)
    return replace(plan, preset=replace(plan.preset, evolution=evolution))


@dataclass(frozen=True)
class _Task:
    run: Path
    strategy: str
    plan: SearchPlan
    top: int
    recipe: Recipe
    manifest: DataManifest

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.plan.seed}"

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.run / "baselines" / self.name)

    @property
    def training(self) -> TrainSettings:
        """How the networks of the front are trained."""
        plan = self.plan
        device = cast("TrainingDevice", plan.device)
        return TrainSettings(plan.data, self.recipe, seed=plan.seed, jobs=1, device=device)


def _work(task: _Task, progress: Progress, log: Log) -> None:
    with command_line(None):
        _search_and_train(task, progress, log)


def _search_and_train(task: _Task, progress: Progress, log: Log) -> None:
    run, plan = RunFolder(task.run), task.plan
    if task.strategy == OWN and plan.seed == run.configuration.seed and not task.folder.path.exists():
        _copy(run, task, plan)
    folder = run_search(
        plan,
        task.folder.path,
        resume=True,
        progress=prefixed(progress, task.name),
        log=no_log,
        manifest=task.manifest,
        # Trials run side by side already.
        jobs=1,
    )
    train_run(
        folder,
        task.training,
        chosen=[(network.name, network.architecture) for network in choose(folder.front(), task.top)],
        progress=prefixed(progress, task.name),
        log=log,
    )


def _copy(run: RunFolder, task: _Task, plan: SearchPlan) -> None:
    """Let the run's own search stand in the folder of ``task`` as if it had been made there."""
    copy = RunFolder.create(task.folder.path, configuration(plan), run.about)
    copy.write_data(task.manifest)
    copy.write_history(run.history())
    copy.write_front(run.front())


def _compared(plan: SearchPlan, tasks: Sequence[_Task], recipe: Recipe) -> StrategyComparison:
    objectives = cost_objectives(plan)
    histories = [task.folder.history() for task in tasks]
    fronts = [_front(task, objectives) for task in tasks]
    # All fronts lie below the reference point; a budget bounds the latency.
    costs = [
        objective.limit or MARGIN * max(one.costs[index] for front in fronts for one in front)
        for index, objective in enumerate(objectives)
    ]
    # If all errors are zero, any positive bound will do.
    error = min(1.0, MARGIN * max(1 - one.standalone for front in fronts for one in front)) or 1.0
    # Under shared weights a population is far worse than its front will be: any error counts.
    highest = [
        objective.limit
        or max(member["costs"][index] for history in histories for one in history for member in one["population"])
        for index, objective in enumerate(objectives)
    ]
    trials = tuple(
        Trial(
            task.strategy,
            task.plan.seed,
            sum(one["candidates"] for one in history),
            tuple(_generation(one["population"], highest) for one in history),
            tuple(front),
        )
        for task, history, front in zip(tasks, histories, fronts, strict=True)
    )
    return StrategyComparison(objectives[0].name, objectives[0].unit, (error, *costs), trials, recipe)


def _front(task: _Task, objectives: Sequence[CostObjective]) -> list[Trained]:
    found = []
    for network in choose(task.folder.front(), task.top):
        trained = finished_training(task.folder, network.name, network.architecture, task.training)
        if trained is None:
            raise RunError(f"{task.folder.path} has no training of {network.name}", remedy="train-again")
        costs = tuple(objective.value(network.architecture) for objective in objectives)
        found.append(Trained(*network.architecture, costs, network.accuracy, trained.accuracy, trained.test.total))
    return found


def _generation(population: Sequence[dict[str, Any]], highest: Sequence[float]) -> Generation:
    rows = np.array([[1 - member["accuracy"], *member["costs"]] for member in population])
    first = rows[:, 1]
    return Generation(
        fraction_dominated(rows, np.array([1.0, *highest])),
        float(first.min()),
        float(first.max()),
        float(first.std()),
    )
