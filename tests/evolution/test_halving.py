"""Successive halving and its cost, against values counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cars_hw.config.search import EvolutionSettings
from cars_hw.evolution.halving import Rungs, cost_of, further_places, going_on, plan_rungs, survivors
from cars_hw.evolution.passes import JudgedImages, search_passes

IMAGES = JudgedImages(trains=100, evaluates=50, subset=20)


def settings(protection: str = "size", uniform: float = 0.0) -> EvolutionSettings:
    """Return one epoch of warm-up and two generations of two epochs, with a population of 8."""
    return EvolutionSettings(8, 5, 1, 2, protection, uniform_draws=uniform)  # type: ignore[arg-type]


def test_the_passes_of_a_search_are_counted() -> None:
    # Warm-up: 3 passes of 100 images. Then 4 epochs, 2 x 2 x 8 evaluations of 20 images and 24 finalists on 50.
    assert search_passes(settings(), 1, IMAGES) == (300, 0, 1200 + 640 + 1200)
    assert search_passes(settings(), 2, IMAGES) == (600, 0, 2400 + 640 + 1200)
    # A quarter of the later steps trains draws from the space.
    assert search_passes(settings(uniform=0.25), 1, IMAGES) == (300, 300, 900 + 640 + 1200)
    # The gain needs 8 x 3 more evaluations: 16 offspring in the first generation, 8 in the second.
    assert search_passes(settings("speed"), 1, IMAGES) == (300, 0, 1200 + 640 + 480 + 1200)
    # Without training, 8 x 3 architectures are evaluated once: 16 in the first generation, 8 in the second.
    assert search_passes(settings(), 1, IMAGES, trains=False) == (0, 0, 480 + 1200)
    # Where a generation sees all images, the 8 of the population are known at the end.
    assert search_passes(settings(), 1, IMAGES._replace(subset=50), trains=False) == (0, 0, 24 * 50 + 16 * 50)


@pytest.mark.parametrize(("networks", "kept", "left"), [(8, 2, 4), (5, 2, 3), (3, 2, 2), (1, 2, 1), (2, 1, 1)])
def test_half_of_a_stretch_goes_on_and_some_always(networks: int, kept: int, left: int) -> None:
    assert going_on(networks, kept) == left


def test_the_better_half_of_each_stretch_survives() -> None:
    # Stretch and score: all of the first stretch are worse than all of the second.
    networks = [(1, 0.2), (1, 0.1), (2, 0.9), (1, 0.3), (2, 0.7), (2, 0.8), (1, 0.2), (3, 0.0)]
    left = survivors(networks, lambda one: one[0], lambda one: (-one[1],), 1)
    assert left == [(1, 0.2), (2, 0.9), (1, 0.3), (2, 0.8), (3, 0.0)]


def test_the_cost_of_rungs_is_that_of_their_epochs_and_evaluations() -> None:
    # First (2 + 4 + 6 + 10) x 1.5 epochs. Then two of mean 4 and the one of 10, for 2 epochs and an evaluation.
    assert cost_of(Rungs((1, 3), 1), [[2, 4, 6], [10], []], 0.5) == 22 * 1.5 + 18 * 2.5


@pytest.mark.parametrize(
    ("budget", "most", "epochs", "kept"),
    [
        # 40 networks for an epoch, 20 for another, 10 for two more.
        (80, 100, (1, 2, 4), 2),
        (160, 100, (2, 4, 8), 2),
        # 20 networks for 2 epochs and 10 for 3 more are 70; (3, 6) would be 90.
        (79, 100, (2, 5), 2),
        (29, 100, (2,), 2),
        # Not longer than the recipe.
        (1000, 3, (1, 3), 2),
        (1000, 1, (1,), 2),
        # One network of each stretch at least, whatever it costs.
        (9, 100, (1,), 1),
        (0, 100, (1,), 1),
    ],
)
def test_a_budget_gives_as_many_rungs_as_it_pays_for(
    budget: float, most: int, epochs: tuple[int, ...], kept: int
) -> None:
    plan = plan_rungs(lambda places: [[1.0] * places] * 5, budget, most_epochs=most, evaluation=0.0)
    assert plan == Rungs(epochs, kept)


def test_no_rung_is_added_that_trains_no_further_network() -> None:
    # Three finalists in each stretch: a third rung has no more to begin with than the second.
    plan = plan_rungs(lambda places: [[1.0] * min(places, 3)] * 5, 1000, most_epochs=8, evaluation=0.0)
    assert plan == Rungs((4, 8), 2)


def test_evaluations_take_their_part_of_the_budget() -> None:
    def networks(places: int) -> list[list[float]]:
        return [[1.0] * places] * 5

    assert plan_rungs(networks, 80, most_epochs=100, evaluation=0.1) == Rungs((2, 5), 2)


def test_single_networks_of_a_stretch_are_not_trained_longer_while_there_are_others() -> None:
    # Two of each stretch cost 2 x 10 epochs. What is left of 19 pays for a second network of the first stretch.
    finalists = [[1.0] * 3, [9.0] * 3]

    def nominated(places: int) -> list[list[float]]:
        return [costs[:places] for costs in finalists]

    assert plan_rungs(nominated, 19, most_epochs=9, evaluation=0.0) == Rungs((1,), 1)
    # Where there are no others, the rest goes into epochs: 10 each.
    assert plan_rungs(lambda _: [[1.0], [9.0]], 39, most_epochs=9, evaluation=0.0) == Rungs((3,), 2)


def test_what_a_plan_leaves_goes_to_the_cheapest_stretches_first() -> None:
    finalists = [[1.0] * 9, [2.0] * 3, [4.0] * 9]

    def nominated(further: Sequence[int]) -> list[list[float]]:
        return [costs[: 2 + more] for costs, more in zip(finalists, further, strict=True)]

    # Two networks of each stretch take 14 for an epoch.
    assert further_places(Rungs((1,), 2), 3, nominated, 14, 0.0) == [0, 0, 0]
    # 6 more: one of the first and one of the second stretch; the third costs too much; then again the first.
    assert further_places(Rungs((1,), 2), 3, nominated, 18, 0.0) == [2, 1, 0]
    # At most as many again. The second stretch has three finalists in all.
    assert further_places(Rungs((1,), 2), 3, nominated, 1000, 0.0) == [2, 1, 2]
    # In two rungs, three networks of 1 cost 3, and two of them go on for another epoch.
    assert further_places(Rungs((1, 2), 2), 1, lambda further: [[1.0] * (4 + further[0])], 8.9, 0.0) == [1]
