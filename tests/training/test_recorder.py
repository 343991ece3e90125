"""What a recording needs of the device and of autograd, and what it keeps alive."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emulated_graphs import EmulatedRecorder
from torch import Tensor

from cars_hw.config.training import SharedTraining, StepReplay
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import shared_evaluation, shared_weights
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.memory import is_out_of_memory
from cars_hw.training.precision import has_bf16
from cars_hw.training.recorded_passes import GraphedPasses
from cars_hw.training.recorder import CudaRecorder, RecordingRefusedError
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=4)


def make_weights(
    recorder: EmulatedRecorder | None,
    replay: StepReplay = "auto",
    **settings: Any,  # noqa: ANN401
) -> SuperNetWeights:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(64) % 4)
    data = DataBundle("toy", part, part, ("a", "b", "c", "d"), (0.5,), (0.25,))
    chosen = replace(SharedTraining(batch_size=16, validation_fraction=0.25), **settings)
    return SuperNetWeights(SuperNet(SPEC), data, chosen, epochs=10, seed=0, recorder=recorder, replay=replay)


def architecture() -> Architecture:
    return Architecture(SearchSpace().sample(np.random.default_rng(0)), SPEC)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(16, 1, 8, 8).contiguous(memory_format=torch.channels_last), torch.arange(16) % 4


def leaves_of(loss: Tensor) -> set[int]:
    """Return the ids of the tensors whose gradients a backward pass from ``loss`` accumulates."""
    seen, waiting, found = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return found


def test_a_recording_does_not_touch_what_autograd_keeps_about_the_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, chosen = make_weights(EmulatedRecorder()), architecture()
    images, labels = batch()
    # A plain backward pass. Its graph is kept, and with it the nodes that accumulate gradients, and their stream.
    kept = F.cross_entropy(weights.supernet(images, chosen.genotype), labels)
    kept.backward(retain_graph=True)
    parameters = {id(one) for one in weights.parameters}
    assert parameters & leaves_of(kept)
    losses: list[Tensor] = []
    grad = torch.autograd.grad

    def watched(loss: Tensor, *given: Any, **named: Any) -> Any:  # noqa: ANN401
        losses.append(loss)
        assert leaves_of(loss)
        assert not parameters & leaves_of(loss)
        return grad(loss, *given, **named)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    for _ in range(3):
        weights.step(images, labels, [chosen])
    # The first pass, the first run of the recording, and the recording itself.
    assert len(losses) == 3


class FakeGpus:
    """Stands for torch.cuda, and writes down what is asked of which device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.current = 0
        self.full = 0
        gpus = self

        class Stream:
            def __init__(self, device: torch.device | int) -> None:
                self.name = f"stream of {torch.device(device).index if not isinstance(device, int) else device}"

            def wait_stream(self, other: Stream) -> None:
                gpus.said.append(f"{self.name} waits for {other.name}")

        class Graph:
            def capture_begin(self, pool: object, capture_error_mode: str) -> None:
                assert not gc.isenabled()
                gpus.said.append(f"begin on {gpus.current}, {gpus.on}, {capture_error_mode}")

            def capture_end(self) -> None:
                gpus.said.append("end")

            def replay(self) -> None:
                gpus.said.append("replay")

        @contextlib.contextmanager
        def device(wanted: torch.device) -> Iterator[None]:
            before, self.current = self.current, wanted.index
            yield
            self.current = before

        @contextlib.contextmanager
        def stream(wanted: Stream) -> Iterator[None]:
            self.on = wanted.name
            yield
            self.on = "none"

        self.on = "none"
        for name, value in {
            "device": device,
            "stream": stream,
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: (self.current, 0),
            "current_stream": lambda of: type("Present", (Stream,), {})(of.index),
            "empty_cache": lambda: self.said.append("cache emptied"),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


def test_recordings_are_made_on_the_given_device_and_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch)
    recorder = CudaRecorder(torch.device("cuda:1"))
    assert recorder.pool == (1, 0)
    for _ in range(2):
        recorder(lambda: gpus.said.append(f"work on {gpus.current}, {gpus.on}"))
    waits, begin = "stream of 1 waits for stream of 1", "begin on 1, stream of 1, thread_local"
    work = "work on 1, stream of 1"
    # The first recording warms up on the stream of all recordings. Later ones are captured and then replayed.
    assert gpus.said == [waits, work, begin, work, "end", waits, waits, begin, work, "end", "replay", waits]
    assert gc.isenabled()


def test_a_recording_that_fails_ends_its_capture_and_collects_garbage_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = FakeGpus(monkeypatch)
    recorder = CudaRecorder(torch.device("cuda:0"))
    recorder(lambda: None)
    gpus.said.clear()

    def refused() -> None:
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="operation not permitted"):
        recorder(refused)
    assert gpus.said[-1] == "end"
    assert gc.isenabled()


