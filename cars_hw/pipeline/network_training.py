"""The training of one network of a run, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from cars_hw.callbacks import TrainingCallback
from cars_hw.config.checksummed import digest
from cars_hw.config.evaluation import Evaluation
from cars_hw.config.files import replacing
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle
from cars_hw.data.manifest import DataManifest
from cars_hw.export.card import Augmentations, Figures, Preprocessing
from cars_hw.export.model import AUXILIARY, Model
from cars_hw.nn.network import Network
from cars_hw.pipeline.inherited_weights import inherit
from cars_hw.pipeline.memory import enough_memory_to_train
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.tensorboard import FOLDER, remove_events
from cars_hw.pipeline.training_job import TrainingJob, about
from cars_hw.progress import Log, Progress, as_stage, prefixed_log
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.standalone import TrainingResult, train_network
from cars_hw.training.weights import save_weights


def train_job(
    job: TrainingJob, data: DataBundle, progress: Progress, log: Log, process_group: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Train the network of ``job`` on ``data``, after its last epoch if it was begun; write its files."""
    run = RunFolder(job.run)
    checkpoint = TrainingCheckpoint(run.training_checkpoint(job.name), about(job), prefixed_log(log, job.name))
    callback = job.callback(job.name) if job.callback else TrainingCallback()
    with torch.random.fork_rng(devices=[]), closing(callback):
        torch.manual_seed(job.seed)
        genotype, spec = job.architecture
        network = Network(spec, genotype, auxiliary=job.recipe.auxiliary > 0)
        if job.inherit and not inherit(run, network):
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
