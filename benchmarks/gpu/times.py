"""The parts of the check that measure the time of steps, passes and kernels, and of their start."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from gpu_setting import Found, Gpu, final_size, final_training
from torch.nn import functional

from cars_hw.progress import silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.kernel_loading import KernelLoading, passes_of_all_kernels
from cars_hw.training.network_step import Stepping
from cars_hw.training.recorded_passes import GraphedPasses
from cars_hw.training.shared_evaluation import evaluate


def times(gpu: Gpu) -> Found:
    """Measure what takes time in a search and in a final training."""
    made, people = gpu.weights(gpu.settings(), 4 * max(gpu.batch, gpu.judged)), gpu.architectures(gpu.people)
    images, labels = next(made.batches.epoch(torch.Generator().manual_seed(0)))
    assert isinstance(made.passes, GraphedPasses)

    def step(one: Architecture) -> None:
        made.step(images, labels, [one])

    # The first architecture loads kernels, and warms up the stream of the recordings.
    for one in [people[0], *people]:
        step(one)
    recording = [gpu.ms(lambda one=one: step(one)) for one in people[1:]]  # type: ignore[misc]
    whole = [gpu.ms(lambda one=one: step(one), 5) for one in people[1:]]  # type: ignore[misc]
    replays = [one.replay for one in made.passes._recorded.values()]
    bare = [gpu.ms(replay, 10) for replay in replays]
    batch = next(iter(made._full))

    def judge() -> None:
        evaluate(made.slices, people, [batch], made._autocast)

    judge()
    plain = gpu.weights(gpu.settings(), 4 * gpu.batch, plain=True)
    alone = [gpu.ms(lambda one=one: plain.passes.run(images, labels, one, 1.0), 2) for one in people]  # type: ignore[misc]
    judged = gpu.ms(judge, 3) / len(people) / (len(batch[1]) / 1000)
    return {
        "gpu": "cpu" if gpu.cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "a recording, ms": statistics.median(recording) - statistics.median(whole),
        "a replayed step, ms": statistics.median(whole),
        "a replayed pass, ms": statistics.median(bare),
        "a pass that is not recorded, ms": statistics.median(alone),
        "1,000 images judged, ms": judged,
        **_times_of_final_training(gpu),
        "depthwise, us: forward and both gradients, Triton / cuDNN": _depthwise(gpu),
    }


def _times_of_final_training(gpu: Gpu) -> Found:
    # What cannot be recorded is measured as something else, so it is told.
    said: list[str] = []
    step, launched = (_step_ms(gpu, Stepping(replay=replay), said) for replay in ("auto", "off"))  # type: ignore[arg-type]
    return {
        "a step of the final training is recorded": not said,
        **({"why not": said} if said else {}),
        "a step of the final training, ms": step,
        "the same, launched one operation after the other, ms": launched,
        "final training of CARS-E, s an epoch of 50,000 images": step * 50_000 / final_size(gpu)[1] / 1e3,
    }


def _step_ms(gpu: Gpu, stepping: Stepping, said: list[str]) -> float:
    training = final_training(gpu, stepping, log=said.append)
    # The first epoch loads kernels, compiles and records.
    training.run_epoch()
    return gpu.ms(training.run_epoch) / training.steps


def compiled(gpu: Gpu) -> Found:
    """Measure steps of a final training that torch.compile has made faster, launched and replayed."""
    if gpu.cpu:
        return {"compiled": "not in a dry run: it takes minutes"}
    found: Found = {}
    for replay in ("off", "auto"):
        began, said = time.perf_counter(), []
        try:
            ms = _step_ms(gpu, Stepping(replay=replay, compiled=True), said)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 -- whatever the compiler raises
            found[f"compiled, replay {replay}"] = " ".join(f"{error}".split())[:200]
            continue
        found[f"a compiled step of the final training, replay {replay}, ms"] = said or ms
        found[f"compiling and two epochs of four steps, replay {replay}, s"] = time.perf_counter() - began
        torch.compiler.reset()
    return found


def starting(gpu: Gpu) -> Found:
    """Measure how long kernels take to be loaded and compiled, which a search does while it reads its images."""
    settings = gpu.settings()
    loading = passes_of_all_kernels(SearchSpace(), gpu.spec, settings, gpu.device)
    began = time.perf_counter()
    with KernelLoading(loading) as kernels:
        kernels.wait(silent)
    seconds = time.perf_counter() - began
    made, people = gpu.weights(settings, 4 * max(gpu.batch, gpu.judged)), gpu.architectures(3)
    first, second = (gpu.ms(lambda: made.train(lambda count: people[:count])) / 1e3 for _ in range(2))
    return {
        "kernels are loaded": kernels.failed or "yes",
        "kernels loaded and compiled, s": seconds,
        "the first epoch after that, s": first,
        "the second, s": second,
    }


def _depthwise(gpu: Gpu) -> Found:
    rows: Found = {}
    for (channels, side), kernel, dilation in itertools.product(((16, 32), (64, 8)), (3, 5), (1, 2)):
        shape = (gpu.batch, channels, side, side)
        x = torch.randn(shape, device=gpu.device).bfloat16().contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, 1, kernel, kernel, device=gpu.device).bfloat16()
        padding = dilation * (kernel // 2)
        mine = torch.ops.cars_hw
        # B023: the functions below are called in this turn of the loop, so the variables have not changed.

        def back(mask: list[bool]) -> object:
            sizes = (1, 1), (padding,) * 2, (dilation,) * 2, False, (0, 0), channels  # noqa: B023
            return torch.ops.aten.convolution_backward(x, x, weight, None, *sizes, [*mask, False])  # noqa: B023

        ways: list[Callable[[], object]] = [
            lambda: mine.relu_depthwise(x, weight, 1, dilation),  # noqa: B023
            lambda: mine.relu_depthwise_backward(x, x, weight, 1, dilation, [True, False]),  # noqa: B023
            lambda: mine.relu_depthwise_backward(x, x, weight, 1, dilation, [False, True]),  # noqa: B023
            lambda: functional.conv2d(x, weight, None, 1, padding, dilation, channels),  # noqa: B023
            lambda: back([True, False]),
            lambda: back([False, True]),
        ]
        taken = [round(1e3 * _alone(gpu, run), 1) for run in ways]
        name = f"{channels} channels {side}x{side}, kernel {kernel}, dilation {dilation}"
        rows[name] = f"{taken[:3]} / {taken[3:]}"
    return rows


def _alone(gpu: Gpu, run: Callable[[], object]) -> float:
    """Return the milliseconds of ``run`` on the GPU, without those of the host: in a graph of ten."""
    run()
    if gpu.cpu:
        return gpu.ms(run)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            run()
    return gpu.ms(graph.replay, 3) / 10
