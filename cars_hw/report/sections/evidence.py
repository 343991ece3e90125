"""What this run shows of its own choices: how the order of the networks was made, and how far it can be believed.

Every sentence has its figures from the files of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cars_hw.config.evaluated import training_words
from cars_hw.evolution.nominees import Nominee
from cars_hw.formatting import figure, percent
from cars_hw.latency.validation import kendall_tau
from cars_hw.pipeline.records import FinalStage
from cars_hw.report.data import Candidate, ReportData
from cars_hw.report.sections.answer import best_model, budget_uses_of
from cars_hw.significance import tau_of_chance
from cars_hw.studies.budget_choice import verdict

LEAST: Final = 4
"""Kendall's tau of fewer networks says nothing."""


class Statement(NamedTuple):
    """A sentence or several on one subject."""

    subject: str
    text: str


def view(report: ReportData) -> dict[str, Any]:
    """Return the statements on what the run shows."""
    found = [
        Statement("Start", _start(report)),
        Statement("Shared weights", _learned(report)),
        Statement("Final stage", _final(report)),
        Statement("Trained networks", _trained(report)),
        Statement("Random sample", _sample(report)),
        Statement("Budget", _budget(report)),
        Statement("Other networks", _others(report)),
    ]
    return {"statements": [one for one in found if one.text]}


def _others(report: ReportData) -> str:
    return "" if report.comparison is None else verdict(report.comparison.at_budgets) or ""


def _start(report: ReportData) -> str:
    start = report.start
    if start is None:
        return ""
    known = ""
    if start.known_images != 0:
        number = "It is not known how many" if start.known_images is None else f"{start.known_images:,}"
        known = (
            f" {number} of the {start.judging_images:,} images that may evaluate architectures were training "
            "images before, so accuracies under shared weights may be too high."
        )
    if start.known_tests:
        known += f" {start.known_tests[0].upper()}{start.known_tests[1:]}."
    return (
        f"The search started from the shared weights of {start.run}, which had been trained for {start.epochs} "
        f"epochs: {percent(start.taken / start.weights)} of its weights are from there. {start.population} of the "
        f"last architectures of that run were among the first of this one.{known}"
    )


def _learned(report: ReportData) -> str:
    """Return whether the loss of the shared weights is below that of guessing."""
    if not report.configuration.training.trains:
        return "There are none: linear probes on untrained weights evaluated the architectures."
    if not report.history or report.configuration.standalone_epochs:
        return ""
    first, last = report.history[0]["loss"], report.history[-1]["loss"]
    guessing = chance_loss(report)
    text = (
        f"Their mean training loss was {figure(first)} in generation {report.history[0]['generation']} and "
        f"{figure(last)} in generation {report.history[-1]['generation']}. A network that knows nothing but the "
        f"shares of the classes has {figure(guessing)}."
    )
    if last < guessing:
        return f"{text} So the shared weights have learned from the images."
    text = f"{text} So the shared weights have not learned from the images"
    if report.configuration.training.classifier == "probe":
        return f"{text}; the order is that of linear probes on their features."
    return f"{text}: the order by them has no meaning."


def chance_loss(report: ReportData) -> float:
    """Return the cross-entropy of guessing by the shares of the classes, which are equal with balanced weights."""
    numbers = [one for one in report.data.counts["train"] if one]
    if report.configuration.training.class_weights == "balanced":
        return math.log(len(numbers))
    total = sum(numbers)
    return -sum(one / total * math.log(one / total) for one in numbers)


def _final(report: ReportData) -> str:
    stage = report.final_stage
    if stage is None:
        figures = "losses" if report.by_loss else "accuracies"
        return f"There was none: the {figures} {training_words(0, report.classifier)} alone chose the front."
    texts = [
        _first_rung(report, stage),
        _winners(report, stage),
        *_later_rungs(report, stage),
        _noise(report, stage),
    ]
    return " ".join(text for text in texts if text)


def _first_rung(report: ReportData, stage: FinalStage) -> str:
    """Return the tau between the order under shared weights and that after the first rung."""
    pairs = [
        (shared, one.results[0].score(report.objective))
        for one in stage.networks
        if (shared := one.shared_figure) is not None
    ]
    epochs = stage.rungs.epochs[0]
    compared = "loss" if report.by_loss else report.accuracy_name
    under = f"the order by {compared} {training_words(0, report.classifier)}"
    return _agreement(pairs, f"{under} and the order after {epochs} {_epochs(epochs)} of training")


