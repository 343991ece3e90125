"""Evaluation of architectures under shared weights: all of them on each batch of images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cars_hw.config.training import EvaluatedClassifier
from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.paths import Common, SharedNetwork
from cars_hw.nn.slices import Slices, cells_within, copies_of
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.precision import low_type

Batch = tuple[Tensor, Tensor]
Outputs = Callable[[SharedNetwork, Common, Genotype, Tensor], Tensor]
Of = TypeVar("Of")


class Run(Protocol):
    """Calls a function for each of several values, side by side on a CPU."""

    def __call__(self, function: Callable[[Of], Tensor], values: Sequence[Of], on_gpu: bool, /) -> list[Tensor]:
        """Return the results in the order of ``values``."""


LOSS_UNIT: Final = 1e-6
"""The unit of a sum of losses, in nats: whole numbers are exchanged between processes as counts are."""

LARGEST_LOSS: Final = 1e4
"""The loss of an image counts as this at most, also if it is no number."""

PROBED: Final = 1000
"""A linear probe is fitted to the features of so many images: they are kept for all architectures at once."""

_ROOM: Final = {False: 256 << 20, True: 2 << 30}
"""The largest number of bytes of results that are kept for several architectures, on a CPU (False) and a GPU."""


def evaluate(
    slices: Slices,
    architectures: Sequence[Architecture],
    batches: Iterable[Batch],
    autocast: Callable[[], torch.autocast],
    room: int | None = None,
    *,
    classifier: EvaluatedClassifier = "shared",
) -> list[list[int]]:
    """Return for each architecture how many images in ``batches`` it gets right under the shared weights, by class,
    and as a last number the sum of the cross-entropies of all images, in units of :data:`LOSS_UNIT`.

    With the ``classifier`` "probe", each architecture has a linear probe in place of the shared classifier, see
    :mod:`cars_hw.training.linear_probe`. It is fitted to :data:`PROBED` images at a time, or to one part of up to
    twice as many, and the last number is 0.

    Batch normalisation uses the statistics of each batch. All architectures are evaluated on a batch before the
    next batch. Those that begin alike share results: the stem, and operations of the first cell. These are computed
    once for each batch, and kept in at most ``room`` bytes (None: a default for the device).

    On a CPU, each of torch's threads evaluates other architectures, because an operation on a small activation is
    too short for several threads. On a GPU, the counts stay in its memory until the end, so that it never waits for
    Python.
    """
    tally = (_Counts if classifier == "shared" else _Probes)(slices.shared.spec.classes)
    shared = slices.shared.spec
    # Those that begin alike follow each other. The largest come first, so that no thread begins a large one when
    # the others end. Of one size, those with the same normal cell follow each other.
    order = sorted(range(len(architectures)), key=lambda index: _rank(architectures[index], shared))
    ordered = [architectures[index] for index in order]
    threads = torch.get_num_threads()
    copies: Mapping[Tensor, Tensor] | None = None
    with _threads() as run:
        for images, labels in batches:
            on_gpu = device_kind(images) == "cuda"
            total = _ROOM[on_gpu] if room is None else room
            low = low_type(autocast())
            if on_gpu and low is not None and copies is None:
                # Once for all, in a few launches. Autocast would cast every weight of every architecture.
                copies = _copies(slices, architectures, low)
            batch = _Batch(slices, images, labels, autocast, copies)
            batch.prepare(ordered, total, threads)
            # On a GPU, the host enters autocast once and not for every architecture.
            with autocast() if on_gpu else nullcontext():
                found = run(partial(batch.outputs, tally.output_of), ordered, on_gpu)
            tally.add(found, labels)
            tally.reduce(run, on_gpu)
        tally.reduce(run, on_gpu, ended=True)
    rows = dict(zip(order, [count.tolist() for count in tally.counts], strict=True))
    return [rows[index] for index in range(len(architectures))]


def _copies(slices: Slices, architectures: Sequence[Architecture], low: torch.dtype) -> Mapping[Tensor, Tensor]:
    """Return copies of the weights of ``architectures`` in the type ``low``."""
    with torch.inference_mode():
        return copies_of((place.parameter for one in architectures for place in slices.places(one)), low)


def right_by_class(scores: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how many images of each class have the highest of their ``scores`` (N, classes) there: int64.

    There is one number more, 0. The shapes do not depend on the answers, so that a GPU is not waited for.
    """
    right = scores.argmax(dim=1) == labels
    found = torch.zeros(classes + 1, dtype=torch.int64, device=labels.device)
    return found.index_add_(0, labels, right.to(torch.int64))


