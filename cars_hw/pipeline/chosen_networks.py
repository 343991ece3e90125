"""Which networks of a run are trained, and their names."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from cars_hw.errors import InputError
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec


def choose(front: Sequence[FrontNetwork], count: int) -> list[FrontNetwork]:
    """Return ``count`` networks spread evenly over ``front``, both ends among them.

    A front is ordered by its first cost, and with one cost its last network is the most accurate. For a ``count``
    of 1 the most accurate network is returned. A smaller front is returned as a whole.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"train at least one network, not {count}")
    if count >= len(front):
        return list(front)
    if count == 1:
        return [max(front, key=lambda network: network.accuracy)]
    steps = [index * (len(front) - 1) / (count - 1) for index in range(count)]
    return [front[round(step)] for step in steps]


def with_genotype(settings: TrainSettings) -> TrainSettings:
    """Return ``settings`` with the genotype and size of the weights to start from, if no genotype is given."""
    if settings.init is None or settings.genotype is not None:
        return settings
    model = StartingWeights.read(settings.init.expanduser()).model
    return replace(
        settings,
        genotype=model.genotype,
        channels=settings.channels or model.spec.channels,
        layers=settings.layers or model.spec.layers,
    )


def chosen_networks(run: RunFolder, settings: TrainSettings) -> list[tuple[str, Architecture]]:
    """Return the names and architectures of the networks that ``settings`` chooses."""
    genotype = settings.genotype
    if genotype is None:
        if (settings.channels, settings.layers, settings.resolution) != (None, None, None):
            raise InputError(
                "channels, layers and resolution are for a genotype; networks of the front have their own"
            )
        return [(network.name, network.architecture) for network in choose(run.front(), settings.top)]
    known = [
        network
        for network in run.front()
        if network.genotype.key() == genotype.key()
        and settings.channels in (None, network.spec.channels)
        and settings.layers in (None, network.spec.layers)
        and settings.resolution in (None, network.spec.resolution)
    ]
    several = run.configuration.architectures.varies_resolution
    if len({network.spec for network in known}) > 1:
        sizes = ", ".join(f"{network.name} ({run.configuration.size_of(network.spec)})" for network in known)
        raise InputError(
            f"networks of several sizes have this genotype: {sizes}",
            remedy="choose-size-or-resolution" if several else "choose-size",
        )
    if known:
        return [(known[0].name, Architecture(genotype, known[0].spec))]
    if settings.resolution not in (None, run.network.resolution) and not several:
        raise InputError(
            f"the networks of {run.path} have {run.network.pixels} pixels; another resolution is for a run of a "
            "search over several"
        )
    spec = run.network.with_changes(
        channels=settings.channels, layers=settings.layers, resolution=settings.resolution
    )
    return [(_name_of(genotype, spec, run.network), Architecture(genotype, spec))]


def _name_of(genotype: Genotype, spec: NetworkSpec, own: NetworkSpec) -> str:
    """Return a name for a genotype that is not in the front; it has the size where that is not ``own``."""
    name = f"genotype-{zlib.crc32(repr(genotype.key()).encode()):08x}"
    if spec == own:
        return name
    at = "" if spec.resolution == own.resolution else f"-{spec.pixels}"
    return f"{name}-{spec.channels}x{spec.layers}{at}"
