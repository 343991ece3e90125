"""Nominees: the networks that the final stage of a search trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

from cars_hw.config.evaluation import ClassCounts, Objective, SearchObjective
from cars_hw.config.setting import Settings, count, fraction, setting
from cars_hw.evolution.population import Finalist, quality
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

Reason = Literal["score", "largest", "grown", "near-limit", "cheapest"]
"""Why a network is nominated.

- ``score``: it is among the best of its stretch under the shared weights.
- ``largest``: it is among the most expensive of its stretch. Shared weights underestimate large networks.
- ``grown``: it has the genotype of a finalist, and a larger size that keeps to every limit.
- ``near-limit``: it uses most of a limit, which no other nominee does.
- ``cheapest``: it has the lowest first cost of all finalists, where the front begins.
"""

PROTECTED: Final = 4
"""The share of the places of a stretch that is for its most expensive networks is one divided by this."""


@dataclass(frozen=True)
class Nominee(Settings):
    """A network of the final stage, why it was nominated, and its results.

    ``spec`` (in the file: ``network``) is the network that the genotype fills. ``costs`` are those of the
    objectives, in their units. ``stretch`` is the number of its stretch of the first cost, from 1. ``shared`` is
    the accuracy under shared weights, None for a network that is no finalist. ``results`` has one entry for each
    rung in which the network was trained: its right answers among the validation images, by class. ``shared_loss``
    is the loss under shared weights, if the search compared losses.
    """

    name: str = setting(name=True)
    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    costs: tuple[float, ...] = setting(minimum=-1e12, maximum=1e12)
    stretch: int = count(minimum=1)
    reason: Reason = setting()
    shared: float | None = fraction(None)
    results: tuple[ClassCounts, ...] = ()
    shared_loss: float | None = setting(None, unit="nats", minimum=0)

    OPTIONAL: ClassVar = frozenset({"shared_loss"})
    PLAIN_NAMES: ClassVar = {"spec": "network"}

    @property
    def architecture(self) -> Architecture:
        """The genotype and the network that it fills."""
        return Architecture(self.genotype, self.spec)

    @property
    def shared_figure(self) -> float | None:
        """The figure of its order under shared weights, higher is better: the negative loss, or the accuracy."""
        return self.shared if self.shared_loss is None else -self.shared_loss


class Grown(NamedTuple):
    """An architecture that is no finalist, its costs, and why it is nominated."""

    architecture: Architecture
    costs: tuple[float, ...]
    reason: Reason = "grown"


def stretch_of(cost: float, least: float, most: float, stretches: int, *, logarithmic: bool) -> int:
    """Return the stretch of ``cost``, from 1: the range from ``least`` to ``most`` has equal ``stretches``."""
    if not least < most:
        return 1
    if logarithmic and least > 0:
        position = math.log(cost / least) / math.log(most / least)
    else:
        position = (cost - least) / (most - least)
    return min(stretches, 1 + int(stretches * max(position, 0.0)))


def nominate(
    finalists: Sequence[Finalist],
    grown: Sequence[Grown],
    *,
    stretches: int,
    places: int,
    logarithmic: bool,
    objective: SearchObjective = "accuracy",
    further: Sequence[int] = (),
) -> list[Nominee]:
    """Return the nominees, cheapest first: up to ``places`` finalists of each stretch, the cheapest finalist, and
    all of ``grown``.

    ``further`` are numbers of places that the stretches have beside, one for each; none is for no further places.

    The range of the first cost, from the cheapest to the most expensive network, is divided into ``stretches``; if
    ``logarithmic``, on a logarithmic scale. In each stretch, three quarters of the places are for the finalists
    that are best by ``objective``. One quarter, rounded down, is for the most expensive of the others.
    """
    first = [costs[0] for costs in (*(one.costs for one in finalists), *(one.costs for one in grown))]
    least, most = min(first), max(first)

    def number(costs: tuple[float, ...]) -> int:
        return stretch_of(costs[0], least, most, stretches, logarithmic=logarithmic)

    found: list[tuple[tuple[float, ...], Architecture, Reason, Finalist | None]] = []
    for stretch in range(1, stretches + 1):
        members = [one for one in finalists if number(one.costs) == stretch]
        chosen = _chosen(members, places + (further[stretch - 1] if further else 0), objective)
        found += [(one.costs, one.architecture, reason, one) for one, reason in chosen]
    cheapest = min(finalists, key=lambda one: (one.costs, -_quality(one, objective)))
    if cheapest.architecture.key() not in {architecture.key() for _, architecture, _, _ in found}:
        found.append((cheapest.costs, cheapest.architecture, "cheapest", cheapest))
    evaluated = {one.architecture.key(): one for one in finalists}
    known = {architecture.key() for _, architecture, _, _ in found}
    for one in grown:
        if one.architecture.key() not in known:
            known.add(one.architecture.key())
            found.append((one.costs, one.architecture, one.reason, evaluated.get(one.architecture.key())))
    found.sort(key=lambda one: one[0])
    return [
        Nominee(
            f"final-{index:02d}",
            *architecture,
            costs,
            number(costs),
            reason,
            None if finalist is None else finalist.accuracy,
            shared_loss=None if finalist is None or objective != "loss" else finalist.loss,
        )
        for index, (costs, architecture, reason, finalist) in enumerate(found, start=1)
    ]


def _chosen(members: Sequence[Finalist], places: int, objective: SearchObjective) -> list[tuple[Finalist, Reason]]:
    """Return at most ``places`` of the ``members`` of a stretch, with the reason for each."""
    by_score = best_first(members, objective)
    by_size = sorted(
        by_score[places - places // PROTECTED :], key=lambda one: (-one.costs[0], -_quality(one, objective))
    )
    best = [(one, _SCORE) for one in by_score[: places - places // PROTECTED]]
    return best + [(one, _LARGEST) for one in by_size[: places // PROTECTED]]


def best_first(finalists: Sequence[Finalist], objective: SearchObjective) -> list[Finalist]:
    """Return ``finalists`` in the order of ``objective``, the cheaper of equal ones first."""
    return sorted(finalists, key=lambda one: (-_quality(one, objective), one.costs))


def _quality(finalist: Finalist, objective: SearchObjective) -> float:
    return quality(finalist.accuracy, finalist.loss, objective)


_SCORE: Final[Reason] = "score"
_LARGEST: Final[Reason] = "largest"


def parents_of_growth(
    finalists: Sequence[Finalist], places: int, stretches: int, objective: SearchObjective = "accuracy"
) -> list[Finalist]:
    """Return the finalists that are grown: by ``objective``, the best of the last stretch and the best of all.

    The range of the first cost is divided on a logarithmic scale, because networks are grown over sizes only.
    """
    first = [one.costs[0] for one in finalists]
    least, most = min(first), max(first)
    best = best_first(finalists, objective)
    last = [one for one in best if stretch_of(one.costs[0], least, most, stretches, logarithmic=True) == stretches]
    chosen = last[:places]
    return chosen if best[0] in chosen else [*chosen, best[0]]


def grow(
    parents: Sequence[Architecture],
    space: ArchitectureSpace,
    allowed: Callable[[Architecture], bool],
    places: int,
) -> list[Architecture]:
    """Return up to ``places`` larger networks with the genotypes of ``parents``, all different.

    Each of them is in ``space`` and ``allowed``. A parent grows in three ways: in channels, in cells (in the stage
    with the fewest), or in both. Over resolutions, it also grows in its resolution. It grows step by step until the
    next step is not allowed. The result begins with the largest network of each parent and way, which uses most of
    the limits. The networks after the first step follow. In a search of one size nothing grows.
    """
    if space.sizes is None:
        return []
    ordered = [(way, parent) for way in (_both, _wider, _deeper) for parent in parents]
    if space.varies_resolution:
        # By turns with the largest growth, since the places may end before the other ways.
        first = [(way, parent) for parent in parents for way in (_finer, _both)]
        ordered = [*first, *ordered[len(parents) :]]
    chains = [list(_chain(parent, space, allowed, way)) for way, parent in ordered]
    wanted = [chain[-1] for chain in chains if chain] + [chain[0] for chain in chains if chain]
    known = {parent.key() for parent in parents}
    found: list[Architecture] = []
    for one in wanted:
        if one.key() not in known and len(found) < places:
            known.add(one.key())
            found.append(one)
    return found


def losses_decide(networks: Sequence[Nominee], objective: Objective) -> bool:
    """Return whether losses decide which of ``networks`` go on, and not the figure that ``objective`` names.

    After a short training, losses on few images mostly order networks better than accuracies do. A balanced
    accuracy weighs classes, which the loss does not. A network without right answers has no loss; one with right
    answers and no loss was trained by an earlier version.
    """
    last = [one.results[-1] for one in networks if one.results]
    return objective == "accuracy" and all(one.loss is not None or not sum(one.right) for one in last)


Way = Callable[[NetworkSpec, ArchitectureSpace], Iterator[NetworkSpec]]


def _chain(
    parent: Architecture, space: ArchitectureSpace, allowed: Callable[[Architecture], bool], way: Way
) -> Iterator[Architecture]:
    """Yield ``parent`` at larger and larger sizes; of the sizes of a step, the first that is allowed."""
    present: Architecture | None = parent
    while present is not None:
        larger = (Architecture(parent.genotype, network) for network in way(present.network, space))
        present = next((one for one in larger if space.proposable(one) and allowed(one)), None)
        if present is not None:
            yield present


def _wider(network: NetworkSpec, space: ArchitectureSpace) -> Iterator[NetworkSpec]:
    """Yield ``network`` with the next larger number of channels."""
    assert space.sizes is not None
    larger = [channels for channels in space.sizes.channels if channels > network.channels]
    if larger:
        yield space.with_channels(network, larger[0])


def _deeper(network: NetworkSpec, space: ArchitectureSpace) -> Iterator[NetworkSpec]:
    """Yield ``network`` with one more cell in a stage, the stage with fewest cells first."""
    assert space.sizes is not None
    for stage in sorted(range(len(network.stages)), key=lambda index: network.stages[index]):
        first, second, third = (cells + (index == stage) for index, cells in enumerate(network.stages))
        if (first, second, third) in space.sizes.stages:
            yield space.with_stages(network, (first, second, third))


def _finer(network: NetworkSpec, space: ArchitectureSpace) -> Iterator[NetworkSpec]:
    """Yield ``network`` with the next larger resolution."""
    assert space.sizes is not None
    larger = space.sizes.resolutions[space.sizes.resolutions.index(network.resolution) + 1 :]
    if larger:
        yield space.with_resolution(network, larger[0])


def _both(network: NetworkSpec, space: ArchitectureSpace) -> Iterator[NetworkSpec]:
    """Yield ``network`` with the next larger number of channels, and one more cell in a stage."""
    for wider in _wider(network, space):
        yield from _deeper(wider, space)
