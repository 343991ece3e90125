"""The training of one network in a rung of a final stage."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import Recipe, StepReplay
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import TrainingError
from cars_hw.nn.network import Network
from cars_hw.pipeline.final_images import ImagesOf, load_images
from cars_hw.pipeline.memory import enough_memory_to_train
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Log, Progress, no_log
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.network_step import Stepping
from cars_hw.training.standalone import NetworkTraining, counts_on, require_resolution
from cars_hw.training.threads import torch_threads


@dataclass(frozen=True)
class Task:
    """The training of one network in one rung: until it has been trained for ``until`` epochs."""

    images: ImagesOf
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


def train_task(task: Task, progress: Progress, log: Log) -> None:
    """Train the network of ``task`` to the end of its rung, evaluate it, and write its right answers by class."""
    run = RunFolder(task.images.run)
    data, judged = load_images(task.images)
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


def _about(task: Task) -> dict[str, str | float | bool | None]:
    return {
        "network": repr(task.spec),
        "genotype": repr(task.genotype),
        "recipe": repr(task.recipe),
        "seed": task.seed,
    }


def _nothing_right(judged: Dataset, data: DataBundle) -> ClassCounts:
    images = torch.bincount(judged.labels.cpu(), minlength=data.classes).tolist()
    return ClassCounts(tuple(images), (0,) * data.classes)
