"""The SuperNet of a plan, and the network as which each of its architectures runs."""

from __future__ import annotations

from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec


def trained_spec(plan: SearchPlan, supernet: NetworkSpec, architecture: Architecture) -> NetworkSpec:
    """Return the network as which ``architecture`` runs in the search.

    In a search over sizes it has the architecture's own size. Otherwise it is ``supernet``, which may be smaller
    than the exported network.
    """
    if plan.sizes is None:
        return supernet
    own = architecture.network
    return supernet.sized(own, resolution=own.resolution if plan.architectures.varies_resolution else None)