class _Counts:
    """Right answers of the shared classifier, and its losses."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts: list[Tensor] = []

    def output_of(self, network: SharedNetwork, common: Common, genotype: Genotype, labels: Tensor) -> Tensor:
        """Return how many images are right, by class, and the loss: int64 of (classes + 1,)."""
        logits = network.along(common, genotype)
        found = right_by_class(logits, labels, self.classes)
        losses = F.cross_entropy(logits.double(), labels, reduction="none")
        finite = losses.nan_to_num(nan=LARGEST_LOSS).clamp(max=LARGEST_LOSS)
        found[-1] = (finite.sum() / LOSS_UNIT).round().to(torch.int64)
        return found

    def add(self, found: list[Tensor], _labels: Tensor) -> None:
        """Add the counts that the architectures have on a batch."""
        self.counts = (
            [so_far + new for so_far, new in zip(self.counts, found, strict=True)] if self.counts else found
        )

    def reduce(self, run: Run, on_gpu: bool, *, ended: bool = False) -> None:
        """Do nothing: the counts are complete after each batch."""


class _Probes(_Counts):
    """Right answers of a linear probe of each architecture's own.

    The features wait until there are twice :data:`PROBED` images. The probe is then fitted to the first half, so
    that the last part has that many images, too.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self._features: list[Tensor] = []
        self._labels = torch.empty(0, dtype=torch.int64)

    def output_of(self, network: SharedNetwork, common: Common, genotype: Genotype, _labels: Tensor) -> Tensor:
        """Return the features of the images, float32 of (N, D)."""
        return network.features(common, genotype).float()

    def add(self, found: list[Tensor], labels: Tensor) -> None:
        """Keep the features of a batch."""
        if not self._features:
            self._features, self._labels = found, labels
            return
        # One by one, so that the features of all architectures are never in memory twice.
        for place in range(len(found)):
            self._features[place] = torch.cat([self._features[place], found[place]])
        self._labels = torch.cat([self._labels, labels])

    def reduce(self, run: Run, on_gpu: bool, *, ended: bool = False) -> None:
        """Fit the probes if there are images enough, or if all batches have ``ended``."""
        while len(self._labels) >= 2 * PROBED or (ended and len(self._labels)):
            part = len(self._labels) if len(self._labels) < 2 * PROBED else PROBED
            labels = self._labels[:part]

            def answers(features: Tensor, labels: Tensor = labels) -> Tensor:
                with torch.inference_mode():
                    scores = left_out_scores(features, labels, self.classes)
                    return right_by_class(scores, labels, self.classes)

            super().add(run(answers, [one[:part] for one in self._features], on_gpu), labels)
            self._features = [one[part:] for one in self._features]
            self._labels = self._labels[part:]


class _Batch:
    """One batch of images, and the results on it that architectures share."""

    def __init__(
        self,
        slices: Slices,
        images: Tensor,
        labels: Tensor,
        autocast: Callable[[], torch.autocast],
        copies: Mapping[Tensor, Tensor] | None,
    ) -> None:
        self.copies = copies
        self.slices = slices
        self.images = images
        self.labels = labels
        self.autocast = autocast
        self._groups: dict[_Beginning, _Group] = {}

    def prepare(self, architectures: Sequence[Architecture], room: int, threads: int) -> None:
        """Prepare for ``architectures``, which come in the order of their groups."""
        for one in architectures:
            beginning = _beginning(one, self.slices.shared.spec)
            self._groups.setdefault(beginning, _Group()).architectures.append(one)
        # One group for each thread, and one more: a thread may begin the next group while others end the last one.
        self._room = room // max(1, min(len(self._groups), threads + 1))
        if len(self._groups) == 1:
            # Computed here, with all of torch's threads.
            next(iter(self._groups.values())).begin(self._common)

    def outputs(self, output_of: Outputs, architecture: Architecture) -> Tensor:
        """Return ``output_of`` the network of ``architecture`` for the images."""
        group = self._groups[_beginning(architecture, self.slices.shared.spec)]
        common = group.begin(self._common)
        with torch.inference_mode(), self.autocast():
            found = output_of(self._network(architecture), common, architecture.genotype, self.labels)
        group.end()
        return found

    def _common(self, architectures: Sequence[Architecture]) -> Common:
        with torch.inference_mode(), self.autocast():
            genotypes = [one.genotype for one in architectures]
            return self._network(architectures[0]).common(self.images, genotypes, self._room)

    def _network(self, architecture: Architecture) -> SharedNetwork:
        shared = self.slices.shared
        if self.copies is None and architecture.network == shared.spec:
            return shared
        return self.slices.path(architecture, copies=self.copies)


class _Group:
    """Architectures that begin alike. Their shared results are in memory from the first of them to the last."""

    def __init__(self) -> None:
        self.architectures: list[Architecture] = []
        self._ended = 0
        self._lock = threading.Lock()
        self._common: Common | None = None

    def begin(self, make: Callable[[Sequence[Architecture]], Common]) -> Common:
        """Return what the architectures share; ``make`` computes it for the first of them."""
        with self._lock:
            if self._common is None:
                self._common = make(self.architectures)
            return self._common

    def end(self) -> None:
        """Count one of the architectures as evaluated."""
        with self._lock:
            self._ended += 1
            if self._ended == len(self.architectures):
                self._common = None


class _Beginning(NamedTuple):
    """What architectures with equal stems and equal inputs of the first two cells have in common."""

    channels: int
    second: int
    resolution: tuple[int, int]


def _beginning(architecture: Architecture, shared: NetworkSpec) -> _Beginning:
    network = architecture.network
    return _Beginning(network.channels, cells_within(network, shared)[1], network.resolution)


def _rank(architecture: Architecture, shared: NetworkSpec) -> tuple[object, ...]:
    channels, second, (height, width) = _beginning(architecture, shared)
    genotype = architecture.genotype
    alike = genotype.normal if architecture.network.blocks is None else genotype.key()
    return -channels, second, (-height, -width), -architecture.network.layers, alike


@contextmanager
def _threads() -> Iterator[Run]:
    """Yield a function that evaluates architectures in torch's threads. On a GPU it uses this thread only."""
    threads = torch.get_num_threads()
    if threads == 1:

        def one_by_one(function: Callable[[Of], Tensor], values: Sequence[Of], _on_gpu: bool) -> list[Tensor]:
            return [function(one) for one in values]

        yield one_by_one
        return
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:

            def side_by_side(function: Callable[[Of], Tensor], values: Sequence[Of], on_gpu: bool) -> list[Tensor]:
                # Threads begin with the first task only.
                return list((map if on_gpu else pool.map)(function, values))

            yield side_by_side
    finally:
        # The number that the workers set is the default of later threads, so it is restored.
        torch.set_num_threads(threads)
