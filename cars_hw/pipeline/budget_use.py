"""How much of the budget the most accurate network uses, and why it does not use more.

The allowed sizes may end before the budget, or the networks that use more of it may be less accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cars_hw.config.units import in_milliseconds
from cars_hw.formatting import percent
from cars_hw.latency import fastest_genotype
from cars_hw.pipeline.further_table import further_table
from cars_hw.pipeline.larger_networks import LargerNetworks, StageEnd, larger_networks
from cars_hw.pipeline.latency_target import LatencyEstimate, LatencyTarget
from cars_hw.pipeline.near_limit import WELL_USED
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.size_grid import SizeGrid


@dataclass(frozen=True)
class SizesEnd:
    """The sizes of a search end before its budget.

    ``allowed`` are the sizes in words, and ``one`` is whether there was only one. ``slowest_ms`` is the predicted
    latency of the slowest network that was allowed. It is None if this network exceeds the budget; the most
    accurate network then has the largest size and uses little of the budget. ``wider`` are the sizes of the table
    if it has larger ones; otherwise ``table_command`` makes a table that has.
    """

    allowed: str
    one: bool
    slowest_ms: float | None
    wider: SizeGrid | None
    table_command: str


@dataclass(frozen=True)
class BudgetUse:
    """How much of the budget ``limit_ms`` on ``device`` the most accurate network ``name`` uses.

    ``share`` is its measured latency as a share of the budget, or its upper bound if it was not ``measured``.
    ``bound_share`` is the upper bound as a share of the budget; the search compares this bound with the budget.

    If less than :data:`~cars_hw.pipeline.near_limit.WELL_USED` of every budget is used, ``end`` tells whether the
    allowed sizes end before the budget, and ``larger`` has the networks of the final stage that use more of it.
    """

    device: str
    limit_ms: float
    name: str
    share: float
    bound_share: float
    measured: bool
    end: SizesEnd | None = None
    larger: LargerNetworks | None = None

    @property
    def sentence(self) -> str:
        """The use of the budget, in one sentence."""
        said = f"The most accurate network, {self.name}, uses {percent(self.share, 0)} of the {self._limit}"
        if not self.measured:
            return f"{said}, by its upper bound."
        return f"{said}, and its upper bound {percent(self.bound_share, 0)}."

    @property
    def end_of_sizes(self) -> str | None:
        """A sentence without its period if the sizes end before the budget, otherwise None."""
        if self.end is None:
            return None
        if self.end.slowest_ms is not None:
            slowest = in_milliseconds(self.end.slowest_ms)
            return f"{self._limit}: the slowest network that was allowed, of {self.end.allowed}, takes {slowest}"
        if self.end.one:
            return f"All networks that were allowed have {self.end.allowed}"
        return f"{self.name} has the largest size that was allowed, of {self.end.allowed}"

    @property
    def _limit(self) -> str:
        return f"{in_milliseconds(self.limit_ms)} on {self.device}"


class Estimated(Protocol):
    """A network with its latency on each target, such as one of a front."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def architecture(self) -> Architecture:
        """Its genotype and its size."""

    @property
    def latency_estimates(self) -> tuple[LatencyEstimate, ...]:
        """What is known of its latency on each target, in the order of the targets."""


def budget_uses(
    best: Estimated, targets: Sequence[LatencyTarget], space: ArchitectureSpace, end: StageEnd | None = None
) -> list[BudgetUse]:
    """Return how much of each budget of ``targets`` the most accurate network ``best`` uses.

    ``space`` has the architectures that the search could propose. ``end`` is its final stage; without it, nothing
    is said of larger networks. Targets without a limit are left out.
    """
    uses = {
        index: _use(target, best.name, best.architecture, estimate.measured_ms)
        for index, (target, estimate) in enumerate(zip(targets, best.latency_estimates, strict=True))
        if target.limit_ms is not None
    }
    if any(use.share >= WELL_USED for use in uses.values()):
        return list(uses.values())
    return [
        _explained(use, targets[index], best.architecture, index=index, space=space, end=end)
        for index, use in uses.items()
    ]


def budget_use(
    target: LatencyTarget,
    name: str,
    architecture: Architecture,
    measured_ms: float,
    *,
    index: int,
    space: ArchitectureSpace,
    end: StageEnd | None = None,
) -> BudgetUse:
    """Return how much of the budget of ``target``, the one with this ``index``, a measured network uses.

    ``target`` has a limit. ``space`` has the architectures that the search could propose, and ``end`` its final
    stage.
    """
    use = _use(target, name, architecture, measured_ms)
    return (
        use if use.share >= WELL_USED else _explained(use, target, architecture, index=index, space=space, end=end)
    )


def _explained(
    use: BudgetUse,
    target: LatencyTarget,
    best: Architecture,
    *,
    index: int,
    space: ArchitectureSpace,
    end: StageEnd | None,
) -> BudgetUse:
    """Return ``use`` with the reasons why ``best`` does not use more of the budget."""
    larger = None
    if end is not None:
        larger = larger_networks(
            end, device=use.device, limit_ms=use.limit_ms, index=index, name=use.name, answer=best
        )
    return replace(use, end=_end(target, best, space), larger=larger)


def _use(target: LatencyTarget, name: str, architecture: Architecture, measured_ms: float | None) -> BudgetUse:
    assert target.limit_ms is not None
    bound_ms = target.predict(architecture).bound_ms
    used_ms = bound_ms if measured_ms is None else measured_ms
    return BudgetUse(
        target.device_name,
        target.limit_ms,
        name,
        used_ms / target.limit_ms,
        bound_ms / target.limit_ms,
        measured_ms is not None,
    )


def _end(target: LatencyTarget, best: Architecture, space: ArchitectureSpace) -> SizesEnd | None:
    """Return where the sizes of ``space`` end, if that is before the budget of ``target``."""
    assert target.limit_ms is not None
    largest = space.largest
    slowest = fastest_genotype(
        space.cells_for(largest),
        lambda genotype: -target.predict(Architecture(genotype, largest)).bound_ms,
        np.random.default_rng(0),
    )
    ms, bound_ms = target.predict(Architecture(slowest, largest))
    if bound_ms > target.limit_ms and best.network != largest:
        return None
    sizes, known = space.sizes, target.table.sizes
    wider = known is not None and (
        (known.channels[-1], known.layers[-1]) != (largest.channels, largest.layers)
        or known.resolutions[-1:] not in ((), (largest.resolution,))
    )
    return SizesEnd(
        largest.size if sizes is None else sizes.describe(largest.parts),
        sizes is None,
        None if bound_ms > target.limit_ms else ms,
        known if wider else None,
        further_table(
            target.device_name,
            target.limit_ms,
            largest,
            resolutions=() if sizes is None else sizes.resolutions,
            precision=target.precision,
            threads=target.threads,
        ),
    )
