"""How much of the budget the most accurate network uses, and whether the allowed sizes end before the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from cars_hw.config.units import format_latency
from cars_hw.formatting import percent
from cars_hw.latency import fastest_genotype
from cars_hw.pipeline.latency_target import LatencyEstimate, LatencyTarget
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.size_grid import SizeGrid

WELL_USED: Final = 0.85
"""If at least this share of the budget is used, nothing is said about larger networks."""


@dataclass(frozen=True)
class SizesEnd:
    """The sizes of a search end before its budget.

    ``allowed`` are the sizes in words, and ``one`` is whether there was only one. ``slowest_ms`` is the predicted
    latency of the slowest network that was allowed. It is None if this network exceeds the budget; the most
    accurate network then has the largest size and uses little of the budget. ``wider`` are the sizes of the table
    if it has larger ones.
    """

    allowed: str
    one: bool
    slowest_ms: float | None
    wider: SizeGrid | None


@dataclass(frozen=True)
class BudgetUse:
    """How much of the budget ``limit_ms`` on ``device`` the most accurate network ``name`` uses.

    ``share`` is its measured latency as a share of the budget, or its upper bound if it was not ``measured``.
    ``bound_share`` is the upper bound as a share of the budget; the search compares this bound with the budget.
    """

    device: str
    limit_ms: float
    name: str
    share: float
    bound_share: float
    measured: bool
    end: SizesEnd | None = None

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
            slowest = format_latency(self.end.slowest_ms)
            return f"{self._limit}: the slowest network that was allowed, of {self.end.allowed}, takes {slowest}"
        if self.end.one:
            return f"All networks that were allowed have {self.end.allowed}"
        return f"{self.name} has the largest size that was allowed, of {self.end.allowed}"

    @property
    def _limit(self) -> str:
        return f"{format_latency(self.limit_ms)} on {self.device}"


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


def budget_uses(best: Estimated, targets: Sequence[LatencyTarget], space: ArchitectureSpace) -> list[BudgetUse]:
    """Return how much of each budget of ``targets`` the most accurate network ``best`` uses.

    ``space`` has the architectures that the search could propose. Targets without a limit are left out.
    """
    uses = [
        _use(target, best.name, best.architecture, estimate.measured_ms)
        for target, estimate in zip(targets, best.latency_estimates, strict=True)
        if target.limit_ms is not None
    ]
    if any(use.share >= WELL_USED for use in uses):
        return uses
    limited = [target for target in targets if target.limit_ms is not None]
    return [
        replace(use, end=_end(target, best.architecture, space)) for use, target in zip(uses, limited, strict=True)
    ]


def budget_use(
    target: LatencyTarget, name: str, architecture: Architecture, measured_ms: float, space: ArchitectureSpace
) -> BudgetUse:
    """Return how much of the budget of ``target`` a measured network uses. ``target`` has a limit.

    ``space`` has the architectures that the search could propose.
    """
    use = _use(target, name, architecture, measured_ms)
    return use if use.share >= WELL_USED else replace(use, end=_end(target, architecture, space))


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
    wider = known is not None and (known.channels[-1], known.layers[-1]) != (largest.channels, largest.layers)
    return SizesEnd(
        largest.size if sizes is None else sizes.describe(),
        sizes is None,
        None if bound_ms > target.limit_ms else ms,
        known if wider else None,
    )
