"""What a GPU is asked to do for a training pass and for an evaluation, counted without a GPU.

::

    .venv/bin/python benchmarks/dispatch.py [--batch 8] [--architectures 4] [--json PATH] [--operations]

The operations are those that PyTorch dispatches when the layers choose them as on a GPU and compute in bfloat16.
They run on the CPU, because their number and their tensors are the same. Transforms inside cuDNN are not seen. The
setting is that of the paper: 16 channels, 8 cells, images of 32x32 pixels. A count for an architecture does not
depend on the batch; the bytes of the activations are proportional to it.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from cars_hw.config.files import write_json
from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.recorder import Replay
from cars_hw.training.shared_evaluation import evaluate
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(16, 8, (32, 32))

NO_KERNEL = ("empty", "detach", "alias", "_unsafe_view", "_local_scalar_dense", "new_empty", "resize_")
"""Operations that are no views and launch nothing."""

KERNELS = {"native_batch_norm": 3, "_native_batch_norm_legit": 3, "native_batch_norm_backward": 2}
"""Kernels of an operation that needs more than one on a GPU, by PyTorch's sources: a normalisation makes the mean
and the variance, turns the variance into a factor, and applies both; its gradient sums and then applies."""

TENSORS_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""How many tensors a launch of a foreach operation takes, by the number of its lists (MultiTensorApply.cuh)."""

MOVING = ("_to_copy", "copy_", "clone", "_foreach_copy_")
"""Operations that copy values or change their type."""

SETTING = ("copy_", "zero_", "fill_")
"""Operations in place that do not read what they change."""

SYNCHRONISING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
"""Operations whose result Python waits for."""


@dataclass
class Dispatched:
    """What was dispatched.

    Attributes:
        launches: kernels that a GPU would launch; views launch none.
        bytes: read and written by these kernels, each tensor once an operation.
        copies: operations that move values and change nothing else.
        casts: operations that change the type of values.
        out_of_layout: inputs of four dimensions whose memory is not channels-last, of operations that compute.
        waits: operations for which Python waits.
        operations: launches by the name of the operation.
        misplaced: inputs out of their layout by the name of the operation.
    """

    launches: int = 0
    bytes: int = 0
    copies: int = 0
    casts: int = 0
    out_of_layout: int = 0
    waits: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    misplaced: Counter[str] = field(default_factory=Counter)

    def figures(self, over: int = 1) -> dict[str, float]:
        """Return the numbers by their names, divided by ``over``."""
        names = ("launches", "bytes", "copies", "casts", "out_of_layout", "waits")
        return {name: getattr(self, name) / over for name in names}


