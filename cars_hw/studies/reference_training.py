"""Training torchvision's networks as a run's networks are trained, and keeping what they came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import torch
from torch import nn

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle
from cars_hw.errors import RunError
from cars_hw.executors.spread import Spread, spread
from cars_hw.pipeline.run_data import RunData, load_for_training
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Log, Progress, as_stage, prefixed_log
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.references import make
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.standalone import copy_of_weights, train_network
from cars_hw.training.weights import read_weights, save_weights

MOMENTUM: Final = 0.1
"""How fast running averages of normalisations move, in all alike: MNASNet's own 0.0003 is for long trainings."""


REFERENCE: Final = ChecksummedFormat("cars-hw trained reference", 1, "train-again", RunError)


@dataclass(frozen=True)
class ReferenceRecord:
    """A finished training: its ``about``, the test accuracy (a fraction), and the digest of its weights.

    ``held_out`` are the right answers among the held-out images; None if none were held out. ``threads`` is the
    number of threads on a CPU, which decides how sums are rounded; None on a GPU, and where it was not kept.
    """

    about: dict[str, Any]
    accuracy: float
    held_out: ClassCounts | None
    loss: float
    weights_digest: str
    threads: int | None = None

    ADDED: ClassVar = frozenset({"threads"})


class TrainedReference(NamedTuple):
    """A network of torchvision with trained weights, and its accuracies: fractions of the test images and of the
    held-out images, None where none were held out."""

    name: str
    network: nn.Module
    accuracy: float
    held_out: float | None


@dataclass(frozen=True)
class References:
    """What all references are trained as: on the images ``data`` of ``run``; ``jobs`` networks side by side."""

    run: RunFolder
    data: RunData
    recipe: Recipe
    seed: int
    device: str
    jobs: int | None
    progress: Progress
    log: Log
    execution: Execution = HERE


@dataclass(frozen=True)
class _Task:
    """The training of torchvision's ``model``; ``about`` is all that decides the weights, but for the machine."""

    name: str
    model: str
    spec: NetworkSpec
    folder: Path
    run: Path
    source: DataSource
    recipe: Recipe
    seed: int
    device: str
    about: dict[str, Any]

    @property
    def file_name(self) -> str:
        # Some file systems have no colon in a name.
        return self.name.replace(":", "-")

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.file_name}.safetensors"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.file_name}.json"


def train_references(
    models: Mapping[str, str], spec: NetworkSpec, folder: Path, settings: References
) -> list[TrainedReference]:
    """Return torchvision's ``models`` for the images and classes of ``spec``, trained, with their accuracies.

    ``models`` are by the names that they are given here, by which their weights are kept in ``folder``. What is
    there with the same settings is not trained again, and what was interrupted resumes after its last epoch. Each
    network has as many threads of a CPU as if all were trained now.

    Raises:
        TrainingError: the loss of one is no longer a number.
        RunError: a checkpoint cannot be read.
    """
    tasks = [_task(name, model, spec, folder, settings) for name, model in models.items()]
    waiting = [task for task in tasks if _kept(task) is None]
    jobs = None if settings.jobs is None else min(settings.jobs, max(1, len(tasks)))
    how = Spread(folder, settings.device, jobs, settings.execution)
    # By the number of all networks, as in the training of a run's networks: the number of threads changes how sums
    # are rounded, so that a network must not have another one because others are finished.
    if how.here(len(tasks)):
        for task in waiting:
            _train(task, settings.data.bundle, settings.progress, settings.log)
    else:
        spread(_train_in_worker, waiting, how, settings.progress, settings.log, of=len(tasks))
    found = []
    for task in tasks:
        kept = _kept(task)
        if kept is None:
            raise RunError(
                f"{task.weights} was removed or changed while networks were trained; run the command again"
            )
        found.append(kept)
    return found


def waiting_references(
    models: Mapping[str, str], spec: NetworkSpec, folder: Path, settings: References
) -> dict[str, str]:
    """Return those of ``models`` that :func:`train_references` would train, as ``folder`` lacks their weights."""
    return {
        name: model for name, model in models.items() if _kept(_task(name, model, spec, folder, settings)) is None
    }


def _task(name: str, model: str, spec: NetworkSpec, folder: Path, settings: References) -> _Task:
    about = {
        "model": model,
        "network": json.dumps(unstructure(spec)),
        "data": settings.data.digest,
        "seed": settings.seed,
        **{f"recipe.{name}": value for name, value in asdict(settings.recipe).items()},
    }
    return _Task(
        name,
        model,
        spec,
        folder,
        settings.run.path,
        settings.data.source,
        settings.recipe,
        settings.seed,
        settings.device,
        about,
    )


def _made(task: _Task) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        network = make(task.model, task.spec.input_shape, task.spec.classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return network


def _kept(task: _Task) -> TrainedReference | None:
    """Return the network with the weights that the same training came to, if they are there."""
    try:
        record = REFERENCE.read_record(task.record, ReferenceRecord)
        if record.about != task.about:
            return None
        network = _made(task)
        weights = read_weights(task.weights, record.weights_digest)
        known = network.state_dict()
        if known.keys() != weights.keys():
            return None
        # Into what the network gave, which has the versions of its parts: MNASNet asks for them.
        known.update(weights)
        network.load_state_dict(known)
    except (RunError, RuntimeError):
        # What cannot be read is trained again.
        return None
    held_out = record.held_out
    return TrainedReference(task.name, network, record.accuracy, None if held_out is None else held_out.accuracy)


def _train_in_worker(task: _Task, progress: Progress, log: Log) -> None:
    data = load_for_training(RunFolder(task.run), task.source, accept=None, download=False)
    _train(task, data.bundle, progress, log)


def _train(task: _Task, data: DataBundle, progress: Progress, log: Log) -> None:
    checkpoint = TrainingCheckpoint(
        task.folder / "checkpoint" / f"{task.file_name}.pt", task.about, prefixed_log(log, task.name)
    )
    network = _made(task)
    # The training seeds torch's generator, which is not its own.
    with torch.random.fork_rng(devices=[]):
        result = train_network(
            network,
            data,
            task.recipe,
            seed=task.seed,
            device=task.device,
            checkpoint=checkpoint,
            progress=as_stage(progress, task.name),
        )
    # The record goes first and comes last: weights without one are not used.
    task.record.unlink(missing_ok=True)
    weights_digest = save_weights(copy_of_weights(network), task.weights)
    REFERENCE.write_record(
        task.record,
        ReferenceRecord(
            task.about, result.accuracy, result.held_out, result.loss, weights_digest, threads=result.threads
        ),
    )
    checkpoint.remove()
