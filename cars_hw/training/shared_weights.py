"""The SuperNet in a search: training of its weights by Eq. 3 of CARS, and evaluation of architectures."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import SharedTraining, cosine
from cars_hw.data import (
    Augmentation,
    DataBundle,
    Dataset,
    EvaluationBatches,
    TrainingBatches,
    mixed_order,
    stratified_split,
)
from cars_hw.nn.paths import Common
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.training.losses import weights_of_classes
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.recorded_passes import RECORD_AT, CudaRecorder, GraphedPasses, Passes, PlainPasses, Recorder

Batch = tuple[Tensor, Tensor]

_ROOM: Final = {False: 256 << 20, True: 2 << 30}
"""Bytes for results that architectures share, in main memory (False) and in GPU memory (True)."""


class SuperNetWeights:
    """Trains and evaluates a SuperNet: an implementation of :class:`cars_hw.evolution.search.SharedWeights`.

    The training images are split once, stratified by ``seed``: one part trains the weights, the other
    evaluates the architectures. If ``data`` has a validation part, that evaluates them, and all training images
    train. The processes of ``process_group`` share the work and hold the same weights.
    ``recorder`` records passes and replays them; the default is CUDA graphs on a GPU and none elsewhere.
    """

    def __init__(
        self,
        supernet: SuperNet,
        data: DataBundle,
        settings: SharedTraining,
        *,
        epochs: int,
        seed: int,
        device: torch.device | str = "cpu",
        process_group: ProcessGroup = SINGLE_PROCESS,
        recorder: Recorder | None = None,
    ) -> None:
        self.process_group = process_group
        self.device = torch.device(device)
        self.supernet = supernet.to(self.device).to(memory_format=torch.channels_last)
        self.settings = settings
        self.epochs = epochs
        self.epoch = 0
        splitter = torch.Generator().manual_seed(seed)
        train, valid = judging_parts(data, settings.validation_fraction, splitter)
        # Every section of this order has all classes, so the subset is its beginning.
        valid = valid.select(mixed_order(valid.labels, splitter))
        subset = valid.select(torch.arange(min(settings.evaluation_images or len(valid), len(valid))))
        self.batches = TrainingBatches(
            train,
            settings.batch_size,
            data.mean,
            data.std,
            Augmentation(settings.crop_padding, settings.mirror, settings.cutout),
            device=self.device,
        )
        self._subset, self._full = (
            EvaluationBatches(part, settings.evaluation_batch, data.mean, data.std, self.device)
            for part in (subset, valid)
        )
        self.parameters = list(self.supernet.parameters())
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=on_gpu or recorder is not None,
        )
        self._fill_momenta()
        if recorder is None and on_gpu:
            recorder = CudaRecorder()
        weights = weights_of_classes(train.labels, data.classes, settings.class_weights)
        # On the device once: a recorded pass reads the same tensor at every replay.
        weights = None if weights is None else weights.to(self.device)
        self.passes: Passes = (
            PlainPasses(self.supernet, self._autocast, weights)
            if recorder is None
            else GraphedPasses(self.supernet, self._autocast, recorder, weights)
        )
        self.generator = torch.Generator().manual_seed(seed + 1)
        self._before = self._copied_weights()

    @property
    def records(self) -> bool:
        """Whether passes of an architecture are recorded and replayed."""
        return isinstance(self.passes, GraphedPasses)

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:
        """Train one epoch and return its mean loss.

        Each minibatch draws B architectures, and the gradient is the mean over them (Eq. 3).
        """
        settings = self.settings
        rate = cosine(self.epoch / self.epochs, settings.learning_rate, settings.learning_rate_min)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.supernet.train()
        total = torch.zeros((), device=self.device)
        with torch_threads(settings.threads):
            for images, labels in self.batches.epoch(self.generator):
                total += self.step(images, labels, draw(settings.architectures))
        self.epoch += 1
        return float(self.process_group.add(total)) / len(self.batches)

    def step(self, images: Tensor, labels: Tensor, architectures: Sequence[Architecture]) -> Tensor:
        """Take one step on a minibatch and return this process's part of the loss, detached.

        Parameters that no drawn architecture uses keep a gradient of None, and the optimiser skips them: their
        momentum and their values do not change.
        """
        self.passes.clear()
        total = torch.zeros((), device=self.device)
        for architecture in self.process_group.share(architectures):
            total += self.passes.run(images, labels, architecture.genotype, 1 / len(architectures))
        self.process_group.add_gradients(self.parameters)
        touched = [one for one in self.parameters if one.grad is not None]
        torch.nn.utils.clip_grad_norm_(touched, self.settings.gradient_clip)
        (group,) = self.optimizer.param_groups
        group["params"] = touched
        try:
            self.optimizer.step()
        finally:
            group["params"] = self.parameters
        return total

    def rehearse(self, genotype: Genotype) -> None:
        """Run a training pass of each kind and an evaluation of ``genotype``, to test the memory; change no state.

        Raises:
            torch.OutOfMemoryError: the memory is too small.
        """
        images, labels = next(self.batches.epoch(torch.Generator().manual_seed(0)))
        self.supernet.train()
        # Often enough that the pass is recorded and replayed, where passes are recorded.
        for _ in range(RECORD_AT + 1):
            self.passes.run(images, labels, genotype, 1.0)
        self.passes.clear()
        evaluate(self.supernet, [genotype], itertools.islice(self._full, 1), self._autocast)

    def remember(self) -> None:
        """Keep the present weights as those of the previous generation."""
        self._before = self._copied_weights()

    def counts(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[ClassCounts]:
        """Return what each of ``architectures`` gets right of each class; see the protocol."""
        genotypes = [architecture.genotype for architecture in architectures]
        batches = self._full if full else self._subset
        with self._remembered() if before else _unchanged():
            found = evaluate(self.supernet, self.process_group.share(genotypes), batches, self._autocast)
        classes = self.supernet.spec.classes
        images = tuple(torch.bincount(batches.labels, minlength=classes).tolist())
        rows = self.process_group.gather(found, len(genotypes), classes)
        return [ClassCounts(images, row) for row in rows]

    def accuracies(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[float]:
        """Return the accuracy of each of ``architectures``, a fraction of the evaluated images."""
        return [one.accuracy for one in self.counts(architectures, before=before, full=full)]

    def state(self) -> dict[str, Any]:
        """Return the weights, those of the previous generation, the optimiser, the epoch and the random state."""
        return {
            "supernet": self.supernet.state_dict(),
            "before": self._before,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        self.supernet.load_state_dict(state["supernet"])
        self._before = {name: value.to(self.device) for name, value in state["before"].items()}
        fused = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(state["optimizer"])
        # Whether the optimiser is fused depends on the device, not on the saved state.
        self.optimizer.param_groups[0]["fused"] = fused
        self._fill_momenta()
        self.epoch = state["epoch"]
        self.generator.set_state(state["generator"].cpu())

    def _fill_momenta(self) -> None:
        """Set missing momenta to zero: a fused step requires momenta for all parameters or for none."""
        for one in self.parameters:
            if "momentum_buffer" not in self.optimizer.state[one]:
                self.optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)

    def _copied_weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.supernet.state_dict())

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        now = self._copied_weights()
        self.supernet.load_state_dict(self._before)
        try:
            yield
        finally:
            self.supernet.load_state_dict(now)

    def _autocast(self) -> torch.autocast:
        bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)


def judging_parts(data: DataBundle, share: float, generator: torch.Generator) -> tuple[Dataset, Dataset]:
    """Return the images that train and those that evaluate: the given validation part, or else ``share`` of each
    class of the training images."""
    if data.validation is not None:
        return data.train, data.validation
    train, valid = judging_split(data.train.labels, share, generator)
    return data.train.select(train), data.train.select(valid)


def judging_split(labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which of the training images train, and which evaluate: ``share`` of each class; int64 indices."""
    train, valid = stratified_split(labels, [1 - share, share], generator)
    return train, valid


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use ``number`` threads for the duration of the block; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _unchanged() -> Iterator[None]:
    yield


