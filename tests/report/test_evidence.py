"""The section on what a run shows of its own choices: every figure in it is that of the files."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import permutations

import pytest
from scipy.stats import kendalltau

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.presets import PRESETS
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.nominees import Nominee
from cars_hw.formatting import LOSSES_CHOSE
from cars_hw.pipeline.records import FinalStage, StartRecord
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.data import ReportData, gather
from cars_hw.report.page import section
from cars_hw.report.sections import evidence
from cars_hw.significance import tau_of_chance
from cars_hw.studies.ranking import Ranked, Ranking


@pytest.fixture
def report(run: RunFolder) -> ReportData:
    return gather(run)


def texts(report: ReportData) -> dict[str, str]:
    return {one.subject: one.text for one in evidence.view(report)["statements"]}


def nominee(report: ReportData, index: int, stretch: int, shared: float | None, *right: int) -> Nominee:
    """A network of which so many of 100 images are right after each rung."""
    like = report.candidates[index % 5]
    results = tuple(ClassCounts((50, 50), (one // 2, one - one // 2)) for one in right)
    return Nominee(f"final-{index:02d}", like.genotype, like.spec, (0.1,), stretch, "score", shared, results)


def stage(report: ReportData, *networks: Nominee) -> FinalStage:
    return FinalStage(Rungs((1, 3), 1), PRESETS["quick"].recipe, 2.0, 1.0, networks)


def test_the_loss_is_compared_with_guessing_by_the_shares_of_the_classes(report: ReportData) -> None:
    said = texts(report)["Shared weights"]
    # Losses of 1, 1/2 and 1/3; 100, 110 and 120 images of the classes.
    guessing = -sum(one / 330 * math.log(one / 330) for one in (100, 110, 120))
    assert evidence.chance_loss(report) == pytest.approx(guessing)
    assert "was 1.00 in generation 1 and 0.333 in generation 3" in said
    assert f"shares of the classes has {guessing:.2f}." in said
    assert said.endswith("So the shared weights have learned from the images.")
    untaught = replace(report, history=tuple({**one, "loss": 1.2} for one in report.history))
    assert "have not learned from the images" in texts(untaught)["Shared weights"]
    training = replace(report.configuration.training, class_weights="balanced")
    balanced = replace(report, configuration=replace(report.configuration, training=training))
    assert evidence.chance_loss(balanced) == pytest.approx(math.log(3))


def test_every_accuracy_under_shared_weights_names_its_classifier(report: ReportData) -> None:
    """No section of a search with linear probes calls an accuracy that of the shared classifier, or just shared."""
    training = replace(report.configuration.training, classifier="probe")
    own = replace(report, configuration=replace(report.configuration, training=training))
    networks = [nominee(own, index, 1, 0.9 - index / 10, 50 + 5 * index) for index in range(4)]
    sample = tuple(
        Ranked(one.name, one.genotype, one.spec, 0.5 + index / 100, 0.6, validation_images=9, test_images=9)
        for index, one in enumerate(own.candidates)
    )
    for one in (
        own,
        replace(own, final_stage=stage(own, *networks)),
        replace(own, ranking=Ranking(sample, None, classifier="probe")),
    ):
        for name in ("front", "networks", "population", "evidence", "final", "ranking", "conditions"):
            text = " ".join(re.sub(r"<[^>]+>", " ", str(section(name, one))).split())
            assert not re.search(r"shared (classifier|accurac)|classifier of the SuperNet", text), (name, text)
            for after in re.findall(r"accurac(?:y|ies) under shared weights(.{26})", text):
                assert after.startswith(" with a linear probe"), (name, after)
    assert "with a linear probe for each network alone chose the front" in texts(own)["Final stage"]
    assert "linear-probe accuracy" in section("front", own)
    assert "validation accuracy, linear probe" in section("networks", own)
    assert "best accuracy under shared weights with a linear probe, %" in section("population", own)
    assert "by a linear probe for each network" in section("conditions", own)


def test_the_orders_of_the_final_stage_are_compared_with_their_number(report: ReportData) -> None:
    assert texts(report)["Final stage"].startswith("There was none")
    networks = [
        nominee(report, 0, 1, 0.9, 50),
        nominee(report, 1, 1, 0.8, 60, 70),
        nominee(report, 2, 2, 0.7, 80, 81),
        nominee(report, 3, 2, 0.6, 55, 90),
        nominee(report, 4, 2, None, 40),
    ]
    said = texts(replace(report, final_stage=stage(report, *networks)))["Final stage"]
    tau = kendalltau([0.9, 0.8, 0.7, 0.6], [50, 60, 80, 55]).statistic
    shared = "under shared weights with the shared classifier"
    assert f"by accuracy {shared} and the order after 1 epoch of training is {tau:.2f} for 4" in said
    assert (
        "not shown to be more alike than by chance: unrelated orders of 4 networks have between -0.96 and" in said
    )
    # In the first stretch the second one went on, and in the second stretch the fourth overtook.
    assert "In 2 of 2 stretches" in said
    assert "3 networks are too few to compare the orders after 1 and after 3 epochs." in said
    assert "The 3 networks of the last rung range over 20.0 points" in said
    assert "(100 images)" in said
    kept = [replace(networks[0], results=networks[3].results), *networks[1:]]
    assert "In 1 of 2 stretches" in texts(replace(report, final_stage=stage(report, *kept)))["Final stage"]


def test_after_a_search_by_the_loss_the_orders_of_the_losses_are_compared(report: ReportData) -> None:
    evolution = replace(report.configuration.evolution, objective="loss")
    own = replace(report, configuration=replace(report.configuration, evolution=evolution))
    assert (
        texts(own)["Final stage"]
        == "There was none: the losses under shared weights with the shared classifier alone chose the front."
    )
    assert "the losses under shared weights with the shared classifier chose the front" in section("final", own)
    assert [LOSSES_CHOSE in section("front", one) for one in (own, report)] == [True, False]
    # By loss in the order of the trainings, and by accuracy the other way round.
    nominees = [
        replace(nominee(own, index, 1, 0.9 - index / 10, 40 + 10 * index), shared_loss=2.0 - index / 10)
        for index in range(4)
    ]
    staged = replace(own, final_stage=stage(own, *nominees))
    said = texts(staged)["Final stage"]
    shared = "under shared weights with the shared classifier"
    assert f"between the order by loss {shared} and the order after 1 epoch of training is 1.00" in said
    assert "In 0 of 1 stretches of the range, another network than the one with the lowest shared loss" in said
    page = section("final", staged)
    assert f"between the losses {shared} and the accuracies after the first rung is 1.00" in page
    first = report.candidates[0].trained
    assert first is not None
    candidates = tuple(
        replace(
            one,
            trained=one.trained or first,
            validation=None if one.validation is None else replace(one.validation, loss=1.0 + index),
        )
        for index, one in enumerate(report.candidates)
    )
    test = [one.trained.accuracy for one in candidates if one.trained is not None]
    tau = kendalltau([-one for one in range(5)], test).statistic
    said = texts(replace(own, candidates=candidates))["Trained networks"]
    assert (
        f"the order by loss under shared weights, which chose the front, and that by test accuracy is {tau:.2f}"
        in said
    )
    page = section("ranking", replace(own, candidates=candidates))
    assert "between the order by the shared loss, which chose the front, and that by test accuracy" in page


def test_trained_networks_are_compared_or_said_to_be_too_few(report: ReportData) -> None:
    assert texts(report)["Trained networks"].startswith("3 networks are too few to compare the order by shared acc")
    without = replace(report, candidates=tuple(replace(one, trained=None) for one in report.candidates))
    assert "not checked" in texts(without)["Trained networks"]
    first = report.candidates[0].trained
    assert first is not None
    both = tuple(replace(one, trained=one.trained or first) for one in report.candidates)
    said = texts(replace(report, candidates=both))["Trained networks"]
    shared = [one.shared_accuracy for one in both]
    test = [one.trained.accuracy for one in both if one.trained is not None]
    assert f"is {kendalltau(shared, test).statistic:.2f} for 5 networks" in said
    assert "Budget" in texts(report)


def test_the_start_from_an_earlier_run_is_told(report: ReportData) -> None:
    assert "Start" not in texts(report)
    record = StartRecord(
        "/runs/old",
        report.data.digest,
        report.spec,
        report.spec,
        report.spec,
        750,
        1000,
        True,
        (),
        16,
        5,
        False,
        30,
        200,
        0,
        90,
    )
    said = texts(replace(report, start=record))["Start"]
    assert "weights of /runs/old, which had been trained for 16 epochs: 75.0%" in said
    assert "30 of the 200 images" in said
    assert said.endswith("accuracies under shared weights may be too high.")
    tested = replace(record, known_test_images=7, test_images=90)
    assert "7 of 90 test images were training images before: test" in texts(replace(report, start=tested))["Start"]
    assert "/runs/old" in section("evidence", replace(report, start=record))
    unknown = texts(replace(report, start=replace(record, known_images=None)))["Start"]
    assert "It is not known how many of the 200 images that may evaluate architectures were training" in unknown
    assert "may be too high" not in texts(replace(report, start=replace(record, known_images=0)))["Start"]


def test_unrelated_orders_exceed_the_tau_of_chance_in_one_of_twenty_cases() -> None:
    # All orders of seven, without a table.
    count = 7
    taus = [abs(kendalltau(range(count), order).statistic) for order in list(permutations(range(count)))[::7]]
    share = sum(tau > tau_of_chance(count) for tau in taus) / len(taus)
    assert 0.02 < share < 0.08
    # The closed form for 10: 1.96 times the root of 50 / 810.
    assert tau_of_chance(10) == pytest.approx(1.96 * math.sqrt(50 / 810), rel=1e-3)
    assert tau_of_chance(2) == 1
    with pytest.raises(ValueError, match="at least two"):
        tau_of_chance(1)
