"""Forward and backward passes of architectures: one by one, or recorded as CUDA graphs and replayed.

The networks of a step may use only some elements of a parameter. The passes therefore say which weights of an
architecture had a gradient.

On a GPU, a pass of a small network has a thousand kernels of a few microseconds each. They run faster than Python
launches them. A CUDA graph is launched as a whole.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from cars_hw.nn.composed import ComposedPasses, Head, can_compose
from cars_hw.nn.slices import Path, Place, Slices, copies_of
from cars_hw.nn.supernet import SuperNet
from cars_hw.progress import Log, no_log
from cars_hw.space.architecture import Architecture
from cars_hw.training.block_recordings import BlockRecordings
from cars_hw.training.losses import cross_entropy
from cars_hw.training.precision import low_type
from cars_hw.training.recorder import Recorder, RecordingRefusedError, Replay

RECORD_AT: Final = 2
"""An architecture is recorded at its second pass, because most architectures of the warm-up have only one."""
MOST: Final = 256
"""The number of recordings that are kept. A population is 128."""
RECORDING_BYTES: Final = 4_500_000
"""Memory that the driver takes for a recording of the paper's network, in bytes; measured on an H200."""


Used = tuple[bool, ...]
"""Whether each weight of an architecture had a gradient, in the order of :attr:`cars_hw.nn.slices.Path.leaves`."""


