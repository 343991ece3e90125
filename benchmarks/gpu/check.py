"""What must be shown on a GPU, measured by one command.

::

    PYTHONPATH=. python benchmarks/gpu/check.py [--cpu] [--parts correct,time] [--out FOLDER] [--seconds 540]

Run it in the root of a checkout, in an environment with PyTorch for CUDA, Triton, pytest and pymoo. ``--cpu`` is a
dry run with tiny sizes and emulated recordings; its times mean nothing. Every part runs in a process of its own and
writes ``PART.json``, so that a part that fails or takes too long leaves the others. The setting is that of the
paper: 16 channels, 8 cells, 32x32 images, batches of 128, bfloat16.

starting  loading and compiling the kernels, and the first epoch
correct   replays against plain passes and steps, Triton's kernels against PyTorch's
tests     the project's tests of recorded passes and shared weights, on the GPU
blocks    passes that are put together from recordings of blocks: right, their time, and the memory of a recording
time      a recording, a pass replayed and not, an evaluation, depthwise convolutions, a step of the final training
waits     lines that wait for the GPU
paper     two generations of the paper's search, the time of all of it, and the memory
compile   a step of the final training by torch.compile, launched and replayed; nothing is required of it
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cars_hw.config.presets import PRESETS
from cars_hw.config.training import PassReplay, Recipe, SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.cost import network_cost
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.fused import has_triton, relu_depthwise
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.progress import silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.kernel_loading import KernelLoading, passes_of_all_kernels
from cars_hw.training.network_step import Stepping
from cars_hw.training.recorded_passes import GraphedPasses, SlicedPasses
from cars_hw.training.recorder import Recorder
from cars_hw.training.shared_evaluation import evaluate
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone import NetworkTraining

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "training"

LIMITS = {
    "starting": 120,
    "correct": 200,
    "tests": 120,
    "blocks": 120,
    "time": 150,
    "waits": 60,
    "paper": 200,
    "compile": 300,
}
"""Seconds after which a part is ended."""

REQUIRED = {
    "a replayed pass, ms": 4.0,
    "1,000 images judged, ms": 6.0,
    "a recording, ms": 40.0,
    "the paper's search, minutes": 20.0,
    "final training of CARS-E, s an epoch of 50,000 images": 25.0,
}

Found = dict[str, Any]


class Gpu:
    """The device, and the sizes that fit it."""

    def __init__(self, cpu: bool) -> None:
        self.cpu = cpu
        self.device = torch.device("cpu" if cpu else "cuda")
        self.spec = NetworkSpec(4, 4, (16, 16)) if cpu else NetworkSpec(16, 8, (32, 32))
        self.batch, self.judged, self.people = (8, 16, 2) if cpu else (128, 1000, 12)

    def wait(self) -> None:
        """Wait until the device has done what it was asked for."""
        if not self.cpu:
            torch.cuda.synchronize()

    def ms(self, run: Callable[[], object], times: int = 1) -> float:
        """Return the milliseconds of one call."""
        self.wait()
        began = time.perf_counter()
        for _ in range(1 if self.cpu else times):
            run()
        self.wait()
        return 1e3 * (time.perf_counter() - began) / (1 if self.cpu else times)

    def weights(
        self, settings: SharedTraining, images: int, *, plain: bool = False, replay: PassReplay = "auto"
    ) -> SuperNetWeights:
        """Return a SuperNet on random images; with ``plain``, its passes are not recorded."""
        torch.manual_seed(0)
        recorder = emulated_recorder() if self.cpu and not plain else None
        made = SuperNetWeights(
            SuperNet(self.spec),
            random_images(images, self.spec),
            settings,
            epochs=10,
            seed=0,
            device=self.device,
            recorder=recorder,
            replay=replay,
        )
        if plain:
            made.passes = SlicedPasses(made.slices, made.parameters, made._autocast)
        return made

    def settings(self) -> SharedTraining:
        """Return the settings of the paper with the sizes of this device."""
        return SharedTraining(batch_size=self.batch, evaluation_batch=self.judged)

    def architectures(self, count: int, seed: int = 0) -> list[Architecture]:
        """Return random architectures of the SuperNet's size."""
        rng = np.random.default_rng(seed)
        return [Architecture(SearchSpace().sample(rng), self.spec) for _ in range(count)]


def emulated_recorder() -> Recorder:
    """Return a recorder that does on a CPU what CUDA graphs do; it belongs to the tests."""
    sys.path.insert(0, str(TESTS))
    recorder: Recorder = importlib.import_module("emulated_graphs").EmulatedRecorder()
    return recorder


