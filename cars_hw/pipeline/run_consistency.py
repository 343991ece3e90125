"""What the files of a run must agree on with its configuration.

A file that was not changed after it was written may still be that of another run.
"""

from __future__ import annotations

from collections.abc import Sequence

from cars_hw.data.manifest import DataManifest
from cars_hw.pipeline.networks import Front, FrontNetwork, TrainedNetwork
from cars_hw.pipeline.records import GenerationRecord, RunConfiguration


def problem_of_data(manifest: DataManifest, configuration: RunConfiguration) -> str | None:
    """Return in words why ``manifest`` is not that of the images of a run; None if it is."""
    network = configuration.network
    if (len(manifest.class_names), len(manifest.mean)) != (network.classes, network.in_channels):
        return "it does not fit the run's network"
    return None


def problem_of_history(generations: Sequence[GenerationRecord], configuration: RunConfiguration) -> str | None:
    """Return in words why ``generations`` are not those of a run; None if they are."""
    costs = len(configuration.targets) + len(configuration.costs)
    if any(len(member.costs) != costs for generation in generations for member in generation.population):
        return f"a member must have {costs} costs"
    return None


def problem_of_front(front: Front, configuration: RunConfiguration) -> str | None:
    """Return in words why ``front`` is not that of a run; None if it is."""
    targets = len(configuration.targets)
    if not front.networks:
        return "it holds no network"
    if any(len(one.latency_estimates) != targets for one in (*front.networks, *front.rejected)):
        return f"a network must have {targets} latency estimates"
    if len({one.name for one in front.networks}) < len(front.networks):
        return "two networks have one name"
    return problem_of_networks((*front.networks, *front.rejected), configuration)


def problem_of_networks(
    networks: Sequence[FrontNetwork | TrainedNetwork], configuration: RunConfiguration
) -> str | None:
    """Return the first of ``networks`` that differs from the run's in more than its size, in words; or None."""
    own, several = configuration.network, configuration.architectures.varies_resolution
    for one in networks:
        if not one.spec.is_size_of(own, any_resolution=several):
            return f"{one.name} is of {one.spec.describe()}, and the run's network of {own.describe()}"
    return None