class Counting(TorchDispatchMode):
    """Counts what is dispatched for the duration of a block, in ``found``."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Dispatched()

    # Its types are torch's own.
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        # In inference mode, PyTorch hands over composite operations as they are.
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        self.found.waits += name in SYNCHRONISING
        if func.is_view or name.startswith(NO_KERNEL):
            return func(*args, **kwargs)
        inputs = _tensors((args, kwargs))
        # A copy reads whatever it makes dense. It is counted as a copy.
        misplaced = 0 if name in MOVING else sum(not _in_layout(one) for one in inputs)
        out = func(*args, **kwargs)
        launches = _launches(name, args)
        self.found.launches += launches
        self.found.operations[name] += launches
        self.found.out_of_layout += misplaced
        if misplaced:
            self.found.misplaced[name] += misplaced
        if func.namespace == "cars_hw":
            read, written = _own(func._schema, args, out)
        else:
            written = _tensors(args[0]) if func._schema.is_mutable else _tensors(out)
            # An operation in place reads what it changes, but for those that set it.
            read = inputs[len(written) :] if name.removeprefix("_foreach_") in SETTING else inputs
        self.found.bytes += sum(one.numel() * one.element_size() for one in (*read, *written))
        if name in MOVING:
            if read[0].dtype == written[0].dtype:
                self.found.copies += launches
            else:
                self.found.casts += launches
        return out


def _own(schema: Any, args: Any, out: Any) -> tuple[list[Tensor], list[Tensor]]:  # noqa: ANN401
    """Return what one of the project's own operations reads and writes.

    It writes what its schema says that it changes, and reads that only to ``add`` to it.
    """
    given = {argument.name: (argument, value) for argument, value in zip(schema.arguments, args, strict=False)}
    changed = [name for name, (argument, _) in given.items() if argument.is_write]
    adds = "add" in given and given["add"][1]
    read = [value for name, (_, value) in given.items() if name not in changed or (name == "into" and adds)]
    return _tensors(read), [*_tensors([given[name][1] for name in changed]), *_tensors(out)]


def _launches(name: str, args: Any) -> int:  # noqa: ANN401 -- torch's own
    if name == "convolution_backward":
        return sum(args[-1])
    if name == "relu_depthwise_backward":
        # The gradient of the weights is made in parts, which a second kernel adds.
        for_x, for_weight = args[-1]
        return int(for_x) + 2 * int(for_weight)
    if name.startswith("_foreach"):
        lists = [one for one in args if isinstance(one, list | tuple) and one and isinstance(one[0], Tensor)]
        alike = all(
            (one.shape, one.stride()) == (first.shape, first.stride())
            for first, *rest in zip(*lists, strict=True)
            for one in rest
        )
        # Tensors of other strides are taken one by one.
        return math.ceil(len(lists[0]) / TENSORS_A_LAUNCH[len(lists)]) if lists and alike else len(args[0])
    return KERNELS.get(name, 1)


def _tensors(tree: Any) -> list[Tensor]:  # noqa: ANN401 -- whatever an operation takes
    return [one for one in pytree.tree_leaves(tree) if isinstance(one, Tensor)]


def _in_layout(x: Tensor) -> bool:
    return x.ndim != 4 or x.is_contiguous(memory_format=torch.channels_last)


def counted(run: Callable[[], object]) -> Dispatched:
    """Return what ``run`` dispatches."""
    with Counting() as mode:
        run()
    return mode.found


class CountingRecorder:
    """Counts the work that a recording captures. A replay runs it again."""

    def __init__(self) -> None:
        self.found: list[Dispatched] = []

    def __call__(self, work: Callable[[], None]) -> Replay:
        """Run ``work`` once, counted, and return its replay."""
        self.found.append(counted(work))
        return work


@dataclass(frozen=True)
class Setting:
    """A SuperNet on random images, as on a GPU, and the architectures that are counted."""

    weights: SuperNetWeights
    recorder: CountingRecorder
    architectures: Sequence[Architecture]
    images: Tensor
    labels: Tensor

    @staticmethod
    def of(batch: int, architectures: int, spec: NetworkSpec = SPEC, genotypes: Sequence[Genotype] = ()) -> Setting:
        """Return the setting with batches of ``batch`` images and ``architectures`` random architectures, or those
        of ``genotypes``.
        """
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        count = batch * spec.classes
        pixels = torch.randint(0, 256, (count, *spec.input_shape), dtype=torch.uint8, generator=generator)
        part = Dataset(pixels, torch.arange(count) % spec.classes)
        channels = spec.in_channels
        names = tuple(str(number) for number in range(spec.classes))
        data = DataBundle("random", part, part, names, (0.5,) * channels, (0.25,) * channels)
        recorder = CountingRecorder()
        settings = SharedTraining(batch_size=batch, evaluation_batch=batch)
        weights = SuperNetWeights(SuperNet(spec), data, settings, epochs=1, seed=0, recorder=recorder)
        low = _bf16
        weights._autocast = low  # type: ignore[method-assign]
        weights.passes.autocast = low  # type: ignore[attr-defined]
        rng = np.random.default_rng(0)
        drawn = genotypes or [SearchSpace().sample(rng) for _ in range(architectures)]
        people = [Architecture(genotype, spec) for genotype in drawn]
        images, labels = next(weights.batches.epoch(torch.Generator().manual_seed(0)))
        return Setting(weights, recorder, people, images, labels)

    def training_pass(self) -> dict[str, float]:
        """Return the figures of a captured training pass: the means over the architectures."""
        with as_on("cuda"), one_thread():
            for architecture in self.architectures:
                for _ in range(2):
                    self.weights.passes.clear()
                    self.weights.passes.run(self.images, self.labels, architecture, 1.0)
        return _sum(self.recorder.found[-len(self.architectures) :]).figures(len(self.architectures))

    def evaluation(self) -> dict[str, float]:
        """Return the figures of the evaluation of an architecture on a batch: the means over the architectures."""
        return self._evaluation(self.architectures)

    def relatives(self) -> dict[str, float]:
        """Return the figures of the evaluation of architectures of which each has the normal cell of another."""
        normal = [one.genotype.normal for one in self.architectures]
        people = [
            Architecture(Genotype(normal[index // 2], one.genotype.reduce), one.network)
            for index, one in enumerate(self.architectures)
        ]
        return self._evaluation(people)

    def _evaluation(self, people: Sequence[Architecture]) -> dict[str, float]:
        batch = next(iter(self.weights._full))
        with as_on("cuda"), one_thread():
            found = counted(lambda: evaluate(self.weights.slices, people, [batch], self.weights._autocast))
        self.recorder.found.append(found)
        return found.figures(len(people))


def _bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the work of the block run in this thread, which is the one that is counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sum(found: Sequence[Dispatched]) -> Dispatched:
    total = Dispatched()
    for one in found:
        for name, value in one.figures().items():
            setattr(total, name, getattr(total, name) + value)
        total.operations += one.operations
        total.misplaced += one.misplaced
    return total


def main() -> None:
    """Count, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--architectures", type=int, default=4)
    parser.add_argument("--operations", action="store_true", help="list the operations too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    setting = Setting.of(options.batch, options.architectures)
    figures = {}
    ways = {
        "training pass": setting.training_pass,
        "evaluation": setting.evaluation,
        "evaluation of relatives": setting.relatives,
    }
    for name, run in ways.items():
        before = len(setting.recorder.found)
        figures[name] = run()
        values = {key: round(value, 2) for key, value in figures[name].items()}
        values["bytes"] = f"{figures[name]['bytes'] / 1e6:.1f} MB"  # type: ignore[assignment]
        print(f"{name}, per architecture: " + ", ".join(f"{key} {value}" for key, value in values.items()))
        if options.operations:
            total = _sum(setting.recorder.found[before:])
            for operation, launches in total.operations.most_common():
                out = total.misplaced[operation]
                each = launches / options.architectures
                print(f"    {operation:36}{each:8.1f} launches{f'{out:8} out of layout' if out else ''}")
    if options.json:
        write_json(options.json, {"batch": options.batch, "architectures": options.architectures, **figures})


if __name__ == "__main__":
    main()
