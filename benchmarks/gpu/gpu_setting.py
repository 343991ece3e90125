"""The device of the check, the paper's setting at the sizes that fit it, and a final training."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cars_hw.config.training import PassReplay, Recipe, SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo
from cars_hw.training.network_step import Stepping
from cars_hw.training.recorded_passes import SlicedPasses
from cars_hw.training.recorder import Recorder
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone import NetworkTraining

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "training"

Found = dict[str, Any]
"""What a part found, by what it is."""


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


def final_size(gpu: Gpu) -> tuple[NetworkSpec, int]:
    """Return the size and the batch of a final training."""
    return (NetworkSpec(4, 5, (32, 32)), 8) if gpu.cpu else (NetworkSpec(36, 20, (32, 32)), 96)


def final_training(gpu: Gpu, stepping: Stepping, **given: Any) -> NetworkTraining:  # noqa: ANN401
    """Return a final training of CARS-E."""
    shape, batch = final_size(gpu)
    recipe = Recipe(epochs=2, batch_size=batch, auxiliary=0.4, drop_path=0.2, cutout=16)
    torch.manual_seed(0)
    network = Network(shape, zoo()["CARS_E"].genotype, auxiliary=True)
    images = random_images(batch * 4, shape)
    return NetworkTraining(network, images, recipe, seed=0, device=gpu.device, stepping=stepping, **given)
