"""Learning curves: the accuracy of a network after every epoch of its training from scratch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import unstructure
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle
from cars_hw.errors import RunError
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.progress import Log, Progress, as_stage, no_log, prefixed_log, silent
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.standalone import NetworkTraining, accuracy_on

DRAWS: Final = 300
"""So many architectures are drawn to know what sizes the space has."""


@dataclass(frozen=True)
class LearningCurve:
    """A network and its accuracy after every epoch, a fraction of the test images.

    ``parameters`` are those of the exported file.
    """

    name: str
    genotype: Genotype
    parameters: int
    accuracies: tuple[float, ...]


CURVE: Final = ChecksummedFormat("cars-hw learning curve", 1, "train-again", RunError)


@dataclass(frozen=True)
class CurveRecord:
    """What a file holds of a curve: the ``about`` of its training, and the accuracies."""

    about: dict[str, Any]
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """What the networks of a figure are trained as, all alike; see :class:`~cars_hw.config.training.Recipe`."""

    spec: NetworkSpec
    data: DataBundle
    recipe: Recipe
    seed: int = 0
    device: str = "cpu"


def three_sizes(space: GenotypeSpace, spec: NetworkSpec, seed: int = 0) -> dict[str, Genotype]:
    """Return the smallest, the middle and the largest of :data:`DRAWS` architectures, by parameters."""
    rng = np.random.default_rng((seed, 2))
    drawn = [space.sample(rng) for _ in range(DRAWS)]
    drawn.sort(key=lambda genotype: network_cost(spec, genotype).parameters)
    return {"small": drawn[0], "middle": drawn[len(drawn) // 2], "large": drawn[-1]}


def learning_curve(
    name: str,
    genotype: Genotype,
    training: Training,
    folder: Path,
    *,
    progress: Progress = silent,
    log: Log = no_log,
) -> LearningCurve:
    """Train ``genotype`` from scratch and return its curve, which is kept in ``folder`` as ``name``.

    A curve with the same settings is kept; an interrupted training resumes after its last epoch.

    Raises:
        TrainingError: the loss is no longer a number.
        RunError: its checkpoint cannot be read.
        InputError: the recipe is not for the device.
    """
    about = _about(genotype, training)
    path = folder / f"{name}.json"
    kept = _kept(path, about)
    parameters = network_cost(training.spec, genotype).parameters
    if kept is None:
        checkpoint = TrainingCheckpoint(folder / f"{name}.pt", about, prefixed_log(log, name))
        kept = _train(genotype, training, checkpoint, as_stage(progress, name))
        CURVE.write_record(path, CurveRecord(about, tuple(kept)))
        checkpoint.remove()
    return LearningCurve(name, genotype, parameters, tuple(kept))


def _train(
    genotype: Genotype, settings: Training, checkpoint: TrainingCheckpoint, progress: Progress
) -> list[float]:
    recipe = settings.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Network(settings.spec, genotype, auxiliary=recipe.auxiliary > 0)
        training = NetworkTraining(network, settings.data, recipe, seed=settings.seed, device=settings.device)
        accuracies: list[float] = []
        state = checkpoint.load()
        if state is not None:
            accuracies = list(state["accuracies"])
            training.restore(state)
        while training.epoch < recipe.epochs:
            training.run_epoch(progress)
            # Nothing is chosen by it, so the test images may be looked at after every epoch.
            accuracies.append(
                accuracy_on(training.evaluated, settings.data.test, settings.data, device=settings.device)
            )
            checkpoint.save({**training.state(), "accuracies": accuracies})
    return accuracies


def _about(genotype: Genotype, training: Training) -> dict[str, str | float | bool | None]:
    """Return all that decides a curve, but for the machine."""
    data = training.data
    return {
        "genotype": json.dumps(genotype.to_dict()),
        "network": json.dumps(unstructure(training.spec)),
        "data": f"{data.name}: {len(data.train)} training images",
        "seed": training.seed,
        **{f"recipe.{name}": value for name, value in asdict(training.recipe).items()},
    }


def _kept(path: Path, about: dict[str, str | float | bool | None]) -> list[float] | None:
    """Return the curve at ``path`` if it is whole and of the training that ``about`` says."""
    try:
        record = CURVE.read_record(path, CurveRecord)
    except RunError:
        # What cannot be read is made again.
        return None
    return list(record.accuracies) if record.about == about else None
