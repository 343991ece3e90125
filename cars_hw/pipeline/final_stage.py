"""The final stage of a search: short trainings of its best architectures, rung by rung."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cars_hw.config.evaluation import Objective
from cars_hw.config.execution import HERE, Execution
from cars_hw.evolution.halving import survivors
from cars_hw.evolution.nominees import Nominee, losses_decide
from cars_hw.evolution.passes import TRAINING
from cars_hw.evolution.population import Finalist
from cars_hw.executors.spread import Spread, spread
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.final_images import load_images
from cars_hw.pipeline.final_plan import Ended, plan_final_stage
from cars_hw.pipeline.final_training import Task, train_task
from cars_hw.pipeline.records import FinalStage
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.supernet import trained_spec
from cars_hw.progress import Log, Progress, no_log, once, prefixed_log, silent
from cars_hw.training.precision import resolve_precision

WORTH_PROCESSES: Final = 10.0
"""Processes are started if the trainings take more seconds than this, since their start takes some seconds."""

NAME: Final = "final stage"


def run_final_stage(
    ended: Ended,
    *,
    device: str,
    jobs: int | None = None,
    execution: Execution = HERE,
    progress: Progress = silent,
    tell: Log = no_log,
) -> list[Finalist]:
    """Train the nominees of ``ended`` rung by rung, and return all of them with their last results.

    :func:`cars_hw.evolution.nominees.nominate` chooses the nominees; over sizes, some of them are grown. If none of
    them uses most of a limit, one that does is added, see :func:`cars_hw.pipeline.near_limit.near_limit`. After
    each rung, :func:`cars_hw.evolution.halving.survivors` chooses those that go on, by their loss on the images
    that evaluate architectures in the search (by the balanced accuracy, if that is the objective). The test images
    are not used. All networks are trained on the images in the same order. ``jobs`` networks are trained side by
    side, or ``execution`` hands them to a cluster. On a CPU, each is trained on one thread, so neither changes the
    result.

    A stage that was killed resumes after the last finished epoch of each network. ``tell`` gets a line at the
    beginning and after each rung, and one if the steps of the trainings cannot be recorded.

    Raises:
        DataChangedError: the images are no longer those of the search.
        InputError: the memory does not suffice; the message names the settings to lower.
        RunError: a file of the run is damaged.
    """
    run = ended.run
    # What one training cannot do, the others cannot either.
    said = once(prefixed_log(tell, NAME))
    stage = run.final_stage()
    try:
        if stage is None:
            stage = plan_final_stage(ended)
            run.write_final_stage(stage)
        tell(_plan_text(stage))
        while stage.done < len(stage.rungs.epochs):
            stage = _run_rung(ended, stage, Spread(run.path, device, jobs, execution), progress, said)
            run.write_final_stage(stage)
            tell(_rung_text(ended, stage))
    finally:
        load_images.cache_clear()
    for one in stage.networks:
        run.final_checkpoint(one.name).unlink(missing_ok=True)
        for rung in range(len(stage.rungs.epochs)):
            run.final_result_path(one.name, rung).unlink(missing_ok=True)
    objective = ended.plan.preset.evolution.printed_accuracy
    return [_as_finalist(stage, one, objective) for one in stage.networks]


def _as_finalist(stage: FinalStage, one: Nominee, objective: Objective) -> Finalist:
    counts = one.results[-1]
    return Finalist(
        *one.architecture,
        one.costs,
        counts.score(objective),
        validation=counts,
        trained_epochs=stage.epochs_of(one),
        stretch=one.stretch,
    )


def _run_rung(ended: Ended, stage: FinalStage, how: Spread, progress: Progress, log: Log) -> FinalStage:
    """Return ``stage`` with the results of its next rung."""
    run, plan, rung, device = ended.run, ended.plan, stage.done, how.device
    running = _running(stage, plan.preset.evolution.printed_accuracy)
    epochs = stage.rungs.epochs
    recipe = replace(stage.recipe, precision=resolve_precision(stage.recipe.precision, device))
    tasks = [
        Task(
            ended.images_of(spec),
            one.name,
            one.genotype,
            spec,
            recipe,
            rung,
            epochs[rung],
            epochs[rung - 1] if rung else 0,
            plan.seed,
            device,
            plan.preset.training.deterministic,
            plan.step_replay,
        )
        for one in running
        for spec in (trained_spec(plan, ended.supernet, one.architecture),)
    ]
    waiting = [task for task in tasks if run.final_result(task.name, rung) is None]
    shown = _Shown(
        progress, f"{NAME}, rung {rung + 1} of {len(epochs)} with {_networks(len(tasks))}", tasks, waiting
    )
    if how.jobs is None and how.execution == HERE and _seconds(waiting) <= WORTH_PROCESSES:
        how = replace(how, jobs=1)
    # All of a rung have the same epochs.
    adds = [network_cost(task.spec, task.genotype).multiply_adds for task in waiting]
    spread(train_task, waiting, how, shown, log, of=len(tasks), costs=adds)
    names = {one.name for one in running}
    return replace(
        stage, networks=tuple(_with_result(run, one, rung) if one.name in names else one for one in stage.networks)
    )


def _seconds(tasks: Sequence[Task]) -> float:
    """Return roughly how long ``tasks`` take on one core: the time of their arithmetic, and 10 ms for each step.

    It decides only whether processes are started for them.
    """
    if not tasks:
        return 0.0
    images = len(load_images(tasks[0].images)[0].train)
    total = 0.0
    for task in tasks:
        epochs = task.until - task.begun_at
        adds = network_cost(task.spec, task.genotype).multiply_adds
        total += epochs * (images / task.recipe.batch_size * 0.01 + TRAINING * images * adds / 1e10)
    return total


def _running(stage: FinalStage, objective: Objective) -> list[Nominee]:
    """Return the networks of the next rung: the better half of each stretch, and the cheapest of all.

    The front begins with the cheapest, so that it has a network for the smallest budget. It costs little.
    """
    left = [one for one in stage.networks if len(one.results) == stage.done]
    if not stage.done:
        return left
    by_loss = losses_decide(left, objective)
    chosen = survivors(left, lambda one: one.stretch, lambda one: _rank(one, objective, by_loss), stage.rungs.kept)
    cheapest = min(left, key=lambda one: one.costs)
    return chosen if cheapest in chosen else [one for one in left if one in chosen or one is cheapest]


def _rank(one: Nominee, objective: Objective, by_loss: bool) -> tuple[float, ...]:
    """Return what the networks of a stretch are sorted by: the best first, and of equal ones the cheapest."""
    counts = one.results[-1]
    if not by_loss:
        return -counts.score(objective), *one.costs
    return math.inf if counts.loss is None else counts.loss, *one.costs


def _with_result(run: RunFolder, one: Nominee, rung: int) -> Nominee:
    counts = run.final_result(one.name, rung)
    assert counts is not None
    return replace(one, results=(*one.results, counts))


class _Shown:
    """The progress of a rung: the epochs of all its networks, also of those that were finished before a resume."""

    def __init__(self, progress: Progress, stage: str, tasks: Sequence[Task], waiting: Sequence[Task]) -> None:
        self._progress, self._stage = progress, stage
        names = {task.name for task in waiting}
        self._done = {task.name: 0 if task.name in names else task.until - task.begun_at for task in tasks}
        self._total = sum(task.until - task.begun_at for task in tasks)
        progress(stage, sum(self._done.values()), self._total)

    def __call__(self, name: str, done: int, _total: int) -> None:
        self._done[name] = done
        self._progress(self._stage, sum(self._done.values()), self._total)


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def _networks(number: int) -> str:
    return "1 network" if number == 1 else f"{number} networks"


def _plan_text(stage: FinalStage) -> str:
    """Return the plan of ``stage`` in words."""
    reasons = [one.reason for one in stage.networks]
    grown = reasons.count("grown")
    first, *later = stage.rungs.epochs
    text = f"{NAME}: {_networks(len(stage.networks))} are trained for {_epochs(first)}"
    if later:
        text += f", the better half of each stretch to {', then '.join(map(str, later))}"
    if grown:
        text += f"; {grown} of them {'was' if grown == 1 else 'were'} grown from finalists"
    return f"{text}. It takes {stage.share:.0%} of the cost of the search"


def _rung_text(ended: Ended, stage: FinalStage) -> str:
    """Return the result of the last finished rung of ``stage`` in words."""
    objective = ended.plan.preset.evolution.printed_accuracy
    trained = [one for one in stage.networks if len(one.results) == stage.done]
    images = trained[0].results[-1].total
    scores = [one.results[-1].score(objective) for one in trained]
    epochs, name = stage.rungs.epochs, objective.replace("-", " ")
    return (
        f"{NAME}, rung {stage.done} of {len(epochs)}: after {_epochs(epochs[stage.done - 1])}, the {name} of "
        f"{_networks(len(trained))} is {min(scores):.1%} to {max(scores):.1%} on {images:,} held-out images"
    )
