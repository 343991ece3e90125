"""The SuperNet in a search: training of its weights by Eq. 3 of CARS, and evaluation of architectures."""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import PassReplay, SharedTraining, cosine
from cars_hw.data import (
    Augmentation,
    DataBundle,
    EvaluationBatches,
    TrainingBatches,
    mixed_order,
)
from cars_hw.nn.block_slices import slices_of
from cars_hw.nn.composed import most_blocks, most_bytes
from cars_hw.nn.fused_parts import WIDEST
from cars_hw.nn.slices import Window
from cars_hw.nn.supernet import SuperNet
from cars_hw.nn.tape import can_tape
from cars_hw.progress import Log, no_log
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.block_recordings import BLOCK_BYTES, BlockRecordings
from cars_hw.training.determinism import deterministic_algorithms, prepare_deterministic
from cars_hw.training.judging_images import judging_parts
from cars_hw.training.losses import weights_of_classes
from cars_hw.training.partial_steps import Partial, PartialSteps
from cars_hw.training.precision import low_type, shared_autocast
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.recorded_passes import (
    MOST,
    RECORD_AT,
    RECORDING_BYTES,
    GraphedPasses,
    Passes,
    PlainPasses,
    SlicedPasses,
)
from cars_hw.training.recorder import CudaRecorder, Recorder
from cars_hw.training.shared_evaluation import LOSS_UNIT, PROBED, Batch, evaluate
from cars_hw.training.threads import threads_for, torch_threads
from cars_hw.training.weight_average import WeightAverage


