"""Successive halving: many networks are trained for a short time, the better half of them for longer, and so on.

The range of the first cost is divided into stretches. The better half of each stretch goes on to the next rung, so
the remaining networks are spread over the range. (The method of Jamieson and Talwalkar, 2016, has one stretch.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cars_hw.config.setting import Settings, count

HALVES: Final = 2
"""The networks of a stretch are divided by this number after each rung, and the epochs are multiplied by it."""

MOST_RUNGS: Final = 3
"""With two networks of each stretch in the last rung, three rungs begin with eight of each."""

KEPT: Final = 2
"""If the budget allows it, so many networks of each stretch are trained to the end.

The better one may exceed a limit when it is measured; then there is another.
"""

One = TypeVar("One")


@dataclass(frozen=True)
class Rungs(Settings):
    """A plan of successive halving.

    ``epochs`` has one number for each rung: the epochs of training that a network has had at the end of the rung,
    those of earlier rungs included. At least ``kept`` networks of each stretch are in the last rung.
    """

    epochs: tuple[int, ...] = count(minimum=1)
    kept: int = count(minimum=1)

    @property
    def places(self) -> int:
        """The number of networks of each stretch in the first rung."""
        return int(self.kept * HALVES ** (len(self.epochs) - 1))


def going_on(networks: int, kept: int) -> int:
    """Return how many of the ``networks`` of a stretch go on to the next rung: half of them, rounded up."""
    return max(min(networks, kept), math.ceil(networks / HALVES))


def survivors(
    networks: Iterable[One], stretch: Callable[[One], int], rank: Callable[[One], tuple[float, ...]], kept: int
) -> list[One]:
    """Return those of ``networks`` that go on, in order: the half of each stretch with the lowest ``rank``."""
    known = list(networks)
    members: dict[int, list[int]] = {}
    for index, one in enumerate(known):
        members.setdefault(stretch(one), []).append(index)
    chosen: set[int] = set()
    for indices in members.values():
        best = sorted(indices, key=lambda index: rank(known[index]))
        chosen.update(best[: going_on(len(indices), kept)])
    return [one for index, one in enumerate(known) if index in chosen]


def cost_of(rungs: Rungs, stretches: Sequence[Sequence[float]], evaluation: float) -> float:
    """Return the cost of ``rungs``. For each of ``stretches``, there is the cost of an epoch of each network.

    ``evaluation`` is the cost of the evaluation at the end of a rung, in epochs. It is not known yet which networks
    go on, so each counts as the mean of its stretch.
    """
    left = [len(costs) for costs in stretches]
    total, before = 0.0, 0
    for epochs in rungs.epochs:
        an_epoch = sum(
            count * sum(costs) / len(costs) for count, costs in zip(left, stretches, strict=True) if costs
        )
        total += an_epoch * (epochs - before + evaluation)
        before = epochs
        left = [going_on(networks, rungs.kept) for networks in left]
    return total


def plan_rungs(
    nominated: Callable[[int], Sequence[Sequence[float]]], budget: float, *, most_epochs: int, evaluation: float
) -> Rungs:
    """Return the plan that ``budget`` pays for.

    ``nominated`` takes the number of places in a stretch. It returns, for each stretch, the cost of an epoch of
    each network. The plan has as many rungs as the budget pays for with one epoch in the first rung. If it pays for
    no rung with :data:`KEPT` networks of each stretch, the plan has one rung of one epoch with one network of each
    stretch, whatever that costs. The rest of the budget goes into more epochs, ``most_epochs`` at most. A plan with
    one network of a stretch leaves it for further ones (:func:`further_places`) if there are any, since a longer
    training of a single network chooses nothing.
    """
    for number in range(MOST_RUNGS, 0, -1):
        rungs = _with_epochs(HALVES ** (number - 1), number, KEPT)
        stretches = nominated(rungs.places)
        fewer = nominated(rungs.places // HALVES)
        if rungs.epochs[-1] > most_epochs or (number > 1 and _number_of(stretches) == _number_of(fewer)):
            continue
        if cost_of(rungs, stretches, evaluation) <= budget:
            return _lengthened(rungs, stretches, budget, most_epochs, evaluation)
    least = Rungs((1,), 1)
    stretches = nominated(least.places)
    if _number_of(nominated(KEPT)) > _number_of(stretches):
        return least
    return _lengthened(least, stretches, budget, most_epochs, evaluation)


def further_places(
    rungs: Rungs,
    stretches: int,
    nominated: Callable[[Sequence[int]], Sequence[Sequence[float]]],
    budget: float,
    evaluation: float,
) -> list[int]:
    """Return how many networks more than ``rungs.places`` each of ``stretches`` begins with, so that they use
    what ``budget`` leaves.

    ``nominated`` takes these numbers, and returns the costs of an epoch as for :func:`plan_rungs`. The stretches
    get one more in turn, those with the lowest costs first, up to twice ``rungs.places``.
    """
    further = [0] * stretches
    known = nominated(further)
    for _ in range(rungs.places):
        for stretch in range(stretches):
            wider = [one + (index == stretch) for index, one in enumerate(further)]
            more = nominated(wider)
            if _number_of(more) > _number_of(known) and cost_of(rungs, more, evaluation) <= budget:
                further, known = wider, more
    return further


def longest_rungs(most_epochs: int) -> Rungs:
    """Return the longest plan: as many rungs as possible, and ``most_epochs`` at the end of the last one."""
    number = max(one for one in range(1, MOST_RUNGS + 1) if HALVES ** (one - 1) <= most_epochs)
    return _with_epochs(most_epochs, number, KEPT)


def _lengthened(
    rungs: Rungs, stretches: Sequence[Sequence[float]], budget: float, most_epochs: int, evaluation: float
) -> Rungs:
    """Return ``rungs`` with as many epochs as ``budget`` pays for."""
    for last in range(most_epochs, rungs.epochs[-1], -1):
        longer = _with_epochs(last, len(rungs.epochs), rungs.kept)
        if cost_of(longer, stretches, evaluation) <= budget:
            return longer
    return rungs


def _with_epochs(last: int, number: int, kept: int) -> Rungs:
    """Return ``number`` rungs. The last ends after ``last`` epochs, and each earlier one after half as many."""
    return Rungs(tuple(last // HALVES ** (number - 1 - rung) for rung in range(number)), kept)


def _number_of(stretches: Sequence[Sequence[float]]) -> int:
    return sum(map(len, stretches))
