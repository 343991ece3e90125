"""The parts of the check that compare results: replays with plain passes, and Triton's kernels with PyTorch's."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from gpu_setting import ROOT, TESTS, Found, Gpu, emulated_recorder, final_training
from torch import Tensor

from cars_hw.nn.fused import has_triton, relu_depthwise
from cars_hw.space.architecture import Architecture
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.network_step import Stepping
from cars_hw.training.recorder import Recorder
from cars_hw.training.shared_weights import SuperNetWeights


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
            found, wanted, repeated = (gradients(made, images, labels, one) for made in (graphed, plain, again))
            worst, noise = max(worst, distance(found, wanted)), max(noise, distance(repeated, wanted))
    return {
        "replay against plain": worst,
        "plain against plain": noise,
        "replays are right": worst <= max(1e-3, 4 * noise),
        **_steps_apart(gpu),
        **_kernels_apart(gpu),
        **_kernels_tested(gpu),
    }


def gradients(made: SuperNetWeights, images: Tensor, labels: Tensor, one: Architecture) -> list[Tensor | None]:
    """Return the gradient of each parameter after a pass of ``one``; None where it has none."""
    made.passes.clear()
    made.passes.run(images, labels, one, 1.0)
    return [None if of.grad is None else of.grad.clone() for of in made.parameters]


def distance(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> float:
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
            worst = max(worst, distance(*results))
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
            training = final_training(gpu, Stepping(), new_recorder=recorder)
            for _ in range(2):
                training.run_epoch()
            found.append(list(training.network.state_dict().values()))
    apart = distance(*found)
    return {"replayed steps against launched ones": apart, "replayed steps are right": apart < 1e-3}