class Passes(Protocol):
    """The passes of a step. Each adds the gradients of an architecture; :meth:`clear` clears them.

    ``labels`` are those of :func:`cars_hw.training.losses.cross_entropy`.
    """

    @property
    def logits(self) -> Tensor:
        """The logits (N, classes) of the last pass, until the next one."""

    @property
    def used(self) -> Sequence[Used]:
        """The used weights of each pass since :meth:`clear`; empty if all sizes are that of the SuperNet."""

    def clear(self) -> None:
        """Clear the gradients; they are None for parameters that no later pass uses."""

    def run(self, images: Tensor, labels: Tensor, architecture: Architecture, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss, and return that part of the loss, detached."""


@dataclass
class PlainPasses:
    """Passes at the SuperNet's own size, as PyTorch runs them; ``class_weights`` are those of the loss."""

    supernet: SuperNet
    autocast: Callable[[], torch.autocast]
    class_weights: Tensor | None = None
    used: Sequence[Used] = ()
    logits: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def clear(self) -> None:
        """Clear the gradients."""
        self.supernet.zero_grad(set_to_none=True)

    def run(self, images: Tensor, labels: Tensor, architecture: Architecture, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss of ``architecture`` and return that part of the loss."""
        with self.autocast():
            logits = self.supernet(images, architecture.genotype)
            loss = cross_entropy(logits, labels, self.class_weights) * share
        torch.autograd.backward(loss)
        self.logits = logits.detach()
        return loss.detach()


@dataclass
class _Gradients:
    """The part of the loss of a pass, and the gradients of the weights that have one, with their places."""

    loss: Tensor
    logits: Tensor
    places: Sequence[Place]
    values: Sequence[Tensor]
    used: Used

    @staticmethod
    def of(loss: Tensor, logits: Tensor, path: Path) -> _Gradients:
        """Return the gradients of ``loss``. Weights of cells without a reader have none."""
        found = torch.autograd.grad(loss, path.leaves, allow_unused=True)
        pairs = [(place, value) for place, value in zip(path.places, found, strict=True) if value is not None]
        return _Gradients(
            loss.detach(),
            logits.detach(),
            [place for place, _ in pairs],
            [value for _, value in pairs],
            tuple(one is not None for one in found),
        )

    def add_to(self, kept: Callable[[Tensor], Tensor]) -> None:
        """Add the gradients to those that ``kept`` returns for the shared parameters."""
        # Two places may overlap if operations share weights, and on a GPU the additions of one call are concurrent.
        rounds: list[list[tuple[Tensor, Tensor]]] = []
        seen: Counter[int] = Counter()
        for place, value in zip(self.places, self.values, strict=True):
            target = place.of(kept(place.parameter))
            number = seen[id(place.parameter)]
            seen[id(place.parameter)] += 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(_in_line(target, value.view_as(target)))
        for pairs in rounds:
            targets, values = ([pair[place] for pair in pairs] for place in (0, 1))
            if values[0].dtype != targets[0].dtype:
                low, values = values, [torch.empty_like(target) for target in targets]
                torch._foreach_copy_(values, low)
            torch._foreach_add_(targets, values)


def _in_line(target: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as lines if they have the same order in memory: many with equal strides share a launch."""
    if target.ndim != 4 or not all(one.is_contiguous(memory_format=torch.channels_last) for one in (target, value)):
        return target, value
    return target.permute(0, 2, 3, 1).reshape(-1), value.permute(0, 2, 3, 1).reshape(-1)


@dataclass
class SlicedPasses:
    """Passes at any size within the SuperNet, as PyTorch runs them; ``class_weights`` are those of the loss."""

    slices: Slices
    parameters: Sequence[nn.Parameter]
    autocast: Callable[[], torch.autocast]
    class_weights: Tensor | None = None
    used: list[Used] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def clear(self) -> None:
        """Clear the gradients."""
        for one in self.parameters:
            one.grad = None
        self.used.clear()

    def run(self, images: Tensor, labels: Tensor, architecture: Architecture, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss of ``architecture`` and return that part of the loss."""
        path = self.slices.path(architecture)
        with self.autocast():
            logits = path.logits(images)
            loss = cross_entropy(logits, labels, self.class_weights) * share
        found = _Gradients.of(loss, logits, path)
        found.add_to(_gradient)
        self.used.append(found.used)
        self.logits = found.logits
        return found.loss


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of ``parameter``, zeros if it has none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@dataclass(frozen=True)
class _Recorded:
    """The recorded pass of an architecture, and the parameters and weights that get gradients from it.

    ``replay`` is None where the recording was refused.
    """

    replay: Replay | None
    touched: tuple[Tensor, ...]
    used: Used


@dataclass
class GraphedPasses:
    """Passes that are recorded at an architecture's second pass and replayed from the third on.

    All recordings read the same images and add to the same gradients, and none keeps data between two replays.
    Therefore they share one pool of memory, in any order of replays. Batches of another size than the first, such
    as the last of an epoch, are not recorded. ``class_weights`` of the loss are read in place, on the same device.

    With ``blocks``, passes of the SuperNet's own size that are not recorded are put together from the recordings of
    blocks, see :mod:`cars_hw.nn.composed`.

    Without ``record``, nothing is recorded. If a recording is refused, ``log`` gets one line, and nothing more is
    recorded: the passes compute the same, operation by operation.
    """

    slices: Slices
    parameters: Sequence[nn.Parameter]
    autocast: Callable[[], torch.autocast]
    record: Recorder | None
    class_weights: Tensor | None = None
    log: Log = no_log
    blocks: BlockRecordings | None = None
    used: list[Used] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    _recorded: OrderedDict[object, _Recorded] = field(default_factory=OrderedDict)
    _seen: dict[object, int] = field(default_factory=dict)
    _gradients: dict[Tensor, Tensor] = field(default_factory=dict)
    _touched: dict[Tensor, None] = field(default_factory=dict)
    _images: Tensor | None = None
    _labels: dict[bool, Tensor] = field(default_factory=dict)
    _composed: ComposedPasses | None = None

    def clear(self) -> None:
        """Set the used gradients to zero, and detach all gradients from their parameters."""
        if self._touched:
            torch._foreach_zero_([self._gradients[one] for one in self._touched])
        for one in self.parameters:
            one.grad = None
        self._touched.clear()
        self.used.clear()

    def run(self, images: Tensor, labels: Tensor, architecture: Architecture, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss of ``architecture`` and return that part of the loss."""
        if self._images is None:
            self._images = images.clone()
            self._share, self._loss = images.new_zeros(()), images.new_zeros(())
            self._answers = images.new_zeros(len(images), self.slices.shared.spec.classes)
        if images.shape != self._images.shape:
            return self._once(images, labels, architecture, torch.full_like(self._share, share))
        self._images.copy_(images)
        # Labels are classes or probabilities. Their types differ, so each has recordings of its own.
        soft = labels.is_floating_point()
        self._labels.setdefault(soft, labels.clone()).copy_(labels)
        self._share.fill_(share)
        key = (architecture.key(), soft)
        recorded = self._recorded.get(key)
        if recorded is None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] < RECORD_AT or self.record is None:
                return self._once(self._images, self._labels[soft], architecture, self._share)
            recorded = self._recording(self._labels[soft], architecture, self.record)
            if recorded.replay is not None:
                self._recorded[key] = recorded
            if len(self._recorded) > MOST:
                dropped, _ = self._recorded.popitem(last=False)
                self._seen.pop(dropped, None)
        else:
            assert recorded.replay is not None
            self._recorded.move_to_end(key)
            recorded.replay()
        self._use(recorded.touched, recorded.used)
        self.logits = self._answers
        return self._loss.clone()

    def close(self) -> None:
        """Drop the recordings with their memory, and all gradients."""
        self.clear()
        self._recorded.clear()
        self._seen.clear()
        self._gradients.clear()
        if self.blocks is not None:
            self.blocks.clear()
        if self._composed is not None:
            self._composed.close()
            self._composed = None

    def _once(self, images: Tensor, labels: Tensor, architecture: Architecture, share: Tensor) -> Tensor:
        """Run a pass that is not recorded."""
        if (
            self.blocks is not None
            and images is self._images
            and can_compose(self.slices.shared, images, architecture)
        ):
            found = self._put_together(images, labels, architecture, self.blocks)
        else:
            found = self._pass(images, labels, architecture, share)
        self._use(_parameters(found), found.used)
        self.logits = found.logits
        return found.loss

    def _recording(self, labels: Tensor, architecture: Architecture, record: Recorder) -> _Recorded:
        """Run and record the pass of ``architecture``, which reads ``labels`` in place."""
        found: _Gradients | None = None

        def work() -> None:
            nonlocal found
            assert self._images is not None
            found = self._pass(self._images, labels, architecture, self._share)
            self._loss.copy_(found.loss)
            self._answers.copy_(found.logits)

        replay: Replay | None = None
        try:
            replay = record(work)
        except RecordingRefusedError as error:
            # The next one would be refused, too.
            self.record = None
            self.log(
                f"a pass of an architecture cannot be recorded ({error}): the operations of each pass are launched "
                "one by one, which is slower"
            )
        assert found is not None
        return _Recorded(replay, _parameters(found), found.used)

    def _pass(self, images: Tensor, labels: Tensor, architecture: Architecture, share: Tensor) -> _Gradients:
        """Add the gradients of a pass to the kept ones and return them."""
        # The copy of the weights is part of a recording, so a replay reads the weights of its own time.
        # Leaves of its own: over the parameters, autograd would wait for the stream of an earlier backward pass. A
        # recording must not wait for another stream.
        with self.autocast() as context:
            low = low_type(context)
            places = self.slices.places(architecture)
            # The casts of autocast would be a launch for each weight, and one for each gradient.
            copies = None if low is None else copies_of((place.parameter for place in places), low)
            path = self.slices.path(architecture, own_leaves=True, copies=copies)
            logits = path.logits(images)
            loss = cross_entropy(logits, labels, self.class_weights) * share
        found = _Gradients.of(loss, logits, path)
        found.add_to(self._kept)
        return found

    def _put_together(
        self, images: Tensor, labels: Tensor, architecture: Architecture, blocks: BlockRecordings
    ) -> _Gradients:
        """Add the gradients of a pass of blocks to the kept ones and return them."""
        if self._composed is None:
            with self.autocast() as context:
                low = low_type(context)
            self._composed = ComposedPasses(self.slices, images, self.autocast, low, blocks)
        values = self._composed.run(
            architecture,
            Head(
                lambda logits: cross_entropy(logits, labels, self.class_weights) * self._share,
                self._loss,
                self._answers,
                kind=labels.is_floating_point(),
            ),
        )
        places = self.slices.places(architecture)
        found = _Gradients(
            self._loss.clone(),
            self._answers,
            [place for place in places if place.key in values],
            [values[place.key] for place in places if place.key in values],
            tuple(place.key in values for place in places),
        )
        found.add_to(self._kept)
        return found

    def _kept(self, parameter: Tensor) -> Tensor:
        if parameter not in self._gradients:
            self._gradients[parameter] = torch.zeros_like(parameter)
        return self._gradients[parameter]

    def _use(self, touched: Sequence[Tensor], used: Used) -> None:
        for one in touched:
            one.grad = self._gradients[one]
            self._touched[one] = None
        self.used.append(used)


def _parameters(found: _Gradients) -> tuple[Tensor, ...]:
    return tuple(place.parameter for place in found.places)
