"""Which finalists are trained by themselves, and which larger ones beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cars_hw.evolution.nominees import Grown, Nominee, grow, nominate, parents_of_growth, stretch_of
from cars_hw.evolution.population import Finalist
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype

GENOTYPE = resolve_genotype("DARTS_V2")
LARGEST = NetworkSpec(8, 5, (8, 8), 1, classes=3)
SPACE = ArchitectureSpace(SearchSpace(), LARGEST, SizeGrid((4, 6, 8), (3, 4, 5)))


def size(channels: int, *depths: int) -> Architecture:
    first, second, third = depths
    return Architecture(
        GENOTYPE, replace(LARGEST, channels=channels, layers=sum(depths), depths=(first, second, third))
    )


def finalist(cost: float, accuracy: float) -> Finalist:
    """Return a finalist that is told from others by its network: the cost is in its resolution."""
    spec = replace(LARGEST, resolution=(8, int(10 * cost)))
    return Finalist(GENOTYPE, spec, (cost, 1.0), accuracy)


def described(nominees: list[Nominee]) -> list[tuple[float, int, str]]:
    return [(one.costs[0], one.stretch, one.reason) for one in nominees]


@pytest.mark.parametrize(
    ("cost", "logarithmic", "stretch"),
    [(1, False, 1), (50, False, 1), (51, False, 2), (100, False, 2), (9, True, 1), (11, True, 2), (100, True, 2)],
)
def test_the_range_is_divided_evenly_by_cost_or_by_its_logarithm(
    cost: float, logarithmic: bool, stretch: int
) -> None:
    assert stretch_of(cost, 1, 100, 2, logarithmic=logarithmic) == stretch


def test_one_cost_is_one_stretch() -> None:
    assert stretch_of(3.0, 3.0, 3.0, 5, logarithmic=True) == 1


def test_the_best_of_each_stretch_and_its_largest_are_nominated() -> None:
    # The stretches are 1 to 2 and 2 to 3.
    cheap = [finalist(1.0, 0.3), finalist(1.1, 0.6), finalist(1.2, 0.5), finalist(1.3, 0.2), finalist(1.4, 0.1)]
    dear = [finalist(2.0, 0.4), finalist(3.0, 0.7)]
    found = nominate([*dear, *cheap], [], stretches=2, places=4, logarithmic=False)
    # Three by score; of the two others the larger one, though it is not the better one.
    assert described(found) == [
        (1.0, 1, "score"),
        (1.1, 1, "score"),
        (1.2, 1, "score"),
        (1.4, 1, "largest"),
        (2.0, 2, "score"),
        (3.0, 2, "score"),
    ]
    assert [one.name for one in found] == [f"final-{number:02d}" for number in range(1, 7)]
    assert [one.shared for one in found] == [0.3, 0.6, 0.5, 0.1, 0.4, 0.7]


def test_a_finalist_that_is_nominated_because_it_uses_a_limit_has_its_shared_accuracy() -> None:
    finalists = [finalist(1.0, 0.6), finalist(2.0, 0.3)]
    grown = [Grown(finalists[1].architecture, (2.0, 1.0), "near-limit"), Grown(size(8, 1, 1, 2), (3.0, 1.0))]
    found = nominate(finalists, grown, stretches=1, places=1, logarithmic=False)
    assert [(one.reason, one.shared) for one in found] == [("score", 0.6), ("near-limit", 0.3), ("grown", None)]


def test_by_the_loss_the_networks_with_low_losses_are_nominated_and_grown() -> None:
    finalists = [
        replace(finalist(cost, accuracy), loss=loss)
        for cost, accuracy, loss in ((1.0, 0.6, 1.4), (1.1, 0.4, 1.2), (1.2, 0.5, 1.3))
    ]
    found = nominate(finalists, [], stretches=1, places=1, logarithmic=False, objective="loss")
    assert [(one.costs[0], one.shared, one.shared_loss, one.shared_figure, one.reason) for one in found] == [
        (1.0, 0.6, 1.4, -1.4, "cheapest"),
        (1.1, 0.4, 1.2, -1.2, "score"),
    ]
    (by_accuracy,) = nominate(finalists, [], stretches=1, places=1, logarithmic=False)
    assert (by_accuracy.shared, by_accuracy.shared_loss, by_accuracy.shared_figure) == (0.6, None, 0.6)
    assert parents_of_growth(finalists, 1, 1, "loss") == [finalists[1]]
    assert parents_of_growth(finalists, 1, 1) == [finalists[0]]


def test_with_few_places_only_the_score_counts() -> None:
    finalists = [finalist(1.0, 0.3), finalist(1.1, 0.6), finalist(1.2, 0.5)]
    found = nominate(finalists, [], stretches=1, places=1, logarithmic=False)
    # The front begins with the cheapest.
    assert described(found) == [(1.0, 1, "cheapest"), (1.1, 1, "score")]
    # A stretch with a further place.
    found = nominate(finalists, [], stretches=1, places=1, logarithmic=False, further=[1])
    assert described(found) == [(1.0, 1, "cheapest"), (1.1, 1, "score"), (1.2, 1, "score")]


def test_grown_networks_widen_the_range_and_none_is_nominated_twice() -> None:
    known = finalist(2.0, 0.5)
    grown = [Grown(known.architecture, known.costs), Grown(size(8, 1, 2, 2), (9.0, 1.0))]
    found = nominate([finalist(1.0, 0.3), known], grown, stretches=2, places=4, logarithmic=False)
    assert described(found) == [(1.0, 1, "score"), (2.0, 1, "score"), (9.0, 2, "grown")]
    assert found[-1].shared is None
    assert found[-1].architecture == size(8, 1, 2, 2)


def test_the_best_of_the_last_stretch_and_the_best_of_all_are_grown() -> None:
    members = [
        finalist(1.0, 0.9),
        finalist(5.0, 0.8),
        finalist(60.0, 0.2),
        finalist(90.0, 0.4),
        finalist(100.0, 0.3),
    ]
    assert [one.costs[0] for one in parents_of_growth(members, 2, 2)] == [90.0, 100.0, 1.0]
    # The best of all may be in the last stretch.
    members[4] = replace(members[4], accuracy=0.95)
    assert [one.costs[0] for one in parents_of_growth(members, 2, 2)] == [100.0, 90.0]


def within(most: int) -> object:
    return lambda one: one.network.channels * one.network.layers <= most


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (9, [size(6, 1, 2, 1), size(8, 1, 1, 1), size(4, 1, 2, 2), size(6, 1, 1, 1), size(4, 1, 2, 1)]),
        (2, [size(6, 1, 2, 1), size(8, 1, 1, 1)]),
    ],
)
def test_a_network_grows_in_three_ways_to_the_largest_that_is_allowed(
    places: int, expected: list[Architecture]
) -> None:
    # Channels times cells are 24 at most: 6 x 4, 8 x 3 and 4 x 5 are the largest, then come the first steps.
    assert grow([size(4, 1, 1, 1)], SPACE, within(24), places) == expected  # type: ignore[arg-type]


def test_nothing_grows_beyond_the_grid_or_the_limit_or_without_sizes() -> None:
    assert grow([size(8, 1, 2, 2)], SPACE, lambda _: True, 9) == []
    assert grow([size(4, 1, 1, 1)], SPACE, lambda _: False, 9) == []
    assert grow([size(4, 1, 1, 1)], replace(SPACE, sizes=None), lambda _: True, 9) == []
    assert all(
        SPACE.proposable(one) for one in grow([size(4, 1, 1, 1), size(6, 1, 1, 2)], SPACE, lambda _: True, 99)
    )


def test_over_resolutions_a_network_also_grows_in_its_resolution() -> None:
    grid = SizeGrid((4, 6), (3,), ((8, 8), (12, 12), (16, 16)))
    space = ArchitectureSpace(SearchSpace(), grid.largest(LARGEST), grid)
    parent = Architecture(GENOTYPE, grid.smallest(LARGEST))

    def at(side: int, channels: int = 4) -> Architecture:
        return Architecture(GENOTYPE, replace(parent.network, resolution=(side, side), channels=channels))

    # No stage can have more cells: the ways are the resolution and the channels, each to its end, then first steps.
    assert grow([parent], space, lambda _: True, 9) == [at(16), at(8, 6), at(12)]
    assert grow([parent], space, lambda one: one.network.resolution[0] <= 12, 9) == [at(12), at(8, 6)]
    # With few places, the best parents grow in their resolution and in their size by turns.
    both = SizeGrid((4, 6, 8), (3, 4, 5), ((8, 8), (12, 12)))
    space = ArchitectureSpace(SearchSpace(), both.largest(LARGEST), both)
    first, second = grow([parent], space, lambda _: True, 2)
    assert first == at(12)
    assert second.network == replace(both.largest(LARGEST), resolution=(8, 8))
