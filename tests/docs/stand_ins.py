"""What makes the examples of the docs run in seconds: small presets, networks and images, devices that compute."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import pytest
import torch
from few_descents import descend_once
from loaded_device import hurried
from PIL import Image

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES
from cars_hw.config.search import EvolutionSettings
from cars_hw.data.dataset import Dataset
from cars_hw.devices import FakeDevice, registry
from cars_hw.devices.load import Spell
from cars_hw.devices.protocol import ModelFormat, Sample, SessionCounter
from cars_hw.errors import DeviceError
from cars_hw.latency import LatencyTable, OpKey, genotype_keys, profile_device
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.size_grid import SizeGrid

GREY = NetworkSpec(4, 3, (8, 8), 1)
COLOUR = NetworkSpec(4, 3, (8, 8), 3)
SMALL_NETWORKS = {
    "quick": GREY,
    "tiny": GREY,
    "cifar": COLOUR,
    "imagenet": replace(COLOUR, resolution=(32, 32), stem="imagenet"),
}

TRAINING_IMAGES, TEST_IMAGES = 120, 40

PHONES = ("AAA", "BBB")

FEWER: Final = {
    "profile": {"calibration": 8},
    "rank": {"sample": 4},
    "baselines": {"seeds": 1, "top": 1},
}
"""What a command takes where its line does not say it, as click's ``default_map``: each of it is a training."""


class Computing(FakeDevice):
    """Stands for a runtime or a phone: a model takes as many nanoseconds as its file has bytes."""

    format: ClassVar[ModelFormat] = "onnx"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.model_format = self.format  # type: ignore[misc]

    @classmethod
    def runtime(cls) -> str:
        return "a stand-in"

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), "battery_percent": 80}

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        samples = []
        for done, model in enumerate(models, start=1):
            if not model.is_file():
                raise DeviceError(f"{self.name}: no model {model}")
            samples.append(Sample(model.stat().st_size * 1e-6))
            if on_session is not None:
                on_session(done)
        return samples


class ComputingTflite(Computing):
    format = "tflite"


class ComputingPhone(ComputingTflite):
    """Stands for a phone or a board, which can run a model for minutes."""

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        del seconds, rested
        return [Spell(((0.5, model.stat().st_size * 1e-6),), 100)] * sessions


def small_images(channels: int) -> tuple[Dataset, Dataset]:
    """Ten classes of bright stripes on noise, of 8x8 pixels."""
    rng = np.random.default_rng(channels)

    def part(count: int) -> Dataset:
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 90, (count, channels, 8, 8))
        pixels[np.arange(count), :, labels % 8] += 40 + 10 * labels[:, None, None]
        return Dataset(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels).long())

    return part(TRAINING_IMAGES), part(TEST_IMAGES)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Shrink presets, recipes, named networks and data sets, and stand in for every device."""
    shared = replace(
        PRESETS["quick"].training,
        batch_size=32,
        evaluation_images=20,
        evaluation_batch=500,
        validation_fraction=0.3,
    )
    recipe = replace(PRESETS["quick"].recipe, epochs=1)
    for name, preset in PRESETS.items():
        evolution = EvolutionSettings(
            population=2, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection=preset.evolution.protection
        )
        small = replace(preset, evolution=evolution, training=shared, recipe=recipe)
        if preset.supernet_channels is not None:
            small = replace(small, supernet_channels=4, supernet_layers=3)
        patch.setitem(PRESETS, name, small)
    for name, published in RECIPES.items():
        patch.setitem(RECIPES, name, replace(published, epochs=1, batch_size=32, auxiliary=0.0))
    for name, spec in SMALL_NETWORKS.items():
        patch.setitem(NETWORKS, name, spec)
    patch.setattr("cars_hw.data.sources._fashion_mini", lambda: small_images(1))
    patch.setattr("cars_hw.data.sources._torchvision", lambda *_: small_images(3))
    descend_once(patch)
    # Few networks to calibrate on.
    patch.setattr(profile_device, "__kwdefaults__", {**profile_device.__kwdefaults__, "calibration": 8})
    # What is patched here is not in processes that are started afresh.
    patch.setattr("cars_hw.executors.spread.default_jobs", lambda *_: 1)
    patch.setattr(registry, "_HOST", _Hosts())
    patch.setattr("cars_hw.devices.android.opening.open_android", _open_phone)
    patch.setattr("cars_hw.devices.board.device.open_board", _open_board)
    patch.setattr("cars_hw.measurement.sustained.Clock", hurried)
    patch.setattr("cars_hw.devices.android.adb.usb_phones", lambda: PHONES)
    patch.setattr(
        "cars_hw.devices.android.adb.usb_names", lambda phones: [f"android:{serial}" for serial in phones]
    )


class _Hosts(dict[str, Any]):
    """The registry's runtimes, each a stand-in."""

    def __init__(self) -> None:
        super().__init__(ort=_Host("ort", Computing), litert=_Host("litert", ComputingTflite))


