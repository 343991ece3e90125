"""The training of a single network, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.callbacks import EpochFigures, TrainingCallback
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import MOST_CLASSES, ClassCounts, Evaluation
from cars_hw.config.training import Recipe
from cars_hw.data import (
    Augmentation,
    DataBundle,
    Dataset,
    EvaluationBatches,
    TrainingBatches,
    stratified_split,
)
from cars_hw.data.streamed import StreamedDataset
from cars_hw.errors import InputError, TrainingError
from cars_hw.nn.network import Network
from cars_hw.progress import Log, Progress, no_log, silent
from cars_hw.progress_line import show
from cars_hw.training.checkpoints import TrainingCheckpoint, from_bytes, to_bytes
from cars_hw.training.losses import weights_of_classes
from cars_hw.training.moving_average import MovingAverage
from cars_hw.training.network_step import STEPS_BEFORE_REPLAYS, NetworkStep, Stepping
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.recorder import Recorder
from cars_hw.training.teacher import TeacherNetwork
from cars_hw.training.threads import torch_threads, training_threads

EVALUATION_BATCH = 500

EVALUATION_BYTES = 32 << 20
"""On a CPU, the normalised images of a batch take at most so much memory: 500 images of 64x64 pixels do."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    ``test`` is the evaluation on the test images; ``loss`` is the last epoch's mean. ``best_epoch`` counts from 1;
    ``held_out`` has its right answers among the held-out images, None without held-out images. ``last`` has the
    weights after the last epoch, on the CPU, where another epoch was the best. ``threads`` is the number of threads
    of the training on a CPU; None on a GPU.
    """

    test: Evaluation
    loss: float
    best_epoch: int
    held_out: ClassCounts | None = None
    last: Weights | None = None
    threads: int | None = None

    @property
    def accuracy(self) -> float:
        """The accuracy, a fraction of the test images."""
        return self.test.accuracy

    @property
    def held_out_accuracy(self) -> float | None:
        """The accuracy at the best epoch, a fraction of the held-out images."""
        return None if self.held_out is None else self.held_out.accuracy


@dataclass(frozen=True)
class _Best:
    epoch: int
    counts: ClassCounts
    weights: Weights


class NetworkTraining:
    """The training of a network, in place: its state, and the work of one epoch.

    The network may be any module that returns logits of images; only a :class:`Network` has an auxiliary head and
    drop-path.

    Each process of ``process_group`` has the same batches and trains on every ``world``-th image of them. Gradients
    are summed, so that all processes have the same weights. Batch normalisation uses the images of its own process,
    and its running averages are averaged over the processes after every epoch.

    With a ``teacher``, a part of each label is its answer. It is asked once for all training images, which
    ``progress`` counts; ``log`` tells how well it answers. For ``stepping``, ``new_recorder`` and what else ``log``
    tells, see :class:`cars_hw.training.network_step.NetworkStep`.

    Raises:
        InputError: the device does not support the precision, or batches are too small for the processes.
        DatasetError: there are too few images.
    """

    def __init__(
        self,
        network: nn.Module,
        data: DataBundle,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        process_group: ProcessGroup = SINGLE_PROCESS,
        teacher: TeacherNetwork | None = None,
        stepping: Stepping = Stepping(),  # noqa: B008 -- it is frozen
        new_recorder: Callable[[], Recorder] | None = None,
        progress: Progress = silent,
        log: Log = no_log,
    ) -> None:
        if recipe.batch_size < 2 * process_group.world:
            raise InputError(
                f"a batch of {recipe.batch_size} images cannot be shared by {process_group.world} processes: "
                "each needs 2",
                remedy="larger-batch",
            )
        self.device = process_group.device if process_group.world > 1 else torch.device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.process_group = process_group
        # A validation part that is given takes the place of images that are held out.
        train, self.held_out = (
            hold_out(data.train, recipe.hold_out, seed)
            if data.validation is None
            else (data.train, data.validation)
        )
        self.stored = isinstance(train, StreamedDataset)
        self.batches = TrainingBatches(
            train,
            recipe.batch_size,
            data.mean,
            data.std,
            Augmentation(
                recipe.crop_padding,
                recipe.mirror,
                recipe.cutout,
                recipe.crop_scale,
                recipe.colour_jitter,
                recipe.randaugment,
                recipe.magnitude,
                recipe.mixup,
                recipe.cutmix,
                data.classes,
            ),
            device=self.device,
            targets=None if teacher is None else teacher.labels(train, data, self.device, progress, log),
        )
        # Batch normalisation needs two images in every process: a smaller last batch is left out.
        rest = len(train) - (len(self.batches) - 1) * recipe.batch_size
        self.steps = len(self.batches) - (rest < 2 * process_group.world)
        if self.steps == 0:
            raise InputError(
                f"{len(train)} images cannot be shared by {process_group.world} processes: each needs 2"
            )
        weights = weights_of_classes(train.labels, data.classes, recipe.class_weights)
        self.averaged: MovingAverage | None = None
        if recipe.ema > 0:
            self.averaged = MovingAverage(network, recipe.ema)
        self.step = NetworkStep(
            self.network,
            recipe,
            self.device,
            class_weights=None if weights is None else weights.to(self.device),
            averaged=self.averaged,
            process_group=process_group,
            stepping=stepping,
            new_recorder=new_recorder,
            log=log,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.loss = 0.0
        self.held_out_accuracy: float | None = None
        self.best: _Best | None = None

    @property
    def figures(self) -> EpochFigures:
        """The figures of the last epoch."""
        return EpochFigures(self.epoch, self.loss, self.step.rate, self.held_out_accuracy)

    @property
    def first_steps(self) -> int:
        """The number of steps that take longer than all later ones."""
        return STEPS_BEFORE_REPLAYS if self.step.records else 1

    @property
    def evaluated(self) -> nn.Module:
        """The network whose weights are evaluated and exported: the moving average, if there is one."""
        if self.averaged is None:
            return self.network
        return self.averaged.module

    def run_epoch(self, progress: Progress = silent) -> None:
        """Train for one epoch; ``progress`` counts the steps of all epochs.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        recipe, process_group = self.recipe, self.process_group
        total = recipe.epochs * self.steps
        self.network.train()
        self.step.begin_epoch(recipe.drop_path * self.epoch / recipe.epochs)
        # Drop-path draws from torch's generator of the device. The seed depends on the epoch, so that an epoch can
        # be repeated, and on the process, since processes have different images.
        torch.manual_seed(_seed_of(self.seed, self.epoch, process_group.rank))
        loss = torch.zeros((), device=self.device)
        for step, (images, labels) in enumerate(self.batches.epoch(self.generator)):
            if step == self.steps:
                break
            progress("training", self.epoch * self.steps + step, total)
            self.step.set_rate(recipe.rate(self.epoch + step / self.steps))
            loss += self.step(images, labels)
        self.loss = float(process_group.add(loss)) / self.steps
        if not np.isfinite(self.loss):
            raise TrainingError(
                f"the loss is {self.loss} in epoch {self.epoch + 1} of {recipe.epochs}",
                remedy="lower-learning-rate",
            )
        self._unite_buffers()
        self.epoch += 1
        self._choose()
        progress("training", self.epoch * self.steps, total)

    def state(self) -> dict[str, Any]:
        """Return the complete state of the training, for :meth:`restore`; tensors are not copied."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "network": self.network.state_dict(),
            **self.step.state(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "generator": self.generator.get_state(),
            "stored": self.stored,
            "best": {**vars(self.best), "counts": unstructure(self.best.counts)} if self.best else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore ``state``, which :meth:`state` returned for the same network and recipe.

        Raises:
            InputError: its images were in a store, and here they are in memory, or the other way round.
        """
        # Images in a store are shuffled by blocks, so that the same generator gives another order. States of
        # earlier versions do not tell which they had.
        if state.get("stored", self.stored) != self.stored:
            began, now = ("in a store", "in memory") if state["stored"] else ("in memory", "in a store")
            raise InputError(
                f"the training began with images {began}, and here they are {now}, in another order",
                remedy="same-data-memory",
            )
        self.network.load_state_dict(state["network"])
        self.step.restore(state)
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]
        self.loss = state["loss"]
        best = state["best"]
        self.best = _Best(**{**best, "counts": structure(best["counts"], ClassCounts)}) if best else None

    def finish(self) -> TrainingResult:
        """Load the best weights into the network and return the result with their evaluation.

        The test images are used only here, after every choice has been made.
        """
        self.step.end()
        last = copy_of_weights(self.evaluated)
        epoch = self.best.epoch if self.best else self.epoch
        self.network.load_state_dict(self.best.weights if self.best else last)
        return TrainingResult(
            evaluation_on(self.network, self.data.test, self.data, device=self.device),
            self.loss,
            epoch,
            held_out=self.best.counts if self.best else None,
            last=last if epoch != self.epoch else None,
        )

    def _unite_buffers(self) -> None:
        """Average the running averages of batch normalisation over the processes."""
        if self.process_group.world == 1:
            return
        networks = [self.network] if self.averaged is None else [self.network, self.averaged.module]
        buffers = [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        mean = (
            self.process_group.add(torch.cat([buffer.reshape(-1) for buffer in buffers])) / self.process_group.world
        )
        for buffer, part in zip(buffers, torch.split(mean, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view(buffer.shape))

    def _choose(self) -> None:
        """Keep the weights if no earlier epoch was better on the held-out images."""
        if self.held_out is None:
            return
        counts = counts_on(self.evaluated, self.held_out, self.data, device=self.device)
        self.held_out_accuracy = counts.accuracy
        objective = self.recipe.objective
        # Of equal epochs the later one, which has trained for longer.
        if self.best is None or counts.score(objective) >= self.best.counts.score(objective):
            self.best = _Best(self.epoch, counts, copy_of_weights(self.evaluated))


def require_resolution(network: nn.Module, data: DataBundle) -> None:
    """Check that ``data`` has the resolution of ``network``, if this is a :class:`Network`.

    A network computes with images of any size, so that others would be noticed nowhere.

    Raises:
        ValueError: it has another one.
    """
    if isinstance(network, Network) and network.spec.resolution != data.resolution:
        raise ValueError(
            f"{data.name} is loaded at {data.resolution} pixels, the network has {network.spec.pixels}"
        )


def train_network(
    network: nn.Module,
    data: DataBundle,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    process_group: ProcessGroup = SINGLE_PROCESS,
    checkpoint: TrainingCheckpoint | None = None,
    progress: Progress = show,
    callbacks: Sequence[TrainingCallback] = (),
    teacher: TeacherNetwork | None = None,
    stepping: Stepping = Stepping(),  # noqa: B008 -- it is frozen
    threads: int = 0,
    log: Log = no_log,
) -> TrainingResult:
    """Train ``network`` in place and leave it with its best weights.

    ``progress`` counts the steps of all epochs. ``callbacks`` are called in the leading process. For ``teacher``
    and ``stepping``, see :class:`NetworkTraining`. ``threads`` is the number of threads on a CPU; 0 leaves it to
    :func:`~cars_hw.training.threads.training_threads`.

    ``checkpoint`` is written after every epoch. A training that was killed resumes after its last finished epoch
    and ends with the same weights. In a ``process_group`` the leading process reads and writes the checkpoint.

    Raises:
        TrainingError: the loss is no longer a number; the checkpoint is that of the epoch before.
        RunError: the checkpoint cannot be read.
        InputError: see :class:`NetworkTraining`.
    """
    require_resolution(network, data)
    checkpoint = checkpoint if process_group.leads else None
    kept = None if checkpoint is None else checkpoint.load()
    number = 0
    if torch.device(device).type == "cpu":
        if process_group.leads:
            number = training_threads(network, recipe.batch_size // process_group.world, threads, kept, log)
        number = int(process_group.broadcast(str(number).encode()))
    with torch_threads(number):
        training = NetworkTraining(
            network,
            data,
            recipe,
            seed=seed,
            device=device,
            process_group=process_group,
            teacher=teacher,
            stepping=stepping,
            progress=progress,
            log=log,
        )
        if kept is not None:
            training.restore(kept)
        if process_group.world > 1:
            # The others may have other initial weights, and may run on machines without access to the checkpoint.
            begun = process_group.broadcast(to_bytes(training.state()) if process_group.leads else None)
            training.restore(from_bytes(begun))
        callbacks = callbacks if process_group.leads else ()
        for callback in callbacks:
            callback.on_start(training.epoch)
        while training.epoch < recipe.epochs:
            training.run_epoch(progress)
            for callback in callbacks:
                callback.on_epoch(training.figures)
            if checkpoint is not None:
                checkpoint.save({**training.state(), "threads": number})
        result = replace(training.finish(), threads=number or None)
        for callback in callbacks:
            callback.on_end(result.best_epoch, result.accuracy)
    return result


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return ``dataset`` without ``share`` of each class, and that share; all of it and None where it is 0.

    Raises:
        InputError: the share is less than one image.
    """
    if share == 0:
        return dataset, None
    generator = torch.Generator().manual_seed(seed)
    train, held_out = stratified_split(dataset.labels, [1 - share, share], generator)
    if len(held_out) == 0:
        raise InputError(f"{share:g} of {len(dataset)} training images is less than one image; hold out more, or 0")
    return dataset.select(train), dataset.select(held_out)


def accuracy_on(
    network: nn.Module, dataset: Dataset, data: DataBundle, *, device: torch.device | str = "cpu"
) -> float:
    """Return the accuracy on ``dataset``, a fraction; see :func:`counts_on`."""
    return counts_on(network, dataset, data, device=device).accuracy


def counts_on(
    network: nn.Module, dataset: Dataset, data: DataBundle, *, device: torch.device | str = "cpu"
) -> ClassCounts:
    """Return what ``network`` gets right of ``dataset``, by class, with its running averages, and its mean loss.

    Images are normalised as those of ``data``.
    """
    labels, answers, loss = _answers(network, dataset, data, device)
    return ClassCounts(*_counted(labels, answers, data.classes), loss=loss)


def evaluation_on(
    network: nn.Module, dataset: Dataset, data: DataBundle, *, device: torch.device | str = "cpu"
) -> Evaluation:
    """Return the evaluation of ``network`` on ``dataset``, image by image; see :func:`counts_on`."""
    labels, answers, _ = _answers(network, dataset, data, device)
    classes, confusion = data.classes, None
    if classes <= MOST_CLASSES:
        pairs = torch.bincount(labels * classes + answers, minlength=classes**2)
        confusion = tuple(map(tuple, pairs.view(classes, classes).tolist()))
    correct = np.packbits((labels == answers).numpy()).tobytes().hex()
    return Evaluation(*_counted(labels, answers, classes), confusion, correct, _digest(dataset))


@torch.inference_mode()
def _answers(
    network: nn.Module, dataset: Dataset, data: DataBundle, device: torch.device | str
) -> tuple[Tensor, Tensor, float | None]:
    """Return each image's class and the network's answer, int64 of shape ``(images,)``, and the mean loss in nats.

    Both tensors are on the CPU. The loss is None if it is infinite or not a number.
    """
    network.eval()
    most = EVALUATION_BATCH
    if torch.device(device).type == "cpu":
        most = min(most, max(1, EVALUATION_BYTES // (4 * math.prod(dataset.shape))))
    batches = EvaluationBatches(dataset, most, data.mean, data.std, device)
    answers, losses = [], []
    for images, labels in batches:
        logits = network(images)
        answers.append(logits.argmax(dim=1))
        losses.append(F.cross_entropy(logits.float(), labels, reduction="sum").double())
    loss = float(torch.stack(losses).sum()) / len(batches.labels)
    return batches.labels.cpu(), torch.cat(answers).cpu(), loss if math.isfinite(loss) else None


def _counted(labels: Tensor, answers: Tensor, classes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the number of images of each class, and how many of these have the right answer."""
    images, right = (torch.bincount(part, minlength=classes) for part in (labels, labels[labels == answers]))
    return tuple(images.tolist()), tuple(right.tolist())


def _digest(dataset: Dataset) -> str:
    """Return the SHA-256 of the images and their classes."""
    found = sha256()
    for images in dataset.pieces():
        found.update(images.contiguous().numpy().data)
    found.update(dataset.labels.cpu().contiguous().numpy().data)
    return found.hexdigest()


def copy_of_weights(network: nn.Module) -> Weights:
    """Return the weights and buffers of ``network`` as they are now, on the CPU."""
    # torch's own mapping has the versions of the modules, without which some modules cannot be loaded.
    weights: Weights = network.state_dict()
    for name, value in weights.items():
        weights[name] = value.detach().cpu().clone()
    return weights


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