class SuperNetWeights:
    """Trains and evaluates a SuperNet: an implementation of :class:`cars_hw.evolution.search.SharedWeights`.

    The training images are split once, stratified by ``seed``: one part trains the weights, the other
    evaluates the architectures. If ``data`` has a validation part, that evaluates them, and all training images
    train. The processes of ``process_group`` share the work and hold the same weights.
    ``recorder`` records passes and replays them; the default is CUDA graphs on a GPU and none elsewhere. With
    the ``replay`` "off", nothing is recorded; with "blocks", the first pass of an architecture is put together from
    recordings, see :mod:`cars_hw.nn.composed`. ``log`` tells if a pass cannot be recorded.

    Without ``over_sizes``, every genotype runs at the size of the SuperNet, whatever the size of its network. With
    ``over_sizes``, every architecture runs at the size of its own network, which must lie within the SuperNet; see
    :mod:`cars_hw.nn.slices`. With the ``size_sampling`` "sandwich" in ``settings``, a step then also trains the
    size of the SuperNet, and that of ``smallest`` if it is given. With ``over_resolutions``, an architecture also
    has the resolution of its network, and gets images that are reduced to it. Otherwise all have that of the
    SuperNet.

    Raises:
        ValueError: ``supernet`` does not share its weights as ``settings`` say.
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
        replay: PassReplay = "auto",
        over_sizes: bool = False,
        over_resolutions: bool = False,
        smallest: NetworkSpec | None = None,
        log: Log = no_log,
    ) -> None:
        if supernet.share != settings.share:
            raise ValueError(f"the SuperNet shares weights by {supernet.share}, the settings by {settings.share}")
        prepare_deterministic(settings.deterministic)
        self.process_group = process_group
        self.over_sizes = over_sizes
        self.over_resolutions = over_resolutions
        self.smallest = smallest
        self.device = torch.device(device)
        # A function of its own and not a method: a method would keep these weights alive for as long as the passes.
        self._autocast = shared_autocast(settings.precision, self.device)
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
        # They stay where they are in memory. To look for them takes long: a SuperNet has thousands of modules.
        self._weights: dict[str, Tensor] = dict(self.supernet.state_dict())
        self.slices = slices_of(self.supernet)
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.SGD(
            self.parameters,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=on_gpu or recorder is not None,
        )
        self._fill_momenta()
        self._steps = PartialSteps(self.optimizer, settings.gradient_clip)
        self._average = WeightAverage(self.parameters, settings.average) if settings.average else None
        if replay == "off":
            recorder = None
        elif recorder is None and on_gpu:
            recorder = CudaRecorder(self.device)
        weights = weights_of_classes(train.labels, data.classes, settings.class_weights)
        # On the device once: a recorded pass reads the same tensor at every replay.
        weights = None if weights is None else weights.to(self.device)
        self.passes = self._new_passes(recorder, weights, log, blocks=replay == "blocks")
        # Recordings end with the weights. At the end of the process, the driver ends them.
        weakref.finalize(self, _closed, self.passes).atexit = False
        self.generator = torch.Generator().manual_seed(seed + 1)
        self._before = self._evaluated_weights()

    @property
    def trains(self) -> bool:
        """Whether a search trains these weights before it evaluates with them."""
        return self.settings.trains

    @property
    def threads(self) -> int:
        """The number of threads of a training step on a CPU: the given one, or what a rule says.

        The rule is that of the training of a network, see :mod:`cars_hw.training.threads`; a GPU changes nothing.
        """
        if self.settings.threads or self.device.type != "cpu":
            return self.settings.threads
        return threads_for(self.supernet.spec, self.settings.batch_size)

    @property
    def evaluates_all(self) -> bool:
        """Whether the subset that evaluates architectures in a generation has all validation images."""
        return len(self._subset.labels) == len(self._full.labels)

    @property
    def records(self) -> bool:
        """Whether passes of an architecture are recorded and replayed."""
        return isinstance(self.passes, GraphedPasses) and self.passes.record is not None

    @property
    def composes(self) -> bool:
        """Whether the first pass of an architecture is put together from recordings of blocks."""
        return isinstance(self.passes, GraphedPasses) and self.passes.blocks is not None and self.records

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:
        """Train one epoch and return its mean loss.

        Each minibatch draws B architectures, and the gradient is the mean over them (Eq. 3).
        """
        settings = self.settings
        rate = cosine(self.epoch / self.epochs, settings.learning_rate, settings.learning_rate_min)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._in_training()
        total = torch.zeros((), device=self.device)
        with torch_threads(self.threads), deterministic_algorithms(settings.deterministic):
            for images, labels in self.batches.epoch(self.generator):
                total += self.step(images, labels, draw(settings.architectures))
        self.epoch += 1
        return float(self.process_group.add(total)) / len(self.batches)

    def step(self, images: Tensor, labels: Tensor, architectures: Sequence[Architecture]) -> Tensor:
        """Take one step on a minibatch and return this process's part of the loss, detached.

        Parameters that no drawn architecture uses keep a gradient of None, and the optimiser skips them: their
        momentum and their values do not change. This also holds for the unused elements of a parameter of which an
        architecture uses a part: over sizes, or if kernels share weights.
        """
        self.passes.clear()
        drawn = self._at_their_size(architectures)
        if self._sandwiched:
            drawn = self._sandwich(drawn)
        total = self._run(images, labels, drawn)
        self.process_group.add_gradients(self.parameters)
        touched = [one for one in self.parameters if one.grad is not None]
        partial = self._partial(drawn) if self._uses_parts else {}
        self._steps.step(touched, partial)
        if self._average is not None:
            self._average.update(touched, partial)
        return total

    def _run(self, images: Tensor, labels: Tensor, drawn: Sequence[Architecture]) -> Tensor:
        """Run this process's share of the passes of a step, and return its part of the loss."""
        mine, share = list(self.process_group.share(drawn)), 1 / len(drawn)
        total = torch.zeros((), device=self.device)
        if self._sandwiched:
            # The first is the largest, and the leading process runs it. The others learn its outputs.
            answers = images.new_zeros(len(labels), self.supernet.spec.classes)
            if self.process_group.leads:
                total += self.passes.run(images, labels, mine.pop(0), share)
                answers.copy_(self.passes.logits.softmax(dim=1))
            labels = self.process_group.add(answers)
        for architecture in mine:
            total += self.passes.run(images, labels, architecture, share)
        return total

    @property
    def _uses_parts(self) -> bool:
        """Whether an architecture may use a part of a parameter."""
        return self.over_sizes or self.settings.share == "kernels"

    @property
    def _sandwiched(self) -> bool:
        return self.over_sizes and self.settings.size_sampling == "sandwich"

    def _sandwich(self, drawn: Sequence[Architecture]) -> list[Architecture]:
        """Return the largest size, ``drawn``, and the smallest size; both ends have the genotype of the first."""
        genotype, own = drawn[0].genotype, self.supernet.spec
        ends = [] if self.smallest is None else [Architecture(genotype, self._sized(self.smallest))]
        return [Architecture(genotype, own), *drawn, *ends]

    def rehearse(self, genotype: Genotype, together: int = 2) -> None:
        """Take training steps with ``genotype`` and evaluate it, to test the memory; change no state.

        It runs at the SuperNet's own size, which is the largest. Memory that only later work takes is taken too:
        that of the optimiser, of the weights of the previous generation, of results that architectures share, and
        on a GPU that of :data:`~cars_hw.training.recorded_passes.MOST` recordings. With linear probes, there are
        also the features of ``together`` architectures, which are evaluated together.

        Raises:
            RuntimeError: the memory is too small, see :func:`cars_hw.training.memory.is_out_of_memory`.
        """
        drawn = [Architecture(genotype, self.supernet.spec)] * self.settings.architectures
        state = _on_host(self.state())
        images, labels = next(self.batches.epoch(torch.Generator().manual_seed(0)))
        self._in_training()
        try:
            # Deterministic algorithms take other memory, and a recording keeps its algorithms.
            with deterministic_algorithms(self.settings.deterministic):
                # Often enough that the pass is recorded and replayed, where passes are recorded.
                for _ in range(RECORD_AT + 1):
                    self.step(images, labels, drawn)
                # Two that begin alike keep what they share. The weights of the generation before are there besides.
                with self._remembered():
                    features = self._features_of(together)
                    self._evaluate(drawn[:1] * 2, itertools.islice(self._full, 1))
                    del features
            self._require_room_for_recordings()
        finally:
            self.passes.clear()
            self.restore(state)

    def _features_of(self, together: int) -> Tensor | None:
        """Return room for the features that linear probes keep of so many architectures; None without probes."""
        if self.settings.classifier == "shared":
            return None
        images = min(2 * PROBED, max(len(one.labels) for one in (self._subset, self._full)))
        made = torch.empty(together, images, self.supernet.classifier.in_features, device=self.device)
        # What a CPU does not touch takes no memory.
        return made.zero_()

    def _require_room_for_recordings(self) -> None:
        """Check that the driver has memory for the largest number of recordings.

        Raises:
            torch.OutOfMemoryError: it has not.
        """
        if self.device.type != "cuda" or not self.records:
            return
        # What PyTorch caches can be given back.
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free, _ = torch.cuda.mem_get_info(self.device)
        needed = MOST * RECORDING_BYTES + self._bytes_of_blocks()
        if free + cached < needed:
            raise torch.OutOfMemoryError(f"out of memory: {MOST} recordings need {needed} bytes")

    def _bytes_of_blocks(self) -> int:
        """Return the memory of all blocks and of their states; 0 where passes are not put together from blocks."""
        if not self.composes:
            return 0
        spec, low = self.supernet.spec, low_type(self._autocast())
        number = self.parameters[0].element_size() if low is None else low.itemsize
        return most_blocks(spec) * BLOCK_BYTES + most_bytes(spec, self.settings.batch_size, number)

    def remember(self) -> None:
        """Keep the present weights, or their average, as those of the previous generation."""
        self._before = self._evaluated_weights()

    def counts(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[ClassCounts]:
        """Return what each of ``architectures`` gets right of each class, and its loss; see the protocol.

        There is no loss if a linear probe takes the place of the shared classifier.
        """
        batches = self._full if full else self._subset
        share = self.process_group.share(self._at_their_size(architectures))
        self._in_training()
        weights = self._remembered() if before else self.averaged()
        with weights, deterministic_algorithms(self.settings.deterministic):
            found = self._evaluate(share, batches)
        classes = self.supernet.spec.classes
        images = tuple(torch.bincount(batches.labels, minlength=classes).tolist())
        rows = self.process_group.gather(found, len(architectures), classes + 1)
        if self.settings.classifier != "shared":
            return [ClassCounts(images, row[:-1]) for row in rows]
        return [ClassCounts(images, row[:-1], loss=LOSS_UNIT * row[-1] / sum(images)) for row in rows]

    def _evaluate(self, architectures: Sequence[Architecture], batches: Iterable[Batch]) -> list[list[int]]:
        """Return the evaluation of ``architectures`` on ``batches``, see :func:`evaluate`."""
        return evaluate(self.slices, architectures, batches, self._autocast, classifier=self.settings.classifier)

    def accuracies(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[float]:
        """Return the accuracy of each of ``architectures``, a fraction of the evaluated images."""
        return [one.accuracy for one in self.counts(architectures, before=before, full=full)]

    def state(self) -> dict[str, Any]:
        """Return the weights, those of the previous generation, the optimiser, the epoch and the random state.

        If the weights are averaged, the state has the average, and as ``evaluated`` the weights that evaluate.
        """
        average = {} if self._average is None else {"average": self._average.state()}
        return {
            **average,
            **({"evaluated": self._evaluated_weights()} if average else {}),
            "supernet": dict(self._weights),
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
        if self._average is not None:
            self._average.restore(state["average"])
        self.epoch = state["epoch"]
        self.generator.set_state(state["generator"].cpu())

    def _fill_momenta(self) -> None:
        """Set missing momenta to zero: a fused step requires momenta for all parameters or for none."""
        for one in self.parameters:
            if "momentum_buffer" not in self.optimizer.state[one]:
                self.optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)

    def _new_passes(
        self, recorder: Recorder | None, class_weights: Tensor | None, log: Log, *, blocks: bool
    ) -> Passes:
        reason = self._why_without_blocks(recorder)
        if blocks and reason is not None:
            log(
                "the first passes of architectures are not put together from blocks, but launched one operation "
                f"after the other: {reason}"
            )
            blocks = False
        if recorder is not None or self.device.type == "cuda":
            # Without a recorder, they are the passes that would be recorded.
            return GraphedPasses(
                self.slices,
                self.parameters,
                self._autocast,
                recorder,
                class_weights,
                log,
                BlockRecordings(recorder, log) if blocks else None,
            )
        if self._uses_parts:
            return SlicedPasses(self.slices, self.parameters, self._autocast, class_weights)
        return PlainPasses(self.supernet, self._autocast, class_weights)

    def _why_without_blocks(self, recorder: Recorder | None) -> str | None:
        """Return why no pass is put together from blocks; None where passes can be."""
        if not self.trains:
            return "no shared weights are trained"
        if self.over_sizes or not can_tape(self.supernet.spec, ()):
            return f"blocks are for DARTS cells of one size with at most {WIDEST} channels"
        if recorder is None and self.device.type == "cpu":
            return "a CPU records nothing"
        return None

    def _at_their_size(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Return ``architectures`` at the sizes at which they run here."""
        own = self.supernet.spec
        return [
            Architecture(genotype, self._sized(network) if self.over_sizes else own)
            for genotype, network in architectures
        ]

    def _sized(self, network: NetworkSpec) -> NetworkSpec:
        """Return the network of the SuperNet at the size of ``network``."""
        return _sized(self.supernet.spec, network, network.resolution if self.over_resolutions else None)

    def _partial(self, drawn: Sequence[Architecture]) -> Partial:
        """Return the parameters of which the passes of all processes used only parts, and these parts."""
        places = [self.slices.places(architecture) for architecture in drawn]
        width = max(len(some) for some in places)
        # A row of flags for each architecture; those of this process know the passes that it ran.
        mine = [[*used, *(False,) * (width - len(used))] for used in self.passes.used]
        rows = self.process_group.gather(mine, len(drawn), width)
        windows: dict[Tensor, set[Window | None]] = {}
        for some, used in zip(places, rows, strict=True):
            for place, touched in zip(some, used, strict=False):
                if touched:
                    windows.setdefault(place.parameter, set()).add(place.window)
        return {
            parameter: frozenset(window for window in found if window is not None)
            for parameter, found in windows.items()
            if None not in found
        }

    def _in_training(self) -> None:
        """Set the mode of training, unless it is set: there are thousands of modules."""
        if not self.supernet.training:
            self.supernet.train()

    def _copied_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights. What several operations have in common is one copy."""
        copies: dict[tuple[int, torch.Size], Tensor] = {}
        for value in self._weights.values():
            place = value.data_ptr(), value.shape
            if place not in copies:
                copies[place] = value.clone()
        return {name: copies[value.data_ptr(), value.shape] for name, value in self._weights.items()}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in self._weights.items():
            value.copy_(weights[name])

    def _evaluated_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that evaluate architectures."""
        with self.averaged():
            return self._copied_weights()

    def averaged(self) -> AbstractContextManager[None]:
        """Set the weights to their average for the duration of a block, if there is one."""
        return nullcontext() if self._average is None else self._average.in_place()

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        now = self._copied_weights()
        self._set_weights(self._before)
        try:
            yield
        finally:
            self._set_weights(now)

    def close(self) -> None:
        """Free the recorded passes with their memory. The weights stay, and later passes are recorded again."""
        _closed(self.passes)


def _closed(passes: Passes) -> None:
    if isinstance(passes, GraphedPasses):
        passes.close()


def _on_host(state: Any) -> Any:  # noqa: ANN401 -- a tree of whatever a state has
    """Return a copy of ``state`` with all tensors in the memory of the host."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: _on_host(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_host(value) for value in state)
    return copy.copy(state)


@lru_cache(maxsize=4096)
def _sized(own: NetworkSpec, network: NetworkSpec, resolution: tuple[int, int] | None) -> NetworkSpec:
    """Return ``own`` at the size of ``network``, and at ``resolution`` if it is given."""
    return own.sized(network, resolution=resolution)