def random_images(count: int, spec: NetworkSpec) -> DataBundle:
    """Return so many random images of the size of ``spec``."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *spec.input_shape), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(count) % spec.classes)
    channels = spec.in_channels
    return DataBundle("random", part, part, tuple("abcdefghij"), (0.5,) * channels, (0.25,) * channels)


def correct(gpu: Gpu) -> Found:
    """Compare replays with plain passes, and Triton's kernels with PyTorch's operations in float32."""
    graphed, plain, again = (
        gpu.weights(gpu.settings(), 4 * gpu.batch, plain=without) for without in (False, True, True)
    )
    batches = itertools.cycle(list(plain.batches.epoch(torch.Generator().manual_seed(1))))
    worst = noise = 0.0
    for _ in range(4):
        for one in gpu.architectures(gpu.people):
            images, labels = next(batches)
            found, wanted, repeated = (_gradients(made, images, labels, one) for made in (graphed, plain, again))
            worst, noise = max(worst, _apart(found, wanted)), max(noise, _apart(repeated, wanted))
    return {
        "replay against plain": worst,
        "plain against plain": noise,
        "replays are right": worst <= max(1e-3, 4 * noise),
        **_steps_apart(gpu),
        **_kernels_apart(gpu),
        **_kernels_tested(gpu),
    }


def _gradients(made: SuperNetWeights, images: Tensor, labels: Tensor, one: Architecture) -> list[Tensor | None]:
    made.passes.clear()
    made.passes.run(images, labels, one, 1.0)
    return [None if of.grad is None else of.grad.clone() for of in made.parameters]


def _apart(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> float:
    """Return the distance relative to the norm; infinite where one has a gradient that the other has not."""
    if [one is None for one in found] != [one is None for one in wanted]:
        return float("inf")
    mine, theirs = (
        torch.cat([one.detach().double().reshape(-1) for one in some if one is not None])
        for some in (found, wanted)
    )
    return float((mine - theirs).norm() / theirs.norm())


def _kernels_apart(gpu: Gpu) -> Found:
    worst = 0.0
    for stride, dilation, kernel in itertools.product((1, 2), (1, 2), (3, 5)):
        for channels, size in ((16, (32, 32)), (48, (7, 9))):
            x = torch.randn(4, channels, *size, device=gpu.device).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(channels, 1, kernel, kernel, device=gpu.device)
            results = []
            for dtype in (torch.float32, torch.float64):
                inputs = [one.to(dtype).requires_grad_() for one in (x, weight)]
                # In double precision, PyTorch's own operations run.
                out = relu_depthwise(*inputs, stride, dilation)
                results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
            worst = max(worst, _apart(*results))
    return {
        "by Triton": str(has_triton() and not gpu.cpu),
        "kernels against double precision": worst,
        "kernels are right": worst < 1e-5,
    }


def _kernels_tested(gpu: Gpu) -> Found:
    """Run the tests of Triton's kernels against the plain operations on the device."""
    cases = [ROOT / "tests" / "nn" / name for name in ("triton_cases.py", "triton_state_cases.py")]
    where = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    device = {"TRITON_INTERPRET": "1"} if gpu.cpu else {"KERNELS_ON": "cuda", "CARS_HW_LONG_TESTS": "1"}
    plain = ["-o", "addopts=", "-o", "filterwarnings=default", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plain, *map(str, cases)],
        env={**os.environ, **where, **device},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"kernels pass their tests": done.returncode == 0, "of kernels": lines[-1:], "failed": failed[:12]}


def tests(gpu: Gpu) -> Found:
    """Run the project's tests of recorded passes and shared weights on the device."""
    names = ("test_passes.py", "test_shared.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "on_gpu",
        "-o",
        "addopts=",
        "-o",
        "filterwarnings=default",
        "-q",
    ]
    # The plug-in takes the precision away that this test chooses.
    command += ["-o", "filterwarnings=default", "-k", "not precision_of_activations"]
    places = (Path(__file__).parent, TESTS, ROOT, ROOT / "tests")
    where = {"PYTHONPATH": os.pathsep.join(str(one) for one in places)}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *(str(TESTS / name) for name in names)],
        env={**os.environ, **where, "GPU_CHECK_CPU": str(int(gpu.cpu))},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"tests pass": done.returncode == 0, "tests": lines[-1:] or done.stderr[-300:], "failed": failed[:12]}


