"""How options of ``cars-hw search`` become settings, where one option sets several or needs another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.settings import given_paths

if TYPE_CHECKING:
    from cars_hw.config.evaluation import SearchObjective


def random_share(share: float, _values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates at which offspring are made: mutation and crossover each have half of the rest."""
    rest = (1 - share) / 2
    return {"evolution": {"rates": {"random": share, "mutation": rest, "crossover": rest}}}


def tables(paths: Sequence[Path], _values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a target for each table."""
    return {"targets": [{"table": str(path)} for path in paths]}


def limits(latencies: Sequence[float], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the targets with their largest latencies, in milliseconds."""
    targets = values.get("targets", ())
    if len(latencies) != len(targets):
        raise click.UsageError(f"{len(latencies)} --latency for {len(targets)} --table: give one to each, or none")
    return {"targets": [{**one, "limit_ms": ms} for one, ms in zip(targets, latencies, strict=True)]}


def at_least(latencies: Sequence[float], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the targets with their smallest latencies, in milliseconds."""
    targets = values.get("targets", ())
    if len(latencies) != len(targets):
        raise click.UsageError(f"{len(latencies)} --at-least for {len(targets)} --table: give one to each, or none")
    return {"targets": [{**one, "at_least_ms": ms} for one, ms in zip(targets, latencies, strict=True)]}


def size_of(name: str, _values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of the network ``name``, which is that of the search where it is named."""
    from cars_hw.space.network_spec import named_network

    network = named_network(name)
    resolution = list(network.resolution)
    return {"sizes": {"channels": [network.channels], "layers": [network.layers], "resolutions": [resolution]}}


def mirror(wanted: bool, _values: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether images are mirrored in the search and in the training of its front."""
    return {"training": {"mirror": wanted}, "recipe": {"mirror": wanted}}


def no_crop(_given: bool, _values: Mapping[str, Any]) -> dict[str, Any]:
    """Return that images are cropped neither in the search nor in the training of its front."""
    return {"training": {"crop_padding": 0}, "recipe": {"crop_padding": 0, "crop_scale": 0.0}}


def state(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the targets in the state of the machine with this name."""
    targets = values.get("targets", ())
    if not targets:
        raise click.UsageError("--state is for latencies: give a --table")
    return {"targets": [{**one, "state": name} for one in targets]}


def objective(chosen: SearchObjective, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objective of the recipe that trains the front."""
    # A training chooses its best epoch by an accuracy.
    return {} if chosen == "loss" else {"recipe": {"objective": chosen}}


def with_room(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of the preset's epochs or warm-up that leave a generation, if these are chosen later.

    ``--within`` chooses the epochs. ``--from-run`` chooses the warm-up for given epochs.
    """
    given, evolution = given_paths(), values["evolution"]
    within, from_run = click.get_current_context().params.get("within") is not None, "from_run" in values
    epochs, warm_up, each = (evolution[name] for name in ("epochs", "warmup_epochs", "epochs_per_generation"))
    if within and "evolution.epochs" not in given:
        return {"evolution": {"epochs": max(epochs, warm_up + each)}}
    if (within or from_run) and "evolution.warmup_epochs" not in given:
        return {"evolution": {"warmup_epochs": min(warm_up, max(epochs - each, 0 if from_run else 1))}}
    return {}
