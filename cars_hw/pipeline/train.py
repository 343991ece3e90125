"""The second step of a run: chosen networks are trained with the full recipe."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from cars_hw.callbacks import TrainingCallback
from cars_hw.config.checksummed import digest
from cars_hw.config.evaluation import Evaluation
from cars_hw.config.files import replacing
from cars_hw.config.setting import NAME
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle
from cars_hw.data.manifest import DataManifest
from cars_hw.data.memory import memory_limit
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.executors.engine import require_engine
from cars_hw.executors.spread import Spread, spread
from cars_hw.export.card import Augmentations, Figures, Preprocessing
from cars_hw.export.model import AUXILIARY, Model
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.memory import enough_memory_to_train
from cars_hw.pipeline.networks import FrontNetwork, TrainedNetwork
from cars_hw.pipeline.plan import recipe_of
from cars_hw.pipeline.records import RunConfiguration
from cars_hw.pipeline.run_data import RunData, load_for_training, require_same
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainingDevice, TrainSettings
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.pipeline.tensorboard import FOLDER, remove_events
from cars_hw.pipeline.train_ranks import follow, to_bytes
from cars_hw.pipeline.training_job import StartingFrom, TrainingJob, about, difference, resolved
from cars_hw.progress import Log, Progress, as_stage, prefixed_log
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.determinism import deterministic_algorithms, prepare_deterministic
from cars_hw.training.network_step import Stepping
from cars_hw.training.precision import resolve_device
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.standalone import TrainingResult, train_network
from cars_hw.training.weights import read_weights, save_weights


def choose(front: Sequence[FrontNetwork], count: int) -> list[FrontNetwork]:
    """Return ``count`` networks spread evenly over ``front``, both ends among them.

    A front is ordered by its first cost, and with one cost its last network is the most accurate. For a ``count``
    of 1 the most accurate network is returned. A smaller front is returned as a whole.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"train at least one network, not {count}")
    if count >= len(front):
        return list(front)
    if count == 1:
        return [max(front, key=lambda network: network.accuracy)]
    steps = [index * (len(front) - 1) / (count - 1) for index in range(count)]
    return [front[round(step)] for step in steps]


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
    names = dict(chosen or _chosen(run, _with_genotype(settings)))
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


def _with_genotype(settings: TrainSettings) -> TrainSettings:
    """Return ``settings`` with the genotype and size of the weights to start from, if no genotype is given."""
    if settings.init is None or settings.genotype is not None:
        return settings
    model = StartingWeights.read(settings.init.expanduser()).model
    return replace(
        settings,
        genotype=model.genotype,
        channels=settings.channels or model.spec.channels,
        layers=settings.layers or model.spec.layers,
    )


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


def _chosen(run: RunFolder, settings: TrainSettings) -> list[tuple[str, Architecture]]:
    """Return the names and architectures of the networks that ``settings`` chooses."""
    genotype = settings.genotype
    if genotype is None:
        if (settings.channels, settings.layers, settings.resolution) != (None, None, None):
            raise InputError(
                "channels, layers and resolution are for a genotype; networks of the front have their own"
            )
        return [(network.name, network.architecture) for network in choose(run.front(), settings.top)]
    known = [
        network
        for network in run.front()
        if network.genotype.key() == genotype.key()
        and settings.channels in (None, network.spec.channels)
        and settings.layers in (None, network.spec.layers)
        and settings.resolution in (None, network.spec.resolution)
    ]
    several = run.configuration.architectures.varies_resolution
    if len({network.spec for network in known}) > 1:
        sizes = ", ".join(f"{network.name} ({run.configuration.size_of(network.spec)})" for network in known)
        raise InputError(
            f"networks of several sizes have this genotype: {sizes}",
            remedy="choose-size-or-resolution" if several else "choose-size",
        )
    if known:
        return [(known[0].name, Architecture(genotype, known[0].spec))]
    if settings.resolution not in (None, run.network.resolution) and not several:
        raise InputError(
            f"the networks of {run.path} have {run.network.pixels} pixels; another resolution is for a run of a "
            "search over several"
        )
    spec = run.network.with_changes(
        channels=settings.channels, layers=settings.layers, resolution=settings.resolution
    )
    return [(_name_of(genotype, spec, run.network), Architecture(genotype, spec))]


def load_trained(run: RunFolder, trained: TrainedNetwork) -> Network:
    """Return the trained network with its weights, in eval mode.

    Raises:
        RunError: the weights are missing, damaged, or of another network.
    """
    return _loaded(trained, run.weights_path(trained.name), trained.weights_digest)


def load_last(run: RunFolder, trained: TrainedNetwork) -> Network:
    """Return the trained network with the weights after its last epoch, in eval mode.

    Raises:
        RunError: the weights are missing, damaged, or of another network.
    """
    if trained.last_weights_digest is None:
        return load_trained(run, trained)
    return _loaded(trained, run.last_weights_path(trained.name), trained.last_weights_digest)


def _loaded(trained: TrainedNetwork, path: Path, expected: str) -> Network:
    network = Network(trained.spec, trained.genotype)
    weights = read_weights(path, expected)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"the weights {path} are of another network", remedy="train-again") from error
    return network.eval()


def _name_of(genotype: Genotype, spec: NetworkSpec, own: NetworkSpec) -> str:
    """Return a name for a genotype that is not in the front; it has the size where that is not ``own``."""
    name = f"genotype-{zlib.crc32(repr(genotype.key()).encode()):08x}"
    if spec == own:
        return name
    at = "" if spec.resolution == own.resolution else f"-{spec.pixels}"
    return f"{name}-{spec.channels}x{spec.layers}{at}"