def _winners(report: ReportData, stage: FinalStage) -> str:
    """Return in how many stretches another network than that of the shared weights was the best."""
    members: dict[int, list[Nominee]] = {}
    for one in stage.networks:
        members.setdefault(one.stretch, []).append(one)
    changed = compared = 0
    for several in members.values():
        known = [(shared, one) for one in several if (shared := one.shared_figure) is not None]
        if len(several) < 2 or not known:
            continue
        compared += 1
        _, best = max(known, key=lambda pair: pair[0])
        scores = {one.name: (len(one.results), one.results[-1].score(report.objective)) for one in several}
        changed += scores[best.name] < max(scores.values())
    if not compared:
        return ""
    figure_of = "lowest shared loss" if report.by_loss else f"highest {report.shared_name}"
    return (
        f"In {changed} of {compared} stretches of the range, another network than the one with the {figure_of} was "
        "the best after training."
    )


def _later_rungs(report: ReportData, stage: FinalStage) -> list[str]:
    """Return for each rung but the first the tau to the rung before, of the networks of both."""
    texts = []
    for rung in range(1, len(stage.rungs.epochs)):
        both = [one.results for one in stage.networks if len(one.results) > rung]
        pairs = [(one[rung - 1].score(report.objective), one[rung].score(report.objective)) for one in both]
        before, now = stage.rungs.epochs[rung - 1], stage.rungs.epochs[rung]
        texts.append(_agreement(pairs, f"the orders after {before} and after {now} epochs"))
    return texts


def _noise(report: ReportData, stage: FinalStage) -> str:
    """Return the range of the last rung beside the confidence interval of one accuracy."""
    last = [one.results[-1] for one in stage.networks if len(one.results) == stage.done]
    if len(last) < 2:
        return ""
    scores = [one.score(report.objective) for one in last]
    best = max(last, key=lambda one: one.score(report.objective))
    low, high = best.interval(report.objective)
    spread = 100 * (max(scores) - min(scores))
    return (
        f"The {len(last)} networks of the last rung range over {spread:.1f} points; the 95% interval of the best "
        f"one is {100 * (high - low):.1f} points wide ({best.total:,} images)."
    )


def _trained(report: ReportData) -> str:
    """Return whether accuracies after the whole training agree with those that chose the front."""
    trained = [one for one in report.candidates if one.trained is not None and one.shared_accuracy is not None]
    if not trained:
        return "No network of the front was trained to the end yet, so the order of the front was not checked."
    pairs = [
        (_chosen_by(report, one), one.trained.test.score(report.objective))
        for one in trained
        if one.trained is not None
    ]
    chosen_by = "loss under shared weights" if report.losses_chose else report.choosing_name
    return _agreement(
        pairs, f"the order by {chosen_by}, which chose the front, and that by test {report.accuracy_name}"
    )


def _chosen_by(report: ReportData, one: Candidate) -> float:
    """Return the figure that chose the front, higher is better."""
    if report.losses_chose and one.validation is not None and one.validation.loss is not None:
        return -one.validation.loss
    return one.shared_accuracy or 0.0


def _sample(report: ReportData) -> str:
    ranking = report.ranking
    if ranking is None or ranking.tau is None:
        return ""
    by = "by loss " if ranking.by_loss else ""
    order = f"the order {by}{training_words(0, ranking.classifier)}"
    text = _agreement(ranking.pairs, f"{order} and that of networks trained from scratch")
    if ranking.agreement is not None:
        text += f" Two trainings of the same networks agree by a tau of {ranking.agreement:.2f}."
    return text


def _budget(report: ReportData) -> str:
    return " ".join(use.sentence for use in budget_uses_of(report, best_model(report)))


def _agreement(pairs: Sequence[tuple[float, float]], between: str) -> str:
    """Return a sentence with the tau of ``pairs``, and what unrelated orders would have."""
    count = len(pairs)
    if count < LEAST:
        networks = "1 network is" if count == 1 else f"{count} networks are"
        return f"{networks} too few to compare {between}."
    tau = kendall_tau([one for one, _ in pairs], [other for _, other in pairs])
    if tau is None:
        return f"All {count} networks are equal in one of the two: {between} cannot be compared."
    chance = tau_of_chance(count)
    related = "more alike than by chance" if tau > chance else "not shown to be more alike than by chance"
    if tau < -chance:
        related = "opposed more than by chance"
    return (
        f"Kendall's tau between {between} is {tau:.2f} for {count} networks, so the orders are {related}: "
        f"unrelated orders of {count} networks have between -{chance:.2f} and {chance:.2f} in 19 of 20 cases."
    )


def _epochs(number: int) -> str:
    return "epoch" if number == 1 else "epochs"
