"""The Pareto front: a plot in which a network is selected, and a table."""

from __future__ import annotations

from typing import Any

from cars_hw.config.evaluated import training_words
from cars_hw.config.evaluation import ClassCounts, Objective
from cars_hw.formatting import (
    LOSSES_CHOSE,
    UNKNOWN,
    accuracy_text,
    dominated_words,
    figure,
    millions,
    milliseconds,
    percent,
)
from cars_hw.report import charts
from cars_hw.report.data import Candidate, Cost, ReportData
from cars_hw.report.plot import NARROW, WIDE


def view(report: ReportData) -> dict[str, Any]:
    """Return the front over each cost, the columns of its table, and the networks that measurement rejected."""
    name = report.accuracy_name
    size = ["size"] if report.sized else []
    columns = ["network", *size, f"test {name}", report.choosing_name, "parameters", "multiply-adds"]
    columns += [f"{cost.title}, {cost.unit}" for cost in report.named_costs]
    for target in report.targets:
        columns += [f"predicted, {target.device}", "upper bound", "measured", "usual state"]
    rows = [
        (candidate.name, [*_size(report, candidate), *_cells(candidate, report)]) for candidate in report.candidates
    ]
    rejected = [
        (network.name, one.device, *map(milliseconds, (one.bound_ms, one.measured_ms, one.limit_ms)))
        for network in report.rejected
        for one in network.latency_estimates
        if one.over_limit
    ]
    plots = [_plot(report, cost) for cost in report.costs] if report.candidates else []
    states = {target.device: target.record.state for target in report.targets}
    return {
        "plots": plots,
        "columns": columns,
        "rows": rows,
        "rejected": rejected,
        "states": states,
        "name": name,
        "images": _images(report),
        "dominated": dominated_words([one.name for one in report.candidates if one.dominated]),
        "losses_chose": LOSSES_CHOSE,
    }


def _images(report: ReportData) -> str:
    """Return the numbers of images behind the accuracies, in words."""
    validation = next((one.validation.total for one in report.candidates if one.validation is not None), None)
    tests = sorted({one.trained.test.total for one in report.candidates if one.trained is not None})
    words = [f"test accuracies are on {' or '.join(f'{count:,}' for count in tests)} images"] if tests else []
    if validation is not None:
        words.append(f"accuracies {report.choosing} on {validation:,} validation images, which chose the front")
    return " and ".join(words)


def _size(report: ReportData, candidate: Candidate) -> list[str]:
    return [report.size_of(candidate.spec)] if report.sized else []


def _cells(candidate: Candidate, report: ReportData) -> list[str]:
    objective = report.objective
    test = None if candidate.trained is None else candidate.trained.test
    cells = [
        _share(None if test is None else test.score(objective), test, objective),
        _share(candidate.shared_accuracy, candidate.validation, objective),
        millions(candidate.parameters),
        millions(candidate.multiply_adds),
        *(figure(one.of(candidate)) if one.is_known(candidate) else UNKNOWN for one in report.named_costs),
    ]
    for one in candidate.latency_estimates:
        cells += map(milliseconds, (one.predicted_ms, one.bound_ms, one.measured_ms, one.usual_ms))
    return cells


def _share(score: float | None, counts: ClassCounts | None, objective: Objective) -> str:
    return accuracy_text(score, None if counts is None else counts.interval(objective))


def line_of(report: ReportData, candidate: Candidate, cost: Cost) -> str:
    """Return one line that describes a network: its name, its size, its cost and its accuracies."""
    words = [f"{candidate.name}: {report.size_of(candidate.spec)}"]
    if cost.is_known(candidate):
        words.append(f"{figure(cost.of(candidate))} {cost.unit} {_without_unit(cost)}")
    if candidate.trained is not None:
        words.append(f"{percent(candidate.trained.test.score(report.objective))} on the test images")
    if candidate.shared_accuracy is not None:
        words.append(
            f"{percent(candidate.shared_accuracy)} {training_words(candidate.trained_epochs, report.classifier)}"
        )
    return ", ".join(words)


def mark_of(report: ReportData, candidate: Candidate, cost: Cost) -> charts.Mark:
    """Return the mark of ``candidate`` in the plot over ``cost``."""
    shared, trained = candidate.shared_accuracy, candidate.trained
    return charts.Mark(
        candidate.name,
        cost.of(candidate),
        candidate.latency_estimates[cost.index].bound_ms if cost.is_latency else None,
        None if shared is None else 100 * shared,
        None if trained is None else 100 * trained.test.score(report.objective),
        candidate.name.removeprefix("net-"),
        line_of(report, candidate, cost),
    )


def _plot(report: ReportData, cost: Cost) -> dict[str, Any]:
    marks = [mark_of(report, candidate, cost) for candidate in report.candidates if cost.is_known(candidate)]
    wide, narrow = (
        charts.front(marks, f"{cost.title}, {cost.unit}", cost.limit, cost.limit_text, frame, report.accuracy_name)
        for frame in (WIDE, NARROW)
    )
    return {"wide": wide, "narrow": narrow, "bounded": cost.is_latency}


def _without_unit(cost: Cost) -> str:
    return cost.title if cost.is_latency else f"of {cost.title}"
