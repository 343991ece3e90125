"""The last stage of a profile: a few of its networks run under load, for the sustained state of the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cars_hw.config.measurement import SustainedPlan
from cars_hw.devices.protocol import Device, learnt_by
from cars_hw.latency.sustained import LoadedNetwork, SustainedState
from cars_hw.measurement.journal import Journal
from cars_hw.measurement.sustained import Sustained, measure_sustained
from cars_hw.progress import Progress
from cars_hw.space.architecture import Architecture


class LoadModel(NamedTuple):
    """A network of a profile, its model file, and its latency in the quiet state in milliseconds."""

    architecture: Architecture
    path: Path
    quiet_ms: float


def sustained_state(
    device: Device, models: Mapping[str, LoadModel], plan: SustainedPlan, journal: Journal, progress: Progress
) -> SustainedState:
    """Run the first, the fastest and the slowest of ``models`` under load, and return what they take.

    ``journal`` keeps each of them, and has those that an interrupted profile has run.

    Raises:
        DeviceError: the device fails.
    """
    if journal.loaded is None:
        journal.loaded = _to_load(models)
        journal.keep()

    def keep(load: Sustained) -> None:
        journal.loads.append(load)
        journal.learn(learnt_by(device))
        journal.keep()

    chosen = [models[name] for name in journal.loaded]
    paths = [model.path for model in chosen]
    loads = measure_sustained(device, paths, plan, progress=progress, done=journal.loads, on_model=keep)
    return SustainedState(
        tuple(
            LoadedNetwork(genotype, network.channels, network.layers, network.resolution, model.quiet_ms, load)
            for model, load in zip(chosen, loads, strict=True)
            for genotype, network in (model.architecture,)
        ),
        load=plan,
    )


def _to_load(models: Mapping[str, LoadModel]) -> list[str]:
    """Return the names of the first, the fastest and the slowest model, each once."""
    first, *others = models
    ranked = sorted(others, key=lambda name: models[name].quiet_ms)
    return list(dict.fromkeys([first, *ranked[:1], *ranked[-1:]]))
