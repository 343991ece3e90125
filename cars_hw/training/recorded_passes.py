"""Forward and backward passes of architectures: one by one, or recorded as CUDA graphs and replayed.

On a GPU a pass of a small network is a thousand kernels of a few microseconds each, which run faster than Python
launches them. A graph is launched as a whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from cars_hw.nn.supernet import SuperNet
from cars_hw.space.genotype import Genotype
from cars_hw.training.losses import cross_entropy

Replay = Callable[[], object]
Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function once, and returns a function that repeats the work on the same tensors."""

RECORD_AT: Final = 2
"""An architecture is recorded at its second pass: most of those of the warm-up have only one."""
MOST: Final = 256
"""The number of recordings that are kept; each takes some MB of driver memory. A population is 128."""


class Passes(Protocol):
    """The passes of a step: they add gradients of architectures until these are cleared."""

    def clear(self) -> None:
        """Clear the gradients; they are None for parameters that no later pass uses."""

    def run(self, images: Tensor, labels: Tensor, genotype: Genotype, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss, and return that part of the loss, detached."""


@dataclass
class PlainPasses:
    """Passes without recording, as PyTorch runs them; ``class_weights`` are those of the loss."""

    supernet: SuperNet
    autocast: Callable[[], torch.autocast]
    class_weights: Tensor | None = None

    def clear(self) -> None:
        """Clear the gradients."""
        self.supernet.zero_grad(set_to_none=True)

    def run(self, images: Tensor, labels: Tensor, genotype: Genotype, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss of ``genotype`` and return that part of the loss."""
        with self.autocast():
            loss = cross_entropy(self.supernet(images, genotype), labels, self.class_weights) * share
        torch.autograd.backward(loss)
        return loss.detach()


@dataclass(frozen=True)
class _Recorded:
    """The recorded pass of an architecture, and the parameters that it has gradients for."""

    replay: Replay
    touched: tuple[nn.Parameter, ...]


@dataclass
class GraphedPasses:
    """Passes that are recorded at an architecture's second pass and replayed from the third on.

    All recordings read the same images and add to the same gradients, and none keeps data between two replays.
    Therefore they share one pool of memory, in any order of replays. Batches of another size than the first, such
    as the last of an epoch, are not recorded. ``class_weights`` of the loss are read in place, on the same device.
    """

    supernet: SuperNet
    autocast: Callable[[], torch.autocast]
    record: Recorder
    class_weights: Tensor | None = None
    _recorded: OrderedDict[object, _Recorded] = field(default_factory=OrderedDict)
    _seen: dict[object, int] = field(default_factory=dict)
    _gradients: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    _used: dict[nn.Parameter, None] = field(default_factory=dict)
    _images: Tensor | None = None

    def __post_init__(self) -> None:
        # Iterating over the modules takes longer than a pass.
        self._parameters = list(self.supernet.parameters())

    def clear(self) -> None:
        """Set the used gradients to zero, and detach all gradients from their parameters."""
        if self._used:
            torch._foreach_zero_([self._gradients[one] for one in self._used])
        for one in self._parameters:
            one.grad = None
        self._used.clear()

    def run(self, images: Tensor, labels: Tensor, genotype: Genotype, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss of ``genotype`` and return that part of the loss."""
        if self._images is None:
            self._images, self._labels = images.clone(), labels.clone()
            self._share, self._loss = images.new_zeros(()), images.new_zeros(())
        if images.shape != self._images.shape:
            loss, touched = self._pass(images, labels, genotype, torch.full_like(self._share, share))
            self._use(touched)
            return loss
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._share.fill_(share)
        key = genotype.key()
        recorded = self._recorded.get(key)
        if recorded is None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] >= RECORD_AT:
                self._use(self._recording(genotype))
            else:
                loss, touched = self._pass(self._images, self._labels, genotype, self._share)
                self._use(touched)
                return loss
        else:
            self._recorded.move_to_end(key)
            recorded.replay()
            self._use(recorded.touched)
        return self._loss.clone()

    def _recording(self, genotype: Genotype) -> tuple[nn.Parameter, ...]:
        """Run and record the pass of ``genotype``; return the parameters that it has gradients for."""
        touched: tuple[nn.Parameter, ...] = ()

        def work() -> None:
            nonlocal touched
            assert self._images is not None
            loss, touched = self._pass(self._images, self._labels, genotype, self._share)
            self._loss.copy_(loss)

        replay = self.record(work)
        self._recorded[genotype.key()] = _Recorded(replay, touched)
        if len(self._recorded) > MOST:
            dropped, _ = self._recorded.popitem(last=False)
            self._seen.pop(dropped, None)
        return touched

    def _pass(
        self, images: Tensor, labels: Tensor, genotype: Genotype, share: Tensor
    ) -> tuple[Tensor, tuple[nn.Parameter, ...]]:
        """Add the gradients of a pass to the kept ones; return the loss and the parameters with gradients."""
        parameters = self.supernet.parameters_of(genotype)
        with self.autocast():
            loss = cross_entropy(self.supernet(images, genotype), labels, self.class_weights) * share
        # Parameters of cells whose output is unused have no gradient.
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = [(one, gradient) for one, gradient in zip(parameters, found, strict=True) if gradient is not None]
        for one, _ in pairs:
            if one not in self._gradients:
                self._gradients[one] = torch.zeros_like(one)
        kept = [self._gradients[one] for one, _ in pairs]
        torch._foreach_add_(kept, [gradient for _, gradient in pairs])
        return loss.detach(), tuple(one for one, _ in pairs)

    def _use(self, touched: tuple[nn.Parameter, ...]) -> None:
        for one in touched:
            one.grad = self._gradients[one]
            self._used[one] = None


class CudaRecorder:
    """Records CUDA graphs, all in one pool of memory."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Replay:
        """Run ``work`` and return its replay."""
        # Libraries choose algorithms and allocate in the first run, which must be on a stream that is not recorded.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            work()
        replay: Replay = graph.replay
        return replay
