"""Why more of the budget would not be more accurate: the networks of the final stage that use more of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cars_hw.cli.front_table import more_training
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import ClassCounts, Objective
from cars_hw.config.training import Recipe
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.nominees import Nominee
from cars_hw.pipeline.larger_networks import LargerNetworks, StageEnd, larger_networks
from cars_hw.pipeline.records import FinalStage
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

GENOTYPE = resolve_genotype("DARTS_V2")
SPEC = NetworkSpec(4, 5, (8, 8), 1, classes=2)


def trained(ms: float, *right: int) -> Nominee:
    """Return a network of 1,000 held-out images, 900 of them of one class, that is told from others by its width.

    After each rung it has so many ``right``, at first those of the large class.
    """
    results = tuple(ClassCounts((900, 100), (min(one, 900), max(0, one - 900))) for one in right)
    spec = replace(SPEC, channels=2 * round(100 * ms))
    return Nominee(f"final-{round(100 * ms)}", GENOTYPE, spec, (7.0, ms), 1, "score", 0.5, results)


ANSWER = trained(0.72, 400, 431)


def found(
    *larger: Nominee, rejected: tuple[Nominee, ...] = (), objective: Objective = "accuracy"
) -> LargerNetworks:
    """Return what is said of ``larger`` beside the answer and a smaller network, on the second of two devices."""
    networks = (trained(0.5, 900, 950), ANSWER, *larger)
    stage = FinalStage(Rungs((2, 4), 2), Recipe(epochs=4), 1.0, 1.0, networks)
    end = StageEnd(stage, [one.architecture for one in rejected], objective)
    one = larger_networks(end, device="fake", limit_ms=1.0, index=1, name="net-05", answer=ANSWER.architecture)
    assert one is not None
    # What is written is what is read.
    assert structure(unstructure(one), LargerNetworks) == one
    assert unstructure(one)["sentence"] == one.sentence
    return one


def test_the_best_of_those_trained_as_long_stands_beside_the_answer() -> None:
    one = found(trained(0.8, 390, 405), trained(0.95, 395, 412), trained(0.97, 300))
    assert (one.stage, one.trained, one.exceeded, one.more_accurate) == (5, 3, 0, False)
    assert one.sentence == (
        "In the final stage, 3 networks that use more of the 1 ms on fake were trained; after 4 epochs, the most "
        "accurate of the 2 with the longest training (predicted at 0.95 ms) had 41.2% of 1,000 held-out images "
        "right, and net-05 (predicted at 0.72 ms) 43.1%"
    )
    assert more_training(one) == ""


def test_networks_that_were_left_out_are_compared_after_as_long_a_training() -> None:
    # The answer has 43.1% at the end, and 40.0% after the rung that the larger ones had.
    one = found(trained(0.8, 399), trained(0.95, 380))
    assert one.sentence == (
        "In the final stage, 2 networks that use more of the 1 ms on fake were trained; after 2 epochs, as long as "
        "both were trained, the most accurate of them (predicted at 0.8 ms) had 39.9% of 1,000 held-out images "
        "right, and net-05 (predicted at 0.72 ms) 40.0%"
    )
    assert not one.more_accurate


def test_what_exceeded_a_budget_when_it_was_measured_does_not_count() -> None:
    better = trained(0.99, 500, 600)
    one = found(trained(0.9, 300, 420), better, rejected=(better,))
    assert one.sentence == (
        "In the final stage, 1 network that uses more of the 1 ms on fake was trained, apart from 1 that exceeded "
        "a budget when measured; after 4 epochs, it (predicted at 0.9 ms) had 42.0% of 1,000 held-out images "
        "right, and net-05 (predicted at 0.72 ms) 43.1%"
    )
    alone = found(better, rejected=(better,))
    assert (alone.trained, alone.exceeded, alone.compared) == (0, 1, None)
    assert alone.sentence == (
        "None of the 3 networks of the final stage uses more of the 1 ms on fake, apart from 1 that exceeded a "
        "budget when measured"
    )


def test_a_larger_network_that_is_more_accurate_asks_for_longer_trainings() -> None:
    # Another network of its stretch went on, and was over the budget.
    one = found(trained(0.95, 412))
    assert one.more_accurate
    assert more_training(one) == "; a larger --final trains them for longer"


def test_where_none_uses_more() -> None:
    none = found()
    assert none.sentence == "None of the 2 networks of the final stage uses more of the 1 ms on fake"
    assert more_training(none) == "; a larger --final trains more networks"
    without = larger_networks(
        StageEnd(None, [], "accuracy"),
        device="fake",
        limit_ms=20.0,
        index=0,
        name="net-05",
        answer=ANSWER.architecture,
    )
    assert without is not None
    assert without.sentence == (
        "No network that uses more of the 20 ms on fake was trained, because the search had no final stage"
    )
    assert more_training(without) == "; --final 0.3 trains larger networks"


def test_balanced_accuracy_is_what_is_compared() -> None:
    # All of the large class and 20 of the small one are 60%: the answer has 43.1% of all, and half of this.
    one = found(trained(0.95, 0, 920), objective="balanced-accuracy")
    assert one.sentence.endswith(
        "after 4 epochs, it (predicted at 0.95 ms) had a balanced accuracy of 60.0% on 1,000 held-out images, and "
        "net-05 (predicted at 0.72 ms) 23.9%"
    )


@pytest.mark.parametrize("answer", [trained(0.6), trained(0.61, 400)])
def test_an_answer_that_the_stage_did_not_train_is_not_compared(answer: Nominee) -> None:
    stage = FinalStage(Rungs((2, 4), 2), Recipe(epochs=4), 1.0, 1.0, (trained(0.6), ANSWER))
    end = StageEnd(stage, [], "accuracy")
    assert (
        larger_networks(end, device="fake", limit_ms=1.0, index=1, name="net-05", answer=answer.architecture)
        is None
    )