def blocks(gpu: Gpu) -> Found:
    """Compare passes of blocks with launched ones, and measure what the warm-up would gain, and the memory."""
    # On a CPU, too, the layers are those of a GPU.
    with as_on("cuda"):
        composed, launched = (gpu.weights(gpu.settings(), 4 * gpu.batch, replay=how) for how in ("blocks", "auto"))  # type: ignore[arg-type]
        images, labels = next(composed.batches.epoch(torch.Generator().manual_seed(0)))
        assert isinstance(composed.passes, GraphedPasses)
        # No architecture comes twice: whole passes are not recorded.
        people = gpu.architectures(4 if gpu.cpu else 200)
        later = people[len(people) // 2 :]
        worst = 0.0
        for one in people[: 2 * gpu.people]:
            worst = max(worst, _apart(*(_gradients(made, images, labels, one) for made in (composed, launched))))
        free = 0 if gpu.cpu else torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        began, recorded = time.perf_counter(), len(composed.passes.blocks or ())
        for one in people[2 * gpu.people : len(people) // 2]:
            composed.passes.run(images, labels, one, 1.0)
        gpu.wait()
        recordings = len(composed.passes.blocks or ()) - recorded
        seconds = time.perf_counter() - began
        taken = 0 if gpu.cpu else free - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()
        whole, alone = (
            [gpu.ms(lambda one=one, made=made: made.passes.run(images, labels, one, 1.0)) for one in later]  # type: ignore[misc]
            for made in (composed, launched)
        )
    return {
        "passes of blocks against launched ones": worst,
        "passes of blocks are right": worst < 1e-2,
        "blocks recorded": len(composed.passes.blocks or ()),
        "recording a block, ms at most": 1e3 * seconds / max(1, recordings),
        "the driver's bytes of a block": taken / max(1, recordings),
        "the first pass of an architecture, of blocks, ms": statistics.median(whole),
        "the same, launched, ms": statistics.median(alone),
    }


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
        **_final_training(gpu),
        "depthwise, us: forward and both gradients, Triton / cuDNN": _depthwise(gpu),
    }


def _final_training(gpu: Gpu) -> Found:
    # What cannot be recorded is measured as something else, so it is told.
    said: list[str] = []
    step, launched = (_step_ms(gpu, Stepping(replay=replay), said) for replay in ("auto", "off"))  # type: ignore[arg-type]
    return {
        "a step of the final training is recorded": not said,
        **({"why not": said} if said else {}),
        "a step of the final training, ms": step,
        "the same, launched one operation after the other, ms": launched,
        "final training of CARS-E, s an epoch of 50,000 images": step * 50_000 / _final(gpu)[1] / 1e3,
    }


def _final(gpu: Gpu) -> tuple[NetworkSpec, int]:
    """Return the size and the batch of a final training."""
    return (NetworkSpec(4, 5, (32, 32)), 8) if gpu.cpu else (NetworkSpec(36, 20, (32, 32)), 96)


def _training(gpu: Gpu, stepping: Stepping, **given: Any) -> NetworkTraining:  # noqa: ANN401
    """Return a final training of CARS-E."""
    shape, batch = _final(gpu)
    recipe = Recipe(epochs=2, batch_size=batch, auxiliary=0.4, drop_path=0.2, cutout=16)
    torch.manual_seed(0)
    network = Network(shape, zoo()["CARS_E"].genotype, auxiliary=True)
    images = random_images(batch * 4, shape)
    return NetworkTraining(network, images, recipe, seed=0, device=gpu.device, stepping=stepping, **given)


def _step_ms(gpu: Gpu, stepping: Stepping, said: list[str]) -> float:
    training = _training(gpu, stepping, log=said.append)
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


def _steps_apart(gpu: Gpu) -> Found:
    """Compare replayed steps of a final training with launched ones, with drop-path and its random numbers."""

    def launched() -> Recorder:
        def record(work: Callable[[], None]) -> Callable[[], None]:
            work()
            return work

        return record

    found = []
    with deterministic_algorithms(True):
        for recorder in (emulated_recorder if gpu.cpu else None, launched):
            training = _training(gpu, Stepping(), new_recorder=recorder)
            for _ in range(2):
                training.run_epoch()
            found.append(list(training.network.state_dict().values()))
    apart = _apart(*found)
    return {"replayed steps against launched ones": apart, "replayed steps are right": apart < 1e-3}


def _depthwise(gpu: Gpu) -> Found:
    rows: Found = {}
    for (channels, side), kernel, dilation in itertools.product(((16, 32), (64, 8)), (3, 5), (1, 2)):
        shape = (gpu.batch, channels, side, side)
        x = torch.randn(shape, device=gpu.device).bfloat16().contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, 1, kernel, kernel, device=gpu.device).bfloat16()
        padding = dilation * (kernel // 2)
        mine = torch.ops.cars_hw

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


def waits(gpu: Gpu) -> Found:
    """Count the lines that wait for the GPU, by PyTorch's own detector."""
    made, people = gpu.weights(gpu.settings(), 4 * max(gpu.batch, gpu.judged)), gpu.architectures(2)

    def draw(count: int) -> list[Architecture]:
        return people[:count]

    for _ in range(3):
        made.train(draw)
    made.counts(people)
    ways: dict[str, Callable[[], object]] = {
        "an epoch of replayed steps": lambda: made.train(draw),
        "judging two architectures": lambda: made.counts(people),
    }
    found: Found = {}
    for name, run in ways.items():
        if not gpu.cpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                run()
        finally:
            if not gpu.cpu:
                torch.cuda.set_sync_debug_mode("default")
        found[name] = dict(
            Counter(f"{Path(one.filename).name}:{one.lineno}" for one in heard if "synchron" in str(one.message))
        )
    return found


def paper(gpu: Gpu) -> Found:
    """Run two generations of the paper's search, and extrapolate the time of all of it."""
    from cars_hw.evolution.objectives import CostObjective
    from cars_hw.evolution.search import Search

    preset = PRESETS["paper"]
    evolution, settings = preset.evolution, preset.training
    if gpu.cpu:
        settings = replace(settings, batch_size=32, evaluation_images=32, evaluation_batch=16)
        evolution = replace(evolution, population=4, epochs_per_generation=2)
    made = gpu.weights(settings, 200 if gpu.cpu else 50_000)
    spec = NETWORKS["cifar"]
    cost = CostObjective("parameters", "M", lambda one: network_cost(spec, one.genotype).parameters / 1e6)
    search = Search(ArchitectureSpace(SearchSpace(), spec), [cost], made, evolution, seed=0)
    loading = gpu.ms(search.warm_up) / 1e3
    warm_up = gpu.ms(search.warm_up) / 1e3
    generations = []
    for _ in range(2):
        generations.append(gpu.ms(search.evolve) / 1e3)
    people = gpu.architectures(2 if gpu.cpu else 6, 5)
    finalists = gpu.ms(lambda: made.counts(people, full=True)) / len(people) * 3 * evolution.population / 1e3
    # The later generation has fewer architectures that are new, and so fewer recordings.
    whole = (
        warm_up * evolution.warmup_epochs
        + generations[0]
        + generations[1] * (evolution.generations - 1)
        + finalists
    )
    memory: Found = {}
    if not gpu.cpu:
        free, total = torch.cuda.mem_get_info()
        most = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total - free
        memory = dict(
            zip(("allocated, GB", "reserved, GB", "of the card, GB"), (one / 2**30 for one in most), strict=True)
        )
    return {
        "first epoch, s": loading,
        "an epoch of the warm-up, s": warm_up,
        "generations, s": generations,
        "finalists, s": finalists,
        "the paper's search, minutes": whole / 60,
        **memory,
    }


PARTS = {
    "starting": starting,
    "correct": correct,
    "tests": tests,
    "blocks": blocks,
    "time": times,
    "waits": waits,
    "paper": paper,
    "compile": compiled,
}


def table(out: Path, parts: Sequence[str], required: Mapping[str, float]) -> bool:
    """Print what the parts found, and return whether all of it is there, right, and within ``required``."""
    good = True
    for part in parts:
        path = out / f"{part}.json"
        if part == "compile" and not path.is_file():
            print(f"{part:8} no time was left")
            continue
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"nothing came back": False}
        for name, value in found.items():
            missed = value is False or (name in required and value > required[name])
            good = good and not missed
            asked = f"   required {required[name]:g}" if name in required else ""
            if isinstance(value, dict) and value:
                print(f"{part:8} {name}:")
                for key, one in value.items():
                    print(f"{'':12}{key:50} {one}")
                continue
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{part:8} {name}: {shown}{asked}{'   MISSED' if missed else ''}")
    return good


def run(command: Sequence[str], limit: float) -> int:
    """Return the exit code of ``command``. What it has started ends with it at the ``limit``, in seconds.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    # A test run that went on would disturb the times of the next part.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Run the parts, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="a dry run with tiny sizes")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="the folder of the results")
    parser.add_argument("--seconds", type=float, default=540, help="the time of all parts")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        found = PARTS[options.part](Gpu(options.cpu))
        (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        return
    parts, ends = options.parts.split(","), time.monotonic() + options.seconds
    for part in parts:
        (options.out / f"{part}.json").unlink(missing_ok=True)
        command = [
            sys.executable,
            __file__,
            "--part",
            part,
            "--out",
            str(options.out),
            *(["--cpu"] if options.cpu else []),
        ]
        began = time.monotonic()
        try:
            limit = 600.0 if options.cpu else max(5.0, min(LIMITS[part], ends - time.monotonic()))
            code: object = run(command, limit)
        except subprocess.TimeoutExpired:
            code = "too slow"
        print(f"{part}: {code}, {time.monotonic() - began:.0f} s", flush=True)
    # The times of a dry run mean nothing.
    sys.exit(0 if table(options.out, parts, {} if options.cpu else REQUIRED) else 1)


if __name__ == "__main__":
    main()
