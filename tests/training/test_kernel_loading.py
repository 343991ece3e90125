"""Kernels are loaded while images are read: side by side, all of them, and without a trace in the search."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from long_runs import amount
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cars_hw.config.training import SharedTraining
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.kernel_loading import STAGE, KernelLoading, covering, passes_of_all_kernels
from cars_hw.training.precision import shared_autocast
from cars_hw.training.recorded_passes import GraphedPasses

CPU = torch.device("cpu")
SPEC = NetworkSpec(4, 6, (8, 8), 1, classes=3)
TRAINING = SharedTraining(batch_size=8, evaluation_batch=12, precision="float32")


def test_steps_run_while_the_caller_does_something_else() -> None:
    read, loaded = threading.Event(), threading.Event()
    said: list[tuple[str, int, int]] = []

    def first() -> None:
        loaded.set()
        # Each waits for the other, so that neither could end if one came after the other.
        assert read.wait(20)

    with KernelLoading([first, lambda: None]) as loading:
        assert loaded.wait(20)
        read.set()
        loading.wait(lambda *report: said.append(report))
    assert loading.failed is None
    assert said[-1] == (STAGE, 2, 2)
    assert said == sorted(said)


def test_what_fails_is_told_and_not_raised() -> None:
    def fails() -> None:
        raise RuntimeError("no kernel image\nis available")

    with KernelLoading([fails, lambda: pytest.fail("goes on")]) as loading:
        loading.wait(lambda *_: None)
    assert loading.failed == "no kernel image is available"


def test_what_the_steps_hold_is_free_when_they_end() -> None:
    class Held:
        """Stands for the memory of a SuperNet."""

    def fails() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for last in (fails, lambda: None):
        held = Held()
        alive = weakref.ref(held)
        steps = [lambda held=held: held, last]  # type: ignore[misc]
        with KernelLoading(steps) as loading:
            del held, steps
            loading.wait(lambda *_: None)
        gc.collect()
        assert alive() is None
        assert loading.has_steps


def test_an_error_of_the_caller_ends_the_loading_after_the_present_step() -> None:
    began, later = threading.Event(), []

    def step() -> None:
        began.set()
        time.sleep(0.05)

    with pytest.raises(KeyError), KernelLoading([step, lambda: later.append(1)] * 2) as loading:
        assert began.wait(20)
        raise KeyError
    assert not loading._thread.is_alive()
    assert not later


class Launched(TorchDispatchMode):
    """The kernels that are launched: an operation with the shapes, types and other values that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func.namespace == "cars_hw":
            self.kernels[f"{func} {_described(args)}"] += 1
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return [_described(one) for one in value] if isinstance(value, list | tuple) else value


ALL: tuple[str, ...] = ()
ONE = ("dil_conv_5x5",)
FEW = ("none", "skip_connect", "sep_conv_3x3")


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
@pytest.mark.parametrize("operations", [ONE, FEW, ALL])
def test_later_passes_launch_hardly_a_kernel_that_is_not_loaded(operations: tuple[str, ...]) -> None:
    space = SearchSpace(operations=operations)
    with as_on("cuda"):
        with Launched() as loaded:
            for step in passes_of_all_kernels(space, SPEC, TRAINING, CPU):
                step()
        supernet = SuperNet(SPEC).to(memory_format=torch.channels_last)
        passes = GraphedPasses(
            Slices(supernet), list(supernet.parameters()), shared_autocast("float32", CPU), pytest.fail
        )
        rng = np.random.default_rng(0)
        images = torch.randn(8, 1, 8, 8).contiguous(memory_format=torch.channels_last)
        with Launched() as later:
            for one in {one.key(): one for one in (space.sample(rng) for _ in range(4))}.values():
                passes.run(images, torch.arange(8) % 3, Architecture(one, SPEC), 1.0)
    # A sum of two states differs by which of them are to be normalised, and not all pairs come.
    new = {one for one in later.kernels if one not in loaded.kernels}
    assert len(later.kernels) > 40
    assert len(new) <= 0.12 * len(later.kernels)
    assert not any("separable" in one or "pool" in one for one in new)


def test_every_operation_is_covered_however_many_there_are() -> None:
    for space in (SearchSpace(), SearchSpace(operations=("sep_conv_3x3",)), SearchSpace(family="nasnet")):
        found = {
            edge.operation
            for one in covering(space)
            for cell in (one.normal, one.reduce)
            for node in cell
            for edge in node
        }
        assert found == set(space.operations)
        assert len({one.key() for one in covering(space)}) == len(covering(space)) or len(found) == 1


def test_the_loading_draws_no_random_numbers_and_keeps_nothing() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    steps: list[Callable[[], object]] = passes_of_all_kernels(
        SearchSpace(operations=("sep_conv_3x3",)), SPEC, TRAINING, CPU
    )
    for step in steps:
        step()
    assert torch.equal(torch.get_rng_state(), before)
    # The last step drops the network: the others have nothing to work with any more.
    with pytest.raises(IndexError):
        steps[1]()
