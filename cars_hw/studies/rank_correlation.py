"""Compare accuracies under shared weights with accuracies after training from scratch, for a sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import numpy as np

from cars_hw.config.evaluation import Evaluation
from cars_hw.errors import InputError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.evolution.objectives import feasible
from cars_hw.executors.engine import require_engine
from cars_hw.pipeline.chosen_networks import choose
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan, plan_of, recipe_of
from cars_hw.pipeline.run_data import require_splits, splits_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search_images import run_images
from cars_hw.pipeline.settings import TrainingDevice, TrainSettings
from cars_hw.pipeline.supernet import supernet_weights_of, trained_spec
from cars_hw.pipeline.train import train_run
from cars_hw.progress import Log, Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.studies.ranking import FILE, MINIMUM, Ranked, Ranking
from cars_hw.studies.settings import RankSettings
from cars_hw.training.precision import resolve_device

TRIES: Final = 10_000
"""So many are drawn in search of those that keep to the budgets."""


def rank_run(run: RunFolder, settings: RankSettings, *, progress: Progress = show, log: Log = show.log) -> Ranking:
    """Train a sample of ``run``'s architectures from scratch, and compare the order with that under shared weights.

    Half of the ``settings.sample`` architectures are spread over the front. The others are drawn at random among
    those that meet the limits. They have the channels and cells of the SuperNet, in a search over sizes their own,
    and are trained on the search's data. With ``twice`` each is trained a second time, with the next seed. A
    network that was already trained with the same settings is not trained again. The result is written to the run.
    If the search compared losses, the order under shared weights is that of the losses. If it compared balanced
    accuracies, both orders are those of balanced accuracies.
    A sample of 0 skips the check; the report says so.

    Raises:
        InputError: a sample of 1 to 3, or fewer than 4 architectures that meet the limits.
        RunError: the run has no front yet, or no weights; a file of it is damaged; or another process writes to it.
        DataChangedError: the images are not those of the search.
        DatasetError: the data cannot be used.
    """
    require_engine(settings.execution)
    with run.lock():
        return _rank(run, settings, progress, log)


def _rank(run: RunFolder, settings: RankSettings, progress: Progress, log: Log) -> Ranking:
    sample, seed = settings.sample, settings.seed
    if sample == 0:
        run.write_record(FILE, Ranking((), None))
        return Ranking((), None)
    device = resolve_device(settings.device)
    plan = plan_of(run, settings.data, device)
    manifest = run.data
    bundle = run_images(plan, run, manifest, progress)
    require_splits(manifest, splits_of(bundle, plan.preset.training, plan.seed))
    chosen = [(network.name, network.architecture) for network in choose(run.front(), sample // 2)]
    known = {architecture.key() for _, architecture in chosen}
    # Fewer where hardly any architecture keeps to the budgets.
    for number, architecture in enumerate(_drawn(plan, sample - len(chosen), known, seed), start=1):
        chosen.append((f"random-{number:02d}", architecture))
    if len(chosen) < MINIMUM:
        raise InputError(f"a rank correlation needs at least {MINIMUM} architectures; there are {len(chosen)}")
    weights = supernet_weights_of(plan, bundle)
    if weights.trains:
        weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    shared = weights.counts([architecture for _, architecture in chosen], full=True)
    # As the SuperNet ran them.
    spec = weights.supernet.spec
    ran = [(name, Architecture(one.genotype, trained_spec(plan, spec, one))) for name, one in chosen]
    standalone = RunFolder(run.path / "ranking")
    # A run of its own: on a proxy, networks have other images and classes than those of the run.
    configuration = replace(run.configuration, network=spec, proxy=False)
    if (standalone.path / "run.json").is_file():
        standalone.require(configuration)
    else:
        standalone = RunFolder.create(standalone.path, configuration, run.about)
    standalone.write_data(manifest)
    recipe = settings.recipe or recipe_of(run)
    training = TrainSettings(
        plan.data, recipe, jobs=settings.jobs, execution=settings.execution, device=cast("TrainingDevice", device)
    )

    def train(seed: int, suffix: str) -> list[Evaluation]:
        """Return the evaluations of all, trained with ``seed`` and kept under names with ``suffix``."""
        trained = train_run(
            standalone,
            replace(training, seed=seed),
            chosen=[(name + suffix, architecture) for name, architecture in ran],
            progress=progress,
            log=log,
        )
        return [network.test for network in trained]

    once = train(seed, "")
    again = train(seed + 1, "-again") if settings.twice else [None] * len(chosen)
    objective, accuracy = plan.preset.evolution.objective, plan.preset.evolution.printed_accuracy
    by_loss = objective == "loss"
    networks = [
        Ranked(
            name,
            genotype,
            network,
            counts.score(accuracy),
            first.score(accuracy),
            None if second is None else second.score(accuracy),
            counts.total,
            first.total,
            counts.loss if by_loss else None,
        )
        for (name, (genotype, network)), counts, first, second in zip(ran, shared, once, again, strict=True)
    ]
    ranking = Ranking(tuple(networks), recipe, objective, plan.preset.training.classifier)
    run.write_record(FILE, ranking)
    run.add_step("rank", replace(settings, data=plan.data.absolute(), recipe=recipe, device=training.device))
    return ranking


def _drawn(plan: SearchPlan, count: int, known: set[Any], seed: int) -> list[Architecture]:
    """Return random architectures that keep to the budgets; fewer where hardly any do."""
    # Not the search's own random numbers: those architectures have been trained on.
    rng = np.random.default_rng((seed, 1))
    objectives = cost_objectives(plan)
    space = plan.architectures
    found: list[Architecture] = []
    for _ in range(TRIES):
        if len(found) == count:
            break
        architecture = space.sample(rng)
        if architecture.key() not in known and feasible(objectives, architecture):
            known.add(architecture.key())
            found.append(architecture)
    return found
