"""Intervals, comparisons and counts of evaluations, against values from the literature and by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import ClassCounts, Evaluation, apart, told_apart
from cars_hw.errors import InputError
from cars_hw.significance import Z, holm, mcnemar, mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", Table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
    ],
)
def test_wilson_intervals_of_the_literature(right: int, images: int, low: float, high: float) -> None:
    assert wilson_interval(right, images) == pytest.approx((low, high), abs=6e-5)


def test_a_wilson_interval_solves_its_equation_and_narrows() -> None:
    for images, share in product((1, 7, 20, 1000), (0.0, 0.3, 0.5, 1.0)):
        right = round(share * images)
        low, high = wilson_interval(right, images)
        assert 0 <= low <= right / images <= high <= 1
        # The ends are the values that the count is just compatible with.
        for end in (low, high):
            assert (right / images - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / images, abs=1e-12)
        wider = wilson_interval(right, images)
        narrower = wilson_interval(10 * right, 10 * images)
        assert narrower[1] - narrower[0] < wider[1] - wider[0]
        assert wilson_interval(images - right, images) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("right", "images"), [(1, 0), (-1, 5), (6, 5)])
def test_what_is_no_fraction_has_no_interval(right: int, images: int) -> None:
    with pytest.raises(ValueError, match="is no fraction"):
        wilson_interval(right, images)


def test_the_interval_of_a_mean_by_hand() -> None:
    # Two classes: 9 of 10 and 1 of 2. Each gets one right and one wrong answer: 10/12 and 2/4.
    middle = (10 / 12 + 2 / 4) / 2
    half = Z * math.sqrt(10 / 12 * 2 / 12 / 12 + 1 / 4 / 4) / 2
    assert mean_interval([9, 1], [10, 2]) == pytest.approx((middle - half, middle + half))
    low, high = mean_interval([3, 3], [3, 3])
    assert 0.5 < low < 0.9
    assert high == 1


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truths = np.array([0.95, 0.7, 0.4])
    images = [200, 20, 10]
    covered = [0, 0]
    for _ in range(2000):
        right = [int(rng.binomial(count, truth)) for count, truth in zip(images, truths, strict=True)]
        low, high = mean_interval(right, images)
        covered[0] += low <= truths.mean() <= high
        low, high = wilson_interval(right[1], 20)
        covered[1] += low <= 0.7 <= high
    # The standard error of a coverage of 95% over 2,000 samples is 0.5%.
    assert 0.935 < covered[0] / 2000 < 0.98
    assert 0.935 < covered[1] / 2000 < 0.99


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 2 / 32), (6, 0, 2 / 64), (2, 8, 2 * (1 + 10 + 45) / 1024), (5, 5, 1.0)],
)
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_many_images_is_near_the_normal_distribution() -> None:
    distance = (1100 - 1000 - 1) / math.sqrt(2100)
    assert mcnemar(1000, 1100) == pytest.approx(math.erfc(distance / math.sqrt(2)), rel=1e-3)


def test_holm_by_hand() -> None:
    # 0.01 < 0.05/4; 0.015 < 0.05/3; 0.03 > 0.05/2, and what follows is not shown either.
    assert holm([0.03, 0.01, 0.04, 0.015]) == [False, True, False, True]
    assert holm([]) == []
    assert holm([0.05]) == [True]


COUNTS = ClassCounts((6, 3, 1), (5, 1, 1))
EVALUATION = Evaluation((6, 3, 1), (5, 1, 1), ((5, 1, 0), (2, 1, 0), (0, 0, 1)), "fb00", "digest")


def test_counts_by_hand() -> None:
    assert COUNTS.total == 10
    assert COUNTS.accuracy == 0.7
    assert COUNTS.recalls == (5 / 6, 1 / 3, 1.0)
    assert COUNTS.balanced_accuracy == pytest.approx((5 / 6 + 1 / 3 + 1) / 3)
    assert COUNTS.score("accuracy") == COUNTS.accuracy
    assert COUNTS.score("balanced-accuracy") == COUNTS.balanced_accuracy
    assert (COUNTS.low, COUNTS.high) == wilson_interval(7, 10) == COUNTS.interval("accuracy")
    assert COUNTS.interval("balanced-accuracy") == mean_interval([5, 1, 1], [6, 3, 1])
    assert (COUNTS.majority, COUNTS.majority_share) == (0, 0.6)
    assert not COUNTS.beats_majority
    assert ClassCounts((600, 300, 100), (500, 100, 100)).beats_majority


def test_a_class_without_images_does_not_count() -> None:
    counts = ClassCounts((4, 0), (3, 0))
    assert counts.recalls == (0.75, None)
    assert counts.balanced_accuracy == 0.75
    assert counts.interval("balanced-accuracy") == mean_interval([3], [4])


@pytest.mark.parametrize(
    ("images", "right"), [((0, 0), (0, 0)), ((), ()), ((3,), (4,)), ((3, 3), (1,)), ((3,), (-1,))]
)
def test_impossible_counts_are_refused(images: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        ClassCounts(images, right)


@pytest.mark.parametrize(
    "change",
    [
        {"confusion": ((5, 1, 0), (2, 1, 0))},
        {"confusion": ((5, 1), (2, 1), (0, 0))},
        {"confusion": ((5, 1, 0), (1, 2, 0), (0, 0, 1))},
        {"confusion": ((5, 2, -1), (2, 1, 0), (0, 0, 1))},
        {"confusion": ((5, 0, 0), (2, 1, 0), (0, 0, 1))},
        {"correct": "xyz"},
        {"correct": "fb"},
        {"correct": "ff80"},
    ],
)
def test_an_evaluation_fits_its_counts(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(EVALUATION, **change)  # type: ignore[arg-type]


def test_evaluations_are_written_and_read() -> None:
    plain = unstructure(EVALUATION)
    assert plain["total"] == 10
    assert plain["accuracy"] == 0.7
    assert plain["confusion"][1] == [2, 1, 0]
    assert structure(plain, Evaluation) == EVALUATION
    assert structure(unstructure(replace(EVALUATION, confusion=None)), Evaluation).confusion is None


def of(bits: str, evaluated: str = "digest") -> Evaluation:
    """Return an evaluation of one class, from a digit for each image."""
    size = -(-len(bits) // 8)
    correct = (int(bits, 2) << (8 * size - len(bits))).to_bytes(size).hex()
    right = bits.count("1")
    return Evaluation((len(bits),), (right,), None, correct, evaluated)


def test_five_images_tell_nothing_apart_and_six_do() -> None:
    best = of("1" * 20)
    five, six = of("1" * 15 + "0" * 5), of("1" * 14 + "0" * 6)
    assert best.p_value(five) == 2 / 32
    assert told_apart(best, [five]) == [False]
    assert told_apart(best, [six]) == [True]
    # Of two comparisons the better one has to pass half of the error.
    assert told_apart(best, [six, five]) == [False, False]


def test_other_images_are_compared_by_their_intervals() -> None:
    best = of("1" * 20)
    close, far = of("1" * 15 + "0" * 5, "other"), of("1" * 5 + "0" * 15, "other")
    assert told_apart(best, [close, far]) == [False, True]
    assert not apart(best, close)
    with pytest.raises(ValueError, match="different images"):
        best.p_value(close)
