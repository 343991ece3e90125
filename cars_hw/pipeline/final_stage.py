"""The final stage of a search: short trainings of its best architectures choose the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from cars_hw.config.data import DataSource
from cars_hw.config.evaluation import ClassCounts, Objective
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.presets import Preset
from cars_hw.config.training import Recipe, StepReplay
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import DataChangedError, TrainingError
from cars_hw.evolution.halving import cost_of, further_places, plan_rungs, survivors
from cars_hw.evolution.nominees import (
    Grown,
    Nominee,
    best_first,
    grow,
    losses_decide,
    nominate,
    parents_of_growth,
)
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.passes import TRAINING, JudgedImages, search_passes
from cars_hw.evolution.population import Finalist
from cars_hw.executors.spread import Spread, spread
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline.memory import enough_memory_to_train
from cars_hw.pipeline.near_limit import near_limit, reaches, uses_most
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.records import FinalStage
from cars_hw.pipeline.run_data import load_frozen
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Log, Progress, no_log, once, prefixed_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.widening import widening_draws
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.network_step import Stepping
from cars_hw.training.precision import resolve_precision
from cars_hw.training.shared_weights import judging_parts, torch_threads
from cars_hw.training.standalone import NetworkTraining, counts_on, require_resolution

DRAWS: Final = 64
"""The mean multiply-adds of the space are estimated by so many random architectures."""

WORTH_PROCESSES: Final = 10.0
"""Processes are started if the trainings take more seconds than this, since their start takes some seconds."""

RESOLUTIONS: Final = 8
"""A process keeps the images of so many resolutions in memory."""

NAME: Final = "final stage"


def trained_spec(plan: SearchPlan, supernet: NetworkSpec, architecture: Architecture) -> NetworkSpec:
    """Return the network as which ``architecture`` runs in the search.

    In a search over sizes it has the architecture's own size. Otherwise it is ``supernet``, which may be smaller
    than the exported network.
    """
    if plan.sizes is None:
        return supernet
    own = architecture.network
    return supernet.sized(own, resolution=own.resolution if plan.architectures.varies_resolution else None)


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


class Sizing(NamedTuple):
    """The figures that decide how long a final stage is.

    ``searched`` is the cost of the search before it, and ``affordable`` the largest cost of the stage. Both are in
    passes of an image times millions of multiply-adds. ``images`` are the numbers of images of the search.
    """

    searched: float
    affordable: float
    images: JudgedImages


def judged_images(plan: SearchPlan, trains: int, evaluates: int) -> JudgedImages:
    """Return the numbers of images of the search of ``plan``: ``trains`` train, and ``evaluates`` evaluate."""
    return JudgedImages(trains, evaluates, min(plan.preset.training.evaluation_images or evaluates, evaluates))


class MeanAdds(NamedTuple):
    """Mean millions of multiply-adds: of the draws of the warm-up, of those from the space, and of the population.

    ``ends`` are those of the largest and the smallest size together, if every step trains both; otherwise 0.
    """

    warm_up: float
    space: float
    population: float
    ends: float = 0.0


def sizing(
    plan: SearchPlan,
    supernet: NetworkSpec,
    images: JudgedImages,
    objectives: Sequence[CostObjective],
    population: Sequence[Architecture] = (),
) -> Sizing:
    """Return what the final stage of ``plan`` may cost; ``population`` is that of :func:`mean_adds`."""
    return sizing_of(plan.preset, images, mean_adds(plan, supernet, objectives, population))


def mean_adds(
    plan: SearchPlan,
    supernet: NetworkSpec,
    objectives: Sequence[CostObjective],
    population: Sequence[Architecture] = (),
) -> MeanAdds:
    """Return the mean multiply-adds of the architectures that the search of ``plan`` trains and evaluates.

    ``population`` are the architectures of all generations. Before a search they are not known: random
    architectures that keep to every limit replace them, or all random ones if none does.
    """
    rng = np.random.default_rng((plan.seed, 2))
    drawn = [plan.architectures.sample(rng) for _ in range(DRAWS)]
    later = population or [one for one in drawn if feasible(objectives, one)] or drawn

    def mean(architectures: Sequence[Architecture]) -> float:
        unique = {one.key(): one for one in architectures}
        costs = {key: multiply_adds(plan, supernet, one) for key, one in unique.items()}
        return float(np.mean([costs[one.key()] for one in architectures]))

    ends = 0.0
    if plan.sizes is not None and plan.preset.training.size_sampling == "sandwich":
        sizes = (plan.architectures.largest, plan.architectures.smallest)
        ends = sum(mean([Architecture(one.genotype, size) for one in drawn]) for size in sizes)
    evolution, warming = plan.preset.evolution, drawn
    if evolution.widening != "none":
        warming = list(widening_draws(plan.architectures, evolution.widening, evolution.warmup_epochs, DRAWS, rng))
    return MeanAdds(mean(warming), mean(drawn), mean(later), ends)


def sizing_of(preset: Preset, images: JudgedImages, adds: MeanAdds) -> Sizing:
    """Return what the final stage of a search by ``preset`` may cost; ``adds`` are those of its architectures."""
    evolution = preset.evolution
    trains = preset.training.trains
    passes = search_passes(evolution, preset.training.architectures, images, trains=trains)
    searched = passes.warm_up * adds.warm_up + passes.space * adds.space + passes.population * adds.population
    epochs = evolution.warmup_epochs + evolution.generations * evolution.epochs_per_generation
    searched += trains * epochs * TRAINING * images.trains * adds.ends
    share = preset.final.share
    return Sizing(searched, searched * share / (1 - share), images)


def multiply_adds(plan: SearchPlan, supernet: NetworkSpec, architecture: Architecture) -> float:
    """Return the millions of multiply-adds of the network as which ``architecture`` runs in the search."""
    return network_cost(trained_spec(plan, supernet, architecture), architecture.genotype).multiply_adds / 1e6


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
            stage = _begin(ended)
            run.write_final_stage(stage)
        tell(_plan_text(stage))
        while stage.done < len(stage.rungs.epochs):
            stage = _run_rung(ended, stage, Spread(run.path, device, jobs, execution), progress, said)
            run.write_final_stage(stage)
            tell(_rung_text(ended, stage))
    finally:
        _images.cache_clear()
    for one in stage.networks:
        run.final_checkpoint(one.name).unlink(missing_ok=True)
        for rung in range(len(stage.rungs.epochs)):
            run.final_result_path(one.name, rung).unlink(missing_ok=True)
    objective = ended.plan.preset.evolution.printed_accuracy
    return [_as_finalist(stage, one, objective) for one in stage.networks]


def longest_trained(members: Sequence[Finalist]) -> list[Finalist]:
    """Return those of ``members`` with the most epochs of training; accuracies after fewer epochs are lower."""
    most = max(one.trained_epochs for one in members)
    return [one for one in members if one.trained_epochs == most]


def with_best_of_stretches(front: Sequence[Finalist], members: Sequence[Finalist]) -> list[Finalist]:
    """Return ``front`` and the most accurate of ``members`` in each stretch, cheapest first.

    Large networks learn slowly: after a short training, a cheaper network may be more accurate than all of a
    stretch, and less accurate after a long one. The best of each stretch is therefore handed over as well, unless
    it has no right answer at all.
    """
    best: dict[int, Finalist] = {}
    for one in sorted(members, key=lambda one: (-one.accuracy, one.costs)):
        if one.stretch and one.accuracy > 0:
            best.setdefault(one.stretch, one)
    chosen = [*front, *(one for one in best.values() if one not in front)]
    return sorted(chosen, key=lambda one: (one.costs, -one.accuracy))


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


def _begin(ended: Ended) -> FinalStage:
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
    data, judged = _images(_images_of(ended, ended.supernet))
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


class _ImagesOf(NamedTuple):
    """What is needed to load the images of a search and to divide them as the search did."""

    run: Path
    source: DataSource
    resolution: tuple[int, int] | None
    share: float
    seed: int


def _images_of(ended: Ended, network: NetworkSpec) -> _ImagesOf:
    """Return what loads the images of ``network``. Those of a proxy have their own resolution."""
    plan = ended.plan
    resolution = None if ended.resolution is None else network.resolution
    return _ImagesOf(ended.run.path, plan.data, resolution, plan.preset.training.validation_fraction, plan.seed)


@lru_cache(maxsize=RESOLUTIONS)
def _images(of: _ImagesOf) -> tuple[DataBundle, Dataset]:
    """Return the images as the search divided them, and those of them that evaluate architectures.

    They are kept for the next network of this resolution that this process trains.

    Raises:
        DataChangedError: they are not those of the search.
    """
    run = RunFolder(of.run)
    manifest = run.data
    found = load_frozen(run, manifest, of.source, of.resolution, download=False)
    if found.digest != manifest.digest and not found.changes:
        raise DataChangedError(f"{found.source.source} was changed while the search runs; run the command again")
    train, judged = judging_parts(found.bundle, of.share, torch.Generator().manual_seed(of.seed))
    return replace(found.bundle, train=train, validation=None), judged


@dataclass(frozen=True)
class _Task:
    """The training of one network in one rung: until it has been trained for ``until`` epochs."""

    images: _ImagesOf
    name: str
    genotype: Genotype
    spec: NetworkSpec
    recipe: Recipe
    rung: int
    until: int
    begun_at: int
    seed: int
    device: str
    deterministic: bool
    replay: StepReplay


def _run_rung(ended: Ended, stage: FinalStage, how: Spread, progress: Progress, log: Log) -> FinalStage:
    """Return ``stage`` with the results of its next rung."""
    run, plan, rung, device = ended.run, ended.plan, stage.done, how.device
    running = _running(stage, plan.preset.evolution.printed_accuracy)
    epochs = stage.rungs.epochs
    recipe = replace(stage.recipe, precision=resolve_precision(stage.recipe.precision, device))
    tasks = [
        _Task(
            _images_of(ended, spec),
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
    spread(_train, waiting, how, shown, log, of=len(tasks))
    names = {one.name for one in running}
    return replace(
        stage, networks=tuple(_with_result(run, one, rung) if one.name in names else one for one in stage.networks)
    )


def _seconds(tasks: Sequence[_Task]) -> float:
    """Return roughly how long ``tasks`` take on one core: the time of their arithmetic, and 10 ms for each step.

    It decides only whether processes are started for them.
    """
    if not tasks:
        return 0.0
    images = len(_images(tasks[0].images)[0].train)
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

    def __init__(self, progress: Progress, stage: str, tasks: Sequence[_Task], waiting: Sequence[_Task]) -> None:
        self._progress, self._stage = progress, stage
        names = {task.name for task in waiting}
        self._done = {task.name: 0 if task.name in names else task.until - task.begun_at for task in tasks}
        self._total = sum(task.until - task.begun_at for task in tasks)
        progress(stage, sum(self._done.values()), self._total)

    def __call__(self, name: str, done: int, _total: int) -> None:
        self._done[name] = done
        self._progress(self._stage, sum(self._done.values()), self._total)


def _train(task: _Task, progress: Progress, log: Log) -> None:
    """Train the network of ``task`` to the end of its rung, evaluate it, and write its right answers by class."""
    run = RunFolder(task.images.run)
    data, judged = _images(task.images)
    checkpoint = TrainingCheckpoint(run.final_checkpoint(task.name), _about(task), no_log)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if task.device == "cpu":
            # The number of threads changes how sums are rounded.
            stack.enter_context(torch_threads(1))
        stack.enter_context(deterministic_algorithms(task.deterministic))
        stack.enter_context(
            enough_memory_to_train(task.recipe, task.device, task.name, replays=task.replay == "auto")
        )
        torch.manual_seed(task.seed)
        network = Network(task.spec, task.genotype)
        require_resolution(network, data)
        training = NetworkTraining(
            network,
            data,
            task.recipe,
            seed=task.seed,
            device=task.device,
            stepping=Stepping(task.replay),
            log=log,
        )
        kept = checkpoint.load()
        if kept is not None:
            training.restore(kept)
        try:
            while training.epoch < task.until:
                progress(task.name, training.epoch - task.begun_at, task.until - task.begun_at)
                training.run_epoch()
                checkpoint.save(training.state())
            counts = counts_on(training.evaluated, judged, data, device=task.device)
        except TrainingError:
            # Its loss is infinite or not a number. It becomes the last of its stretch, and the others go on.
            counts = _nothing_right(judged, data)
    run.write_final_result(task.name, task.rung, counts)
    progress(task.name, task.until - task.begun_at, task.until - task.begun_at)


def _about(task: _Task) -> dict[str, str | float | bool | None]:
    return {
        "network": repr(task.spec),
        "genotype": repr(task.genotype),
        "recipe": repr(task.recipe),
        "seed": task.seed,
    }


def _nothing_right(judged: Dataset, data: DataBundle) -> ClassCounts:
    images = torch.bincount(judged.labels.cpu(), minlength=data.classes).tolist()
    return ClassCounts(tuple(images), (0,) * data.classes)


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