def evaluate(
    supernet: SuperNet,
    genotypes: Sequence[Genotype],
    batches: Iterable[Batch],
    autocast: Callable[[], torch.autocast],
    room: int | None = None,
) -> list[list[int]]:
    """Return for each genotype how many images in ``batches`` it gets right under the shared weights, by class.

    Batch normalisation uses the statistics of each batch. All genotypes are evaluated on a batch before the next,
    so that the operations they share are computed once for each batch; ``room`` bytes are for those of the first
    cell (None: a default for the device). On a CPU each of torch's threads evaluates genotypes of its own, since an
    operation on a small activation is too short for several threads. On a GPU the counts stay in its memory until
    the end, so that it never waits for Python.
    """
    supernet.train()
    counts: list[Tensor] = []
    classes = supernet.spec.classes
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        pool: ThreadPoolExecutor | None = None
        for images, labels in batches:
            with torch.inference_mode(), autocast():
                share = _ROOM[images.is_cuda] if room is None else room
                common = supernet.common(images, genotypes, share)

            def hits(genotype: Genotype, common: Common = common, labels: Tensor = labels) -> Tensor:
                with torch.inference_mode(), autocast():
                    right = supernet.along(common, genotype).argmax(dim=1) == labels
                    # The shapes do not depend on the answers, so that a GPU is not waited for.
                    return torch.zeros(classes, dtype=torch.int64, device=labels.device).index_add_(
                        0, labels, right.to(torch.int64)
                    )

            if images.is_cuda or threads == 1:
                found = [hits(genotype) for genotype in genotypes]
            else:
                if pool is None:
                    # The number that the workers set is the default of later threads, so it is restored.
                    stack.callback(torch.set_num_threads, threads)
                    one_thread = ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))
                    pool = stack.enter_context(one_thread)
                found = list(pool.map(hits, genotypes))
            counts = found if not counts else [so_far + new for so_far, new in zip(counts, found, strict=True)]
    return [count.tolist() for count in counts]