def test_work_that_cannot_be_recorded_has_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch)
    recorder = CudaRecorder(torch.device("cuda:0"))

    def waits_for_python() -> None:
        if gpus.said[-1].startswith("begin"):
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        gpus.said.append(f"work on {gpus.on}")

    # The first recording runs its work before the capture, later ones after it was refused.
    for wanted in (["work on stream of 0", "begin", "end"], ["begin", "end", "work on stream of 0"]):
        gpus.said.clear()
        with pytest.raises(RecordingRefusedError, match="not permitted when stream is capturing"):
            recorder(waits_for_python)
        assert [one.partition(" on 0,")[0] for one in gpus.said[1:-1]] == wanted
        # What follows waits for the work.
        assert "waits" in gpus.said[0]
        assert "waits" in gpus.said[-1]


def test_a_recording_without_memory_is_made_again_with_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch)
    recorder = CudaRecorder(torch.device("cuda:0"))
    recorder(lambda: None)
    gpus.said.clear()

    def first_full() -> None:
        gpus.full += 1
        if gpus.full == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    recorder(first_full)
    assert [one for one in gpus.said if "waits" not in one] == [
        "begin on 0, stream of 0, thread_local",
        "end",
        "cache emptied",
        "begin on 0, stream of 0, thread_local",
        "end",
        "replay",
    ]


def test_replay_off_records_nothing() -> None:
    recorder = EmulatedRecorder()
    weights, chosen = make_weights(recorder, replay="off"), architecture()
    weights.rehearse(chosen.genotype)
    assert recorder.recorded == 0
    assert not weights.records


@pytest.mark.parametrize("recorded", [False, True])
def test_nothing_keeps_dead_weights_images_or_recordings_alive(recorded: bool) -> None:
    class Recorder(EmulatedRecorder):
        def __call__(self, work: Any) -> Any:  # noqa: ANN401
            replay = super().__call__(work)
            replays.append(weakref.ref(replay))
            return replay

    replays: list[weakref.ref[Any]] = []
    weights, chosen = make_weights(Recorder() if recorded else None), architecture()
    for _ in range(3):
        weights.train(lambda count: [chosen] * count)
    weights.accuracies([chosen])
    assert len(replays) == int(recorded)
    parts = [weights, weights.supernet, weights.passes, weights.slices, weights.batches._dataset.images]
    alive = [*(weakref.ref(one) for one in parts), *replays]
    gc.collect()
    gc.disable()
    try:
        del parts, weights
        # Counted references alone free them. A GPU's memory does not wait for a garbage collection.
        assert [one() for one in alive] == [None] * len(alive)
    finally:
        gc.enable()


def test_closed_passes_are_recorded_again() -> None:
    recorder = EmulatedRecorder()
    weights, chosen = make_weights(recorder), architecture()
    images, labels = batch()
    for _ in range(3):
        weights.step(images, labels, [chosen])
    assert isinstance(weights.passes, GraphedPasses)
    kept = [weakref.ref(one) for one in weights.passes._gradients.values()]
    weights.close()
    assert not weights.passes._recorded
    assert all(one() is None for one in kept)
    for _ in range(3):
        weights.step(images, labels, [chosen])
    assert (recorder.recorded, recorder.replayed) == (2, 2)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_too_little_memory_is_told_from_other_errors(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) is full


def test_bfloat16_is_used_where_the_given_gpu_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or gpus.current == 1,
    )
    assert not has_bf16(torch.device("cpu"))
    assert not has_bf16(torch.device("cuda:0"))
    assert has_bf16(torch.device("cuda:1"))


def test_deterministic_algorithms_are_used_for_training_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for wanted in (False, True):
        weights, chosen = make_weights(None, deterministic=wanted), architecture()
        seen = []

        def watched(work: Any, seen: list[bool] = seen) -> Any:  # noqa: ANN401
            def watching(*given: Any, **options: Any) -> Any:  # noqa: ANN401
                seen.append(torch.are_deterministic_algorithms_enabled())
                return work(*given, **options)

            return watching

        # Before the first work on a GPU, which decides for the whole process.
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if wanted else None)
        monkeypatch.setattr(weights.passes, "run", watched(weights.passes.run))
        monkeypatch.setattr(shared_weights, "evaluate", watched(shared_evaluation.evaluate))
        weights.train(lambda count, chosen=chosen: [chosen] * count)
        weights.counts([chosen])
        assert seen == [wanted] * (len(weights.batches) + 1)
        seen.clear()
        weights.rehearse(chosen.genotype)
        assert seen
        assert set(seen) == {wanted}
        assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_algorithms_end_with_an_error() -> None:
    with pytest.raises(KeyError), deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
