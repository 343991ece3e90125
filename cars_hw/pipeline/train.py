"""The second step of a run: chosen networks are trained with the full recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import cast

from cars_hw.callbacks import TrainingCallback
from cars_hw.config.setting import NAME
from cars_hw.data.memory import memory_limit
from cars_hw.errors import InputError, RunError
from cars_hw.executors.engine import require_engine
from cars_hw.executors.spread import Spread, spread
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.chosen_networks import chosen_networks, with_genotype
from cars_hw.pipeline.network_training import train_job
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.plan import recipe_of
from cars_hw.pipeline.run_data import RunData, load_for_training, require_same
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainingDevice, TrainSettings
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.pipeline.train_ranks import follow, to_bytes
from cars_hw.pipeline.trained_weights import load_last, load_trained
from cars_hw.pipeline.training_job import StartingFrom, TrainingJob, difference, resolved
from cars_hw.progress import Log, Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.training.determinism import prepare_deterministic
from cars_hw.training.network_step import Stepping
from cars_hw.training.precision import resolve_device
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup


def train_run(
    run: RunFolder,
    settings: TrainSettings,
    *,
    chosen: Sequence[tuple[str, Architecture]] = (),
    callback: Callable[[str], TrainingCallback] | None = None,
    progress: Progress = show,
    log: Log = show.log,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> list[TrainedNetwork]:
    """Train ``settings.top`` networks of the run's front, or only ``settings.genotype``, and write their weights.

    Each network of the front has its own size. A genotype has that of the front's network with this genotype, and
    if there is none, that of the run's network; ``settings.channels``, ``settings.layers`` and
    ``settings.resolution`` change it. Every network is trained and evaluated on images of its own resolution.
    Alternatively, ``chosen`` has the names and architectures of the networks to train.

    Networks start from fresh weights, or with ``inherit`` from the SuperNet's where the run's SuperNet has networks
    of their size, or with ``settings.init`` from the weights in a file, which must be of their genotype and size;
    without a genotype, that of the file is trained. With a ``settings.teacher``, they also learn its answers.
    ``settings.replay`` and ``settings.compile`` decide how steps run, see :class:`Stepping`, and
    ``settings.threads`` on how many threads of a CPU. A resumed training keeps the number that it began with.
    ``jobs`` networks are trained in parallel, each with its share of the cores; the default is one for each core of
    a CPU. ``settings.execution`` hands them to a cluster instead. A network that was trained with the same settings
    before is not trained again. One that was trained with other settings keeps that training: the new one has a
    name of its own such as ``net-01@2``, and nothing chooses between them by the test images. A training that was
    killed resumes after its last epoch and ends with the same weights. ``log`` reports both.
    ``callback`` makes the callback of a network from its name. Several jobs run in processes of their own, so
    ``callback`` must be a function that can be pickled.

    The images are those of the search; ``settings.data`` is where they lie now. With ``settings.accept_changes``
    some may have been added, removed or changed since, which is written to the run. If the search was on a proxy,
    the first training may be given other images, whose facts are written to the run.

    The processes of ``process_group`` share every batch, one network after the other. The leading process writes
    and returns the records, in the order of the networks; the others need the run's ``run.json``, its ``data.json``
    and the images, and return an empty list.

    Raises:
        RunError: the run has no front yet, a file of it is damaged, or another process writes to it.
        DataChangedError: the images are not those of the search, and the changes are not accepted.
        InputError: the data does not fit the network, the recipe does not fit the device, a name of ``chosen``
            cannot be the name of a file, a genotype is that of networks of several sizes in the front, or a size is
            given without a genotype.
        TrainingError: the loss of a network is no longer a number.
    """
    require_engine(settings.execution)
    prepare_deterministic(settings.deterministic)
    device = resolve_device(settings.device, elsewhere=settings.execution.elsewhere)
    recipe = resolved(settings.recipe or recipe_of(run), device)
    if not process_group.leads:
        return follow(run, settings, process_group)
    begins = StartingFrom.of(settings)
    names = dict(chosen or chosen_networks(run, with_genotype(settings)))
    if begins.init is not None:
        if not chosen and settings.genotype is None and settings.top != TrainSettings.top:
            log(f"trains only the genotype of {begins.init}; the number of networks of the front is not used")
        given = StartingWeights.read(begins.init)
        for name, architecture in names.items():
            given.require(name, architecture)
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(f"a network's name has letters, digits and . _ + @ - only, not {name!r}")
    data = load_for_training(run, settings.data, progress, accept=settings.accept_changes)
    start = run.start() if settings.inherit and not run.configuration.proxy else None
    for note in (*data.bundle.notes, *([start.known_tests] if start is not None and start.known_tests else [])):
        log(note)
    # Whether images are stored decides their order: processes on other machines decide it by this one's memory.
    source = replace(data.source, memory=memory_limit(data.source.memory))
    planned = [
        TrainingJob(
            run.path,
            source,
            data.digest,
            data.test_digest,
            name,
            architecture,
            recipe,
            settings.seed,
            device,
            settings.inherit,
            callback,
            begins,
            settings.deterministic,
            Stepping(settings.replay, settings.compile),
            settings.threads,
        )
        for name, architecture in names.items()
    ]
    with run.lock():
        data.write_down(run, "train")
        trained = run.trained()
        planned = [_under_its_name(job, trained, log) for job in planned]
        waiting = [job for job in planned if not _is_done(job, trained, run, log)]
        if process_group.world > 1:
            process_group.broadcast(to_bytes(waiting, data.digest, source.memory))
            _train_here(waiting, data, progress, log, process_group)
        else:
            how = Spread(run.path, device, settings.jobs, settings.execution)
            # By the number of chosen networks, not of those that are left: a resumed training has as many threads
            # as before, since the number of threads changes how sums are rounded.
            if how.here(len(planned)):
                _train_here(waiting, data, progress, log)
            else:
                costs = [network_cost(job.architecture.network, job.architecture.genotype) for job in waiting]
                adds = [one.multiply_adds for one in costs]
                spread(_train_in_worker, waiting, how, progress, log, of=len(planned), costs=adds)
        if not chosen:
            done = replace(
                settings,
                data=data.source,
                recipe=recipe,
                device=cast("TrainingDevice", device),
                init=begins.init,
                teacher=begins.teacher,
            )
            run.add_step("train", done)
        by_name = {network.name: network for network in run.trained()}
        return [by_name[job.name] for job in planned]


def finished_training(
    run: RunFolder, name: str, architecture: Architecture, settings: TrainSettings
) -> TrainedNetwork | None:
    """Return the training of the network ``name`` by ``settings`` on the images of ``run``, None where it has none.

    Raises:
        RunError: a record is damaged.
    """
    device = resolve_device(settings.device)
    recipe = resolved(settings.recipe or recipe_of(run), device)
    data = run.training_data
    job = TrainingJob(
        run.path,
        data.source,
        data.digest,
        data.test_digest,
        name,
        architecture,
        recipe,
        settings.seed,
        device,
        settings.inherit,
        start=StartingFrom.of(settings),
        deterministic=settings.deterministic,
        stepping=Stepping(settings.replay, settings.compile),
    )
    return next((one for one in run.trained() if one.network == name and _named(job, one).done_by(one)), None)


def _under_its_name(job: TrainingJob, trained: Sequence[TrainedNetwork], log: Log) -> TrainingJob:
    """Return ``job`` under the name of the same training if there is one, and otherwise under one that is free."""
    known = [one for one in trained if one.network == job.name]
    for one in known:
        if _named(job, one).done_by(one):
            return _named(job, one)
    taken = {one.name for one in known}
    if job.name not in taken:
        return job
    name = next(name for number in count(2) if (name := f"{job.name}@{number}") not in taken)
    first = next(one for one in known if one.name == job.name)
    log(f"{job.name} is trained already, with {difference(first, job)}: it is kept, and this training is {name}")
    return replace(job, name=name)


def _named(job: TrainingJob, trained: TrainedNetwork) -> TrainingJob:
    return replace(job, name=trained.name)


def _is_done(job: TrainingJob, trained: Sequence[TrainedNetwork], run: RunFolder, log: Log) -> bool:
    """Whether the result of ``job`` is among ``trained``. What is damaged is trained again, which ``log`` tells."""
    found = next((network for network in trained if job.done_by(network)), None)
    if found is None:
        return False
    try:
        load_trained(run, found)
        load_last(run, found)
    except RunError as error:
        log(f"{error}: the network is trained again")
        return False
    return True


def _train_in_worker(job: TrainingJob, progress: Progress, log: Log) -> None:
    resolution = job.architecture.network.resolution
    data = load_for_training(RunFolder(job.run), job.data, download=False, resolution=resolution)
    require_same(data, job.data_digest)
    train_job(job, data.bundle, progress, log)


def _train_here(
    waiting: Sequence[TrainingJob],
    data: RunData,
    progress: Progress,
    log: Log,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    for job in waiting:
        data = data.at(RunFolder(job.run), job.architecture.network.resolution)
        train_job(job, data.bundle, progress, log, process_group)
