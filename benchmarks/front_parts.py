"""What a comparison of fronts is about: its networks, settings and images, and what a way has done so far."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from front_figures import Box

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.data import DataSource
from cars_hw.config.presets import Preset
from cars_hw.config.search import EvolutionSettings, FinalSettings, VariationRates
from cars_hw.config.training import EvaluatedClassifier, Recipe, SharedTraining
from cars_hw.config.units import format_latency
from cars_hw.data import DataBundle
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import feasible
from cars_hw.evolution.passes import JudgedImages
from cars_hw.latency import LatencyTable
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search_cost import judged_images
from cars_hw.progress import no_log
from cars_hw.space.architecture import Architecture
from cars_hw.training.checkpoints import TrainingCheckpoint

PART = ChecksummedFormat("part of a comparison of fronts", 1, "profile")
"""What a way has done so far: the results of its trainings by name, and its seconds."""


class Candidate(NamedTuple):
    """A network and its predicted latency in ms; ``held_out`` is the accuracy that chooses it, if it is known."""

    architecture: Architecture
    ms: float
    held_out: float | None = None

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{zlib.crc32(repr(self.architecture.key()).encode()):08x}"

    @property
    def accuracy(self) -> float:
        """The accuracy on the held-out images, which must be known."""
        assert self.held_out is not None
        return self.held_out

    @property
    def multiply_adds(self) -> int:
        """Those of the exported network."""
        return network_cost(self.architecture.network, self.architecture.genotype).multiply_adds


class Cost(NamedTuple):
    """What a search cost: passes of images, and the multiply-adds of these passes."""

    passes: float
    multiply_adds: float


class Searched(NamedTuple):
    """The front of a way, cheapest first, and what it cost."""

    front: list[Candidate]
    cost: Cost


@dataclass(frozen=True)
class Settings:
    """What all ways have in common. ``table`` is when the table was made, and ``images`` are those of the parts."""

    data: str
    images: list[int]
    table: str
    least_ms: float
    limit_ms: float
    population: int
    epochs: int
    warmup_epochs: int
    search_batch: int
    search_rate: float
    evaluation_images: int
    final: float
    stretches: int
    front: int
    front_epochs: int
    batch: int
    rate: float
    threads: int
    classifier: EvaluatedClassifier = "shared"


OPTIONS = [one.name for one in fields(Settings)][5:]
"""The settings that are options of the command line."""


@dataclass(frozen=True, eq=False)
class Task:
    """The images, the table and the settings."""

    data: DataSource
    table: LatencyTable
    bundle: DataBundle
    settings: Settings

    @cached_property
    def recipe(self) -> Recipe:
        """How networks are trained from scratch."""
        settings = self.settings
        return Recipe(
            epochs=settings.front_epochs,
            batch_size=settings.batch,
            learning_rate=settings.rate,
            crop_padding=self._padding,
        )

    @property
    def _padding(self) -> int:
        return max(1, self.table.spec.resolution[0] // 8)

    @cached_property
    def plan(self) -> SearchPlan:
        """The search over cells and size with seed 0."""
        settings = self.settings
        preset = Preset(
            summary="",
            recipe=self.recipe,
            evolution=EvolutionSettings(
                population=settings.population,
                epochs=settings.epochs,
                warmup_epochs=settings.warmup_epochs,
                epochs_per_generation=1,
                protection="size",
                rates=VariationRates(mutation=0.45, crossover=0.45, random=0.1),
            ),
            training=SharedTraining(
                batch_size=settings.search_batch,
                learning_rate=settings.search_rate,
                crop_padding=self._padding,
                evaluation_images=settings.evaluation_images,
                classifier=settings.classifier,
                threads=settings.threads,
            ),
            final=FinalSettings(settings.final, settings.stretches),
        )
        target = LatencyTarget(self.table, settings.limit_ms)
        return SearchPlan(self.data, self.table.spec, preset, (target,), sizes=self.table.sizes)

    @cached_property
    def images(self) -> JudgedImages:
        """The numbers of images that train and that evaluate."""
        train, val, _ = self.settings.images
        return judged_images(self.plan, train, val)

    @property
    def box(self) -> Box:
        """The box of the hypervolumes."""
        return Box(self.settings.least_ms, self.settings.limit_ms, self.table.spec.classes)

    def candidate(self, architecture: Architecture) -> Candidate:
        """Return ``architecture`` with its predicted latency."""
        return Candidate(architecture, self.plan.targets[0].predict(architecture).ms)

    def allows(self, architecture: Architecture) -> bool:
        """Return whether the search may propose ``architecture``."""
        return self.plan.architectures.proposable(architecture) and feasible(self._objectives, architecture)

    @cached_property
    def _objectives(self) -> list[Any]:
        return cost_objectives(self.plan)


class Part:
    """A way with one seed: its folder, and what it has done so far."""

    def __init__(self, folder: Path, task: Task, seed: int, log: Callable[[str], None]) -> None:
        self.folder, self.task, self.seed, self.log = folder, task, seed, log
        self._path = folder / "part.json"
        self.results: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            content = PART.read(self._path)
            if content["settings"] != asdict(task.settings):
                raise InputError(f"{folder} was made with other settings; give another --work")
            self.results, self.seconds = content["results"], content["seconds"]
        else:
            self._write()

    def _write(self) -> None:
        settings = asdict(self.task.settings)
        PART.write(self._path, {"settings": settings, "results": self.results, "seconds": self.seconds})

    def result(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 -- what JSON holds
        """Return the result ``name``, which ``make`` gives if it is not there yet."""
        if name not in self.results:
            self.results[name] = make()
            self._write()
        return self.results[name]

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the processor seconds of the block to those of ``name``; an interrupted block counts."""
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.process_time() - began, 1)
            self._write()

    def checkpoint(self, one: Candidate, recipe: Recipe) -> TrainingCheckpoint:
        """Return the checkpoint of the training of ``one`` by ``recipe``."""
        about = {
            "network": repr(one.architecture.network),
            "genotype": repr(one.architecture.genotype),
            "recipe": repr(recipe),
            "seed": self.seed,
        }
        return TrainingCheckpoint(self.folder / f"{one.name}.checkpoint", about, no_log)


def fresh(one: Candidate, seed: int) -> Network:
    """Return the network of ``one`` with fresh weights."""
    torch.manual_seed(seed)
    return Network(one.architecture.network, one.architecture.genotype)


def latencies_of(networks: Sequence[Candidate]) -> str:
    """Return the range of the latencies of ``networks`` as text."""
    latencies = [one.ms for one in networks]
    return f"{format_latency(min(latencies))} to {format_latency(max(latencies))}"


def accuracies_of(networks: Sequence[Candidate]) -> str:
    """Return the range of the accuracies of ``networks`` as text."""
    values = [one.accuracy for one in networks]
    return f"{min(values):.3f} to {max(values):.3f}"
