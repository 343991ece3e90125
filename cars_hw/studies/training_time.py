"""The estimated time of the trainings of a comparison: a few steps are timed and multiplied."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final

import numpy as np
import torch
from torch import nn

from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle
from cars_hw.executors.workers import default_jobs
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.nn.reduced_images import reduced_images
from cars_hw.pipeline.estimate import Part
from cars_hw.space.architecture import Architecture
from cars_hw.training.standalone import NetworkTraining
from cars_hw.training.threads import step_threads, torch_threads

TIMED: Final = 4
"""So many networks of the cell space are timed. The time of a step of the others follows from their arithmetic."""

WARM_UP: Final = 4
"""A step is timed after another one with this fraction of its images, which includes allocation."""


def training_parts(
    networks: Sequence[tuple[str, Architecture]],
    references: Mapping[str, Callable[[], nn.Module]],
    data: DataBundle,
    recipe: Recipe,
    *,
    device: str,
    jobs: int | None,
) -> list[Part]:
    """Return the time of the training of ``networks`` of the cell space, and of each of ``references``.

    ``networks`` have the name of their part. ``jobs`` networks are trained side by side, as far as there are so
    many: first those of the cell space, then the references. The evaluations are not counted.
    """
    side = jobs or default_jobs(device, max(len(networks), len(references)))
    threads = 0 if device != "cpu" else max(1, torch.get_num_threads() // side)
    parts, beside = [], min(side, len(networks))
    with torch.random.fork_rng(devices=[]), torch_threads(threads):
        seconds = _seconds_of(networks, data, recipe, device)
        steps = _steps(data, recipe)
        for name in dict.fromkeys(name for name, _ in networks):
            own = [one for (part, _), one in zip(networks, seconds, strict=True) if part == name]
            parts.append(Part(f"{name}, {_trainings(len(own), beside)}", len(own) * steps, fmean(own) / beside))
        for name, make in references.items():
            seconds_each = _step_seconds(make(), data, recipe, device)
            parts.append(Part(name, steps, seconds_each / min(side, len(references))))
    return parts


def _trainings(number: int, side: int) -> str:
    beside = f", {side} side by side" if side > 1 else ""
    return f"{number} {'training' if number == 1 else 'trainings'}{beside}"


def _steps(data: DataBundle, recipe: Recipe) -> int:
    share = 0.0 if data.validation is not None else recipe.hold_out
    return recipe.epochs * max(1, round(len(data.train) * (1 - share) / recipe.batch_size))


def _seconds_of(
    networks: Sequence[tuple[str, Architecture]], data: DataBundle, recipe: Recipe, device: str
) -> list[float]:
    """Return the seconds of a step of each of ``networks``."""
    adds = [network_cost(one.network, one.genotype).multiply_adds / 1e6 for _, one in networks]
    order = np.argsort(adds, kind="stable")
    places = dict.fromkeys(int(order[round(one)]) for one in np.linspace(0, len(order) - 1, min(TIMED, len(order))))
    timed = {
        place: _step_seconds(Network(networks[place][1].network, networks[place][1].genotype), data, recipe, device)
        for place in places
    }
    known = sorted((adds[place], seconds) for place, seconds in timed.items())
    return [float(np.interp(one, [x for x, _ in known], [y for _, y in known])) for one in adds]


def _step_seconds(network: nn.Module, data: DataBundle, recipe: Recipe, device: str) -> float:
    # The auxiliary head and what is held out change little.
    plain = replace(recipe, auxiliary=0.0, hold_out=0.0)
    training = NetworkTraining(network, data, plain, seed=0, device=device)
    training.network.train()
    images, labels = next(training.batches.epoch(torch.Generator().manual_seed(0)))
    if isinstance(network, Network):
        # The images have the largest resolution of the run, and its networks may have several.
        images = reduced_images(images, network.spec.resolution)
    # A step is recorded for its number of images.
    few = len(labels) if training.step.records else max(2, len(labels) // WARM_UP)
    with torch_threads(step_threads(network, recipe.batch_size) if device == "cpu" else 0):
        for _ in range(training.first_steps):
            training.step(images[:few], labels[:few])
        _wait(device)
        began = time.perf_counter()
        training.step(images, labels)
        _wait(device)
        return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
