"""Training torchvision's networks as a run's networks are trained, and keeping what they came to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from cars_hw.data import DataBundle
from cars_hw.experiments.references import make
from cars_hw.files import replacing, write_json
from cars_hw.runs.plan import DataSource
from cars_hw.runs.workers import Heard, Said
from cars_hw.spec import NetworkSpec
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.network import train_network
from cars_hw.training.settings import Recipe

MOMENTUM: Final = 0.1
"""How fast running averages of normalisations move, in all alike: MNASNet's own 0.0003 is for long trainings."""


@dataclass(frozen=True)
class References:
    """What all references are trained as: ``data`` is what ``source`` holds; ``jobs`` networks side by side."""

    source: DataSource
    data: DataBundle
    recipe: Recipe
    seed: int
    device: str
    jobs: int | None
    heard: Heard
    say: Said


def train_reference(
    name: str, model: str, spec: NetworkSpec, folder: Path, settings: References
) -> tuple[nn.Module, float]:
    """Return torchvision's ``model`` for the images and classes of ``spec``, trained, and its test accuracy.

    Its weights are kept in ``folder`` as ``name``. What is there with the same settings is not trained again, and
    what was killed goes on after its last epoch.

    Raises:
        TrainingError: the loss is no longer a number.
        RunError: its checkpoint cannot be read.
    """
    about = _about(model, spec, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = make(model, spec.input_shape, spec.classes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = MOMENTUM
        accuracy = _kept(network, folder, name, about)
        if accuracy is None:
            accuracy = _train(network, folder, name, about, settings)
    return network, accuracy


def _kept(network: nn.Module, folder: Path, name: str, about: dict[str, Any]) -> float | None:
    """Give ``network`` the weights that the same training came to and return their accuracy, if they are there."""
    try:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if record["about"] != about:
            return None
        network.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
        return float(record["accuracy"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError):
        # What cannot be read is trained again.
        return None


def _train(network: nn.Module, folder: Path, name: str, about: dict[str, Any], settings: References) -> float:
    checkpoint = TrainingCheckpoint(
        folder / "checkpoint" / f"{name}.pt", about, lambda line: settings.say(f"{name}: {line}")
    )
    result = train_network(
        network,
        settings.data,
        settings.recipe,
        seed=settings.seed,
        device=settings.device,
        checkpoint=checkpoint,
        progress=lambda done, total: settings.heard(name, done, total),
    )
    # The record goes first and comes last: weights without one are not used.
    (folder / f"{name}.json").unlink(missing_ok=True)
    with replacing(folder / f"{name}.pt") as temporary:
        torch.save({key: value.cpu() for key, value in network.state_dict().items()}, temporary)
    write_json(folder / f"{name}.json", {"about": about, "accuracy": result.accuracy, "loss": result.loss})
    checkpoint.remove()
    return result.accuracy


def _about(model: str, spec: NetworkSpec, settings: References) -> dict[str, Any]:
    """Return all that decides the weights, but for the machine."""
    return {
        "model": model,
        "network": json.dumps(spec.to_dict()),
        "data": f"{settings.source.source}: {len(settings.data.train)} training images",
        "seed": settings.seed,
        **{f"recipe.{name}": value for name, value in asdict(settings.recipe).items()},
    }