class _Host:
    def __init__(self, name: str, kind: type[Computing]) -> None:
        self.name, self.kind, self.runtime = name, kind, kind.runtime

    def __call__(self, threads: int = 1) -> Computing:
        return self.kind(self.name)


def _open_phone(where: str, threads: int = 1, **_: object) -> Computing:
    return ComputingPhone(f"android:{where or PHONES[0]}")


def _open_board(where: str, threads: int = 1, **_: object) -> Computing:
    return ComputingPhone(f"ssh:{where}")


def write_quickly(patch: pytest.MonkeyPatch) -> None:
    """Write models that are measured, and never run, as files of the right size without a network in them."""

    def operation(key: OpKey, path: Path, *_: object) -> None:
        path.write_bytes(bytes(_size(key)))

    def network(spec: NetworkSpec, genotype: Genotype, path: Path, *_: object) -> None:
        path.write_bytes(bytes(sum(_size(placed.key) for placed in genotype_keys(spec, genotype))))

    # The fake device reads the network out of a file, and these files have none.
    patch.setattr(registry, "FakeDevice", lambda **_: Computing("fake"))
    # By name, since a package's function may be called as its module is.
    profiling = import_module("cars_hw.latency.profiled_models")
    patch.setattr(profiling, "build_overhead", lambda path, *_: path.write_bytes(bytes(10)))
    patch.setattr(profiling, "build_model", operation)
    for module in ("latency.profiled_models", "latency.measure", "pipeline.verify"):
        patch.setattr(import_module(f"cars_hw.{module}"), "build_network", network)


def _size(key: OpKey) -> int:
    """Return what an operation takes, in nanoseconds: not the same for any two kinds."""
    channels, height, width = key.source
    return 1000 + 10 * len(key.kind) + channels * height * width // 4


GREY_TABLES = ("table.json", "quickstart/table.json", "A.json", "B.json", "before.json", "after.json")
COLOUR_TABLES = ("cifar.json", "phone.json")
RUNS = ("run", "quickstart/run")


def make_world(folder: Path) -> None:
    """Lay out what the command lines of the docs take for granted: tables, a finished run, an image.

    Run with :func:`make_small` and :func:`write_quickly` in force.
    """
    plan = MeasurePlan(sessions=1)
    grey = profile_device(Computing("ort"), GREY, plan=plan)
    for name in GREY_TABLES:
        grey.write(folder / name)
    sizes = SizeGrid((4, 6), (3, 4))
    profile_device(Computing("fake"), GREY, sizes=sizes, plan=plan).write(folder / "sizes.json")
    colour = profile_device(Computing("ort"), COLOUR, plan=plan)
    for name in COLOUR_TABLES:
        colour.write(folder / name)
    for serial in PHONES:
        phone = replace(colour, device=f"android:{serial}")
        phone.write(folder / f"phones-android-{serial}.json")
    data = DataSource("fashion-mini")
    run = run_search(_plan(data, grey), folder / "run")
    # One network is enough to train and export, and it has a name that examples can speak of.
    run.write_front(run.front()[:1])
    train_run(run, TrainSettings(data, jobs=1))
    export_run(run, data=data)
    shutil.copytree(run.path, folder / "quickstart" / "run")
    Image.new("L", (20, 20), 128).save(folder / "image.png")
    (folder / "benchmark_model").write_bytes(b"\x7fELF" + bytes(60))
    for number in range(80):
        path = folder / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (100 * (number % 2), number, 90)).save(path)


def _plan(data: DataSource, table: LatencyTable) -> SearchPlan:
    from cars_hw.pipeline.latency_target import LatencyTarget

    return SearchPlan(data, table.spec, PRESETS["quick"], (LatencyTarget(table, 1.0),))
