"""How the population changed over the generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from cars_hw.config.evaluated import shared_words, training_words
from cars_hw.config.evaluation import ClassCounts
from cars_hw.formatting import accuracy_text
from cars_hw.report import charts
from cars_hw.report.data import Cost, ReportData
from cars_hw.report.plot import NARROW, WIDE, Frame

History = Sequence[Mapping[str, Any]]


def view(report: ReportData) -> dict[str, Any]:
    """Return every generation's population over each cost, and figures by generation as plots and as a table."""
    rows = [
        (
            str(one["generation"]),
            str(one["candidates"]),
            "" if one["loss"] is None else f"{one['loss']:.3f}",
            _best(one, report),
            f"{one['hypervolume']:.4f}",
        )
        for one in report.history
    ]
    return {
        "population": _populations(report),
        "trends": _trends(report) if report.history else [],
        "rows": rows,
        "images": sum(report.history[-1]["best_counts"]["images"]) if report.history else 0,
        "name": report.accuracy_name,
        "evaluated": training_words(0, report.classifier),
        "trains": report.configuration.training.trains,
    }


def _best(record: Mapping[str, Any], report: ReportData) -> str:
    counts = ClassCounts(tuple(record["best_counts"]["images"]), tuple(record["best_counts"]["right"]))
    return accuracy_text(record["best_accuracy"], counts.interval(report.objective))


def _populations(report: ReportData) -> dict[str, Any] | None:
    """Return the populations over all costs for one figure, whose slider moves all of its plots."""
    history = [one for one in report.history if one.get("population")]
    if not history:
        return None
    first, *further = report.minimised
    name = f"{report.accuracy_name} {shared_words(report.classifier)}"
    return {
        "wide": _drawn(history, first, WIDE, name),
        "narrow": _drawn(history, first, NARROW, name),
        # One drawing of each suits a desktop and a phone: every dot is a line of the page.
        "further": [_drawn(history, cost, NARROW, name) for cost in further],
        "first": history[0]["generation"],
        "last": history[-1]["generation"],
    }


def _drawn(history: History, cost: Cost, frame: Frame, name: str) -> Markup:
    populations = [
        (
            one["generation"],
            [(member["costs"][cost.index], 100 * member["accuracy"]) for member in one["population"]],
        )
        for one in history
    ]
    return charts.generations(populations, f"{cost.title}, {cost.unit}", cost.limit, cost.limit_text, frame, name)


def _trends(report: ReportData) -> list[Markup]:
    history = report.history
    numbers = [one["generation"] for one in history]
    best = [100 * one["best_accuracy"] for one in history]
    plots = [
        charts.trend(numbers, [one["hypervolume"] for one in history], "hypervolume"),
        charts.trend(numbers, best, f"best {report.accuracy_name} {shared_words(report.classifier)}, %"),
    ]
    if all(one.get("population") for one in history):
        plots += [_spread(history, cost, numbers) for cost in report.minimised]
    return plots


def _spread(history: History, cost: Cost, numbers: Sequence[int]) -> Markup:
    spreads = [[member["costs"][cost.index] for member in one["population"]] for one in history]
    return charts.trend(
        numbers,
        [median(costs) for costs in spreads],
        f"{cost.title}, {cost.unit}: median, range",
        [(min(costs), max(costs)) for costs in spreads],
    )