def _train_in_worker(job: TrainingJob, progress: Progress, log: Log) -> None:
    resolution = job.architecture.network.resolution
    data = load_for_training(RunFolder(job.run), job.data, download=False, resolution=resolution)
    require_same(data, job.data_digest)
    _train(job, data.bundle, progress, log)


def _train_here(
    waiting: Sequence[TrainingJob],
    data: RunData,
    progress: Progress,
    log: Log,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    for job in waiting:
        data = data.at(RunFolder(job.run), job.architecture.network.resolution)
        _train(job, data.bundle, progress, log, process_group)


def _train(
    job: TrainingJob, data: DataBundle, progress: Progress, log: Log, process_group: ProcessGroup = SINGLE_PROCESS
) -> None:
    run = RunFolder(job.run)
    checkpoint = TrainingCheckpoint(run.training_checkpoint(job.name), about(job), prefixed_log(log, job.name))
    callback = job.callback(job.name) if job.callback else TrainingCallback()
    with torch.random.fork_rng(devices=[]), closing(callback):
        torch.manual_seed(job.seed)
        genotype, spec = job.architecture
        network = Network(spec, genotype, auxiliary=job.recipe.auxiliary > 0)
        if job.inherit and not _inherit(run, network):
            why = "the SuperNet has none for a network of its size"
            if not run.configuration.training.trains:
                why = "the search trained no shared weights"
            log(f"{job.name} starts from fresh weights: {why}")
        weights_given = job.start.read_weights()
        if weights_given is not None:
            same = weights_given.give(network, data.class_names)
            classifier = "" if same else ", with a fresh classifier, as the classes are others"
            log(f"{job.name} starts from the weights in {job.start.init}{classifier}")
        with (
            enough_memory_to_train(job.recipe, job.device, job.name, replays=job.stepping.replay == "auto"),
            deterministic_algorithms(job.deterministic),
        ):
            result = train_network(
                network,
                data,
                job.recipe,
                seed=job.seed,
                device=job.device,
                process_group=process_group,
                checkpoint=checkpoint,
                progress=as_stage(progress, job.name),
                callbacks=[_OldEvents(run.path / FOLDER / job.name), callback],
                teacher=job.start.read_teacher(),
                stepping=job.stepping,
                threads=job.threads,
                log=prefixed_log(log, job.name),
            )
        _keep(job, data, network, result)
        weights, last = run.weights_path(job.name), run.last_weights_path(job.name)
        callback.on_saved([path for path in (weights, weights.with_suffix(".json"), last) if path.is_file()])
    checkpoint.remove()


def _keep(job: TrainingJob, data: DataBundle, network: Network, result: TrainingResult) -> None:
    """Write the weights of the trained ``network``, and then their record."""
    run = RunFolder(job.run)
    genotype, spec = job.architecture
    # If killed in between, weights without a record are ignored, and the training resumes from the checkpoint.
    run.forget_trained(job.name)
    model = model_of(run.training_data, network, job.recipe, result.test)
    weights_digest = _save_model(model, run.weights_path(job.name))
    last_digest = None if result.last is None else _save(result.last, run.last_weights_path(job.name))
    run.write_trained(
        TrainedNetwork(
            job.name,
            genotype,
            spec,
            result.test,
            result.loss,
            job.recipe,
            job.seed,
            best_epoch=result.best_epoch,
            held_out=result.held_out,
            data=job.data.source,
            data_digest=job.data_digest,
            test_digest=job.test_digest,
            inherit=job.inherit,
            class_names=data.class_names,
            weights_digest=weights_digest,
            last_weights_digest=last_digest,
            init=job.start.init_digest,
            teacher=job.start.teacher_about,
            deterministic=job.deterministic,
            threads=result.threads,
            compile=job.stepping.compiled,
        )
    )


class _OldEvents(TrainingCallback):
    """Removes the events of an earlier training with other settings, even if the new training writes none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_start(self, epochs_done: int) -> None:
        if not epochs_done:
            remove_events(self._folder)


def model_of(manifest: DataManifest, network: Network, recipe: Recipe, test: Evaluation) -> Model:
    """Return ``network``, trained by ``recipe`` on the images of ``manifest``, with its card."""
    return Model.of(
        network,
        Preprocessing(manifest.mean, manifest.std, network.spec.resolution, manifest.decoding),
        manifest.class_names,
        Figures(test.accuracy, test.total, augmentations=Augmentations.of(recipe)),
    )


def _save_model(model: Model, path: Path) -> str:
    """Write the trained ``model`` with its card, so that the file needs no run; return the file's digest."""
    content, _ = model.to_bytes()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return digest(content)


def _save(weights: Mapping[str, Tensor], path: Path) -> str:
    """Write ``weights`` without those of the auxiliary head, which is never exported; return the file's digest."""
    return save_weights({name: value for name, value in weights.items() if not name.startswith(AUXILIARY)}, path)


def has_shared_weights(configuration: RunConfiguration, spec: NetworkSpec) -> bool:
    """Return whether the SuperNet of a run has weights for networks of ``spec``."""
    if configuration.proxy or not configuration.training.trains:
        return False
    if configuration.sizes is not None:
        return configuration.sizes.has(spec)
    own = (configuration.supernet_channels, configuration.supernet_layers) == (None, None)
    return own and spec == configuration.network


def _inherit(run: RunFolder, network: Network) -> bool:
    """Copy the SuperNet's weights to ``network`` if it has some of its size; return whether it has."""
    configuration = run.configuration
    if not has_shared_weights(configuration, network.spec) or not run.checkpoint.is_file():
        return False
    supernet = SuperNet(configuration.network, configuration.training.share)
    supernet.load_state_dict(supernet_weights(run.checkpoint))
    supernet.hand_over(network)
    return True
