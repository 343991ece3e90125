"""Kernels that a GPU loads, and Triton compiles, while something else is done, such as reading images.

CUDA loads a kernel at its first launch, and Triton compiles it then. A thread launches them early: it computes a
few passes of a SuperNet of its own, whose values mean nothing. It draws no random numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import torch

from cars_hw.config.training import SharedTraining
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.progress import Progress
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations.none import NONE
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.precision import shared_autocast
from cars_hw.training.recorded_passes import GraphedPasses
from cars_hw.training.shared_evaluation import evaluate

STAGE: Final = "loading the kernels of the GPU"
_PAUSE: Final = 0.1
"""Seconds between two reports of progress."""


class KernelLoading:
    """Calls ``steps`` one after another in a thread, from :meth:`__enter__` on; leaving the block ends it.

    An error in the thread is kept: the kernels are then loaded by the work that needs them, which has its own
    errors.
    """

    def __init__(self, steps: Sequence[Callable[[], object]]) -> None:
        self.failed: str | None = None
        self._steps = steps
        self._count = len(steps)
        self._done = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="kernels")

    def __enter__(self) -> KernelLoading:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # After the present step. A thread that goes on would compete for the memory of the GPU.
        self._thread.join()

    @property
    def has_steps(self) -> bool:
        """Whether there is something to load."""
        return self._count > 0

    def wait(self, progress: Progress) -> float:
        """Wait for the last step, which ``progress`` counts, and return the seconds that it took."""
        began = time.perf_counter()
        while self._thread.is_alive():
            progress(STAGE, self._done, self._count)
            self._thread.join(_PAUSE)
        if self._count and self.failed is None:
            progress(STAGE, self._count, self._count)
        return time.perf_counter() - began

    def _run(self) -> None:
        try:
            for step in self._steps:
                if self._ended.is_set():
                    return
                step()
                self._done += 1
        except Exception as error:  # noqa: BLE001 -- whatever the libraries and Triton raise
            self.failed = " ".join(f"{error}".split())[:200] or type(error).__name__
        finally:
            # What they hold of the GPU's memory is for the search, also after an error.
            self._steps = ()


def passes_of_all_kernels(
    space: SearchSpace, spec: NetworkSpec, training: SharedTraining, device: torch.device
) -> list[Callable[[], object]]:
    """Return calls that launch the kernels of training and evaluating a SuperNet of ``spec`` on ``device``."""
    shared: list[_Shared] = []

    def begin() -> None:
        shared.append(_Shared(spec, training, device))

    def end() -> None:
        shared.clear()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()

    steps: list[Callable[[], object]] = [begin]
    for genotype in covering(space):
        one = Architecture(genotype, spec)
        steps += [lambda one=one: shared[0].train(one), lambda one=one: shared[0].evaluate(one)]  # type: ignore[misc]
    return [*steps, end]


def covering(space: SearchSpace) -> list[Genotype]:
    """Return genotypes in which each operation of ``space`` is at both strides and everywhere in a cell.

    A kernel differs by whether its input is still to be normalised, which that of a cell is and the sum of a node
    is not, and by whether its gradient is the first of its input. Therefore each operation is at each place of a
    wide cell, whose nodes read the inputs, and of a deep one, whose nodes read the nodes before.
    """
    names = [one for one in space.operations if one != NONE]

    def cells_of(sources: Callable[[int], tuple[int, int]], first: int, *, single: bool = False) -> Genotype:
        chosen = [names[(first + place) % len(names)] for place in range(2 * space.nodes)]
        nodes = []
        for node in range(space.nodes):
            one, other = sources(node)
            second = NONE if single else chosen[2 * node + 1]
            nodes.append((Edge(chosen[2 * node], one), Edge(second, other)))
        return space.genotype(tuple(nodes), tuple(nodes))

    genotypes = []
    for first in range(len(names)):
        genotypes += [cells_of(_inputs, first), cells_of(_latest, first)]
    if NONE in space.operations:
        # Sums of one.
        genotypes += [cells_of(_inputs, 0, single=True), cells_of(_latest, 1, single=True)]
    return genotypes


def _inputs(_node: int) -> tuple[int, int]:
    """Return the inputs of a cell."""
    return 0, 1


def _latest(node: int) -> tuple[int, int]:
    """Return the last two states before ``node``."""
    return node, node + 1


class _Shared:
    """A SuperNet whose weights are all the same, and images of zeros."""

    def __init__(self, spec: NetworkSpec, training: SharedTraining, device: torch.device) -> None:
        # Fresh weights would draw from the random numbers of the search.
        with torch.device("meta"):
            supernet = SuperNet(spec, training.share)
        supernet = supernet.to_empty(device=device).to(memory_format=torch.channels_last).train()
        with torch.no_grad():
            for one in (*supernet.parameters(), *supernet.buffers()):
                one.fill_(0.01)
        self._device = device
        self._autocast = shared_autocast(training.precision, device)
        self._slices = Slices(supernet)
        self._passes = GraphedPasses(self._slices, list(supernet.parameters()), self._autocast, None)
        size = spec.in_channels, *spec.resolution
        self._images, self._judged = (
            torch.zeros(count, *size, device=device).contiguous(memory_format=torch.channels_last)
            for count in (training.batch_size, training.evaluation_batch)
        )
        self._own: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def train(self, one: Architecture) -> None:
        """Compute the gradients of ``one``."""
        with self._stream():
            self._passes.clear()
            self._passes.run(self._images, self._labels(self._images), one, 1.0)

    def evaluate(self, one: Architecture) -> None:
        """Evaluate ``one``, which waits for its result."""
        with self._stream():
            evaluate(self._slices, [one], [(self._judged, self._labels(self._judged))], self._autocast)

    def _labels(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), dtype=torch.int64, device=self._device)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Work on a stream of its own, so that what the caller does on the GPU does not wait."""
        if self._device.type != "cuda":
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._own):
            yield
