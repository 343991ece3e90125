from __future__ import annotations

import pytest

from cars_hw.devices import MeasurePlan, measure_in_rounds
from cars_hw.devices.rounds import low_quantile, off_sessions, summarize, wants_more
from cars_hw.errors import InputError

PLAN = MeasurePlan(sessions=5, max_extra_sessions=3, tolerance=0.05)


@pytest.mark.parametrize(("quantile", "expected"), [(0, 1), (0.05, 1), (0.1, 2), (0.11, 3), (0.5, 10), (1, 20)])
def test_a_low_quantile_is_one_of_the_runs(quantile: float, expected: int) -> None:
    runs = [*range(20, 10, -1), *range(1, 11)]
    assert low_quantile(runs, quantile) == expected


def test_a_single_run_is_its_own_quantile() -> None:
    assert low_quantile([7.0], 0.1) == 7.0


def test_figure_and_spread_by_hand() -> None:
    # The median is 2; the distances from it are 1, 1, 0, 8, 0 with the median 1, half of 2.
    measured = summarize([3.0, 1.0, 2.0, 10.0, 2.0])
    assert (measured.ms, measured.spread) == (2.0, 0.5)
    assert measured.samples == (3.0, 1.0, 2.0, 10.0, 2.0)
    assert measured.sessions == 5


@pytest.mark.parametrize(
    ("samples", "off"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], []),
        ([1.0, 1.04, 1.0, 0.96, 1.0], []),
        ([1.0, 1.0, 1.06, 1.0, 0.9], [2, 4]),
        # The first is 4.8% from the median of all three and 5.2% from that of the others.
        ([1.0, 1.05, 1.06], [0]),
        ([1.0], []),
    ],
)
def test_a_session_is_off_against_the_median_of_the_others(samples: list[float], off: list[int]) -> None:
    assert off_sessions(samples, 0.05) == off


@pytest.mark.parametrize(
    ("samples", "more"),
    [
        ([], True),
        ([1.0] * 4, True),
        ([1.0] * 5, False),
        ([1.0] * 4 + [1.2], True),
        ([1.0] * 4 + [1.2, 1.0], False),
        ([1.0] * 4 + [1.2, 1.2], True),
        ([1.0, 2.0] * 4, False),
    ],
)
def test_when_a_model_is_measured_again(samples: list[float], more: bool) -> None:
    assert wants_more(samples, PLAN) is more


class Script:
    """Plays prepared samples and keeps what was asked."""

    def __init__(self, *models: list[float]) -> None:
        self.models = models
        self.taken = [0] * len(models)
        self.rounds: list[list[int]] = []

    def __call__(self, order: list[int], _: int) -> list[float]:
        self.rounds.append(order)
        samples = [self.models[index][self.taken[index]] for index in order]
        for index in order:
            self.taken[index] += 1
        return samples


def test_only_what_is_off_is_measured_again_and_not_for_ever() -> None:
    script = Script([1.0] * 9, [2.0, 2.0, 2.0, 2.5, 2.0, 2.0, 9.0], [3.0, 4.0] * 5)
    steady, once_off, hopeless = measure_in_rounds(script, 3, PLAN)
    assert steady.samples == (1.0,) * 5
    assert once_off.samples == (2.0, 2.0, 2.0, 2.5, 2.0, 2.0)
    assert once_off.ms == 2.0
    assert hopeless.sessions == 8
    assert hopeless.spread > 0.1
    assert [sorted(order) for order in script.rounds] == [[0, 1, 2]] * 5 + [[1, 2], [2], [2]]


def test_the_order_is_drawn_anew_each_round_and_follows_the_seed() -> None:
    def orders(seed: int) -> list[list[int]]:
        script = Script(*([1.0] * 5 for _ in range(12)))
        measure_in_rounds(script, 12, MeasurePlan(seed=seed))
        return script.rounds

    assert orders(0) == orders(0) != orders(1)
    assert len({tuple(order) for order in orders(0)}) == 5


def test_a_sample_belongs_to_its_model_whatever_the_order() -> None:
    measured = measure_in_rounds(lambda order, _: [1.0 + index for index in order], 20, PLAN)
    assert [measurement.ms for measurement in measured] == [1.0 + index for index in range(20)]


@pytest.mark.parametrize("stop", range(8))
def test_going_on_after_any_round_ends_where_it_would_have_ended(stop: int) -> None:
    def run(order: list[int], seed: int) -> list[float]:
        return [1.0 + (seed * (index + 3) % 17) / 100 for index in order]

    whole: list[list[list[float]]] = []
    expected = measure_in_rounds(run, 6, PLAN, on_round=lambda taken: whole.append([list(one) for one in taken]))
    assert len(whole) == 8
    kept = whole[stop]
    further: list[int] = []
    resumed = measure_in_rounds(run, 6, PLAN, samples=kept, on_round=lambda _: further.append(1))
    assert resumed == expected
    assert len(further) == 7 - stop


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": 0},
        {"min_runs": 0},
        {"quantile": 1.5},
        {"tolerance": 0.0},
        {"max_seconds": 0.0},
        {"seed": -1},
        {"max_extra_sessions": -1},
    ],
)
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MeasurePlan(**wrong)  # type: ignore[arg-type]
