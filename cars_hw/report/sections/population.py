"""How the population moved over the generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from cars_hw.formatting import percent
from cars_hw.report import charts
from cars_hw.report.data import Cost, ReportData
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.plot import NARROW, WIDE, Frame


def section(report_data: ReportData) -> Html:
    """Return every generation's population over each cost, its figures by generation, and both in a table."""
    if not report_data.history:
        return tag("p", "The search has left no generations.")
    return join([_moved(report_data), _trends(report_data), _figures(report_data)])


def _moved(report_data: ReportData) -> Html:
    """Return the populations over all costs in one figure, so that one slider moves them all."""
    generations = [generation for generation in report_data.history if generation.get("population")]
    if not generations:
        return Html("")
    first, *further = report_data.minimised
    drawings = [
        tag("div", _drawn(generations, first, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    # One drawing each, which suits a desk and a telephone: every dot is a line of the page.
    if further:
        drawings.append(tag("div", *(_drawn(generations, cost, NARROW) for cost in further), class_="trends"))
    words = (
        "Each dot is an architecture of the population, judged under the shared weights of its generation. The "
        f"larger and stronger, the later: {generations[0]['generation']} to {generations[-1]['generation']}."
    )
    return tag("figure", *drawings, tag("figcaption", words), class_="population")


def _drawn(generations: Sequence[Mapping[str, Any]], cost: Cost, frame: Frame) -> Html:
    populations = [
        (
            generation["generation"],
            [(member["costs"][cost.index], 100 * member["accuracy"]) for member in generation["population"]],
        )
        for generation in generations
    ]
    return charts.generations(populations, f"{cost.title}, {cost.unit}", cost.limit, cost.limit_text, frame)


def _trends(report_data: ReportData) -> Html:
    numbers = [generation["generation"] for generation in report_data.history]
    plots = [
        charts.trend(numbers, [generation["hypervolume"] for generation in report_data.history], "hypervolume"),
        charts.trend(
            numbers,
            [100 * generation["best_accuracy"] for generation in report_data.history],
            "best accuracy under shared weights, %",
        ),
    ]
    if all(generation.get("population") for generation in report_data.history):
        plots += [_spread(report_data, cost, numbers) for cost in report_data.minimised]
    most = (
        "the full budget"
        if report_data.costs[0].limit is not None
        else "the cost of the dearest of the first networks"
    )
    note = (
        f"Hypervolume is the share of the space between no error at no cost and all errors at {most} that the "
        "population dominates: 1 would be perfect."
    )
    return join(
        [tag("div", *(tag("figure", plot) for plot in plots), class_="trends"), tag("p", note, class_="note")]
    )


def _spread(report_data: ReportData, cost: Cost, numbers: Sequence[int]) -> Html:
    spreads = [
        [member["costs"][cost.index] for member in generation["population"]] for generation in report_data.history
    ]
    return charts.trend(
        numbers,
        [median(costs) for costs in spreads],
        f"{cost.title}, {cost.unit}: median, range",
        [(min(costs), max(costs)) for costs in spreads],
    )


def _figures(report_data: ReportData) -> Html:
    rows = [
        [
            str(generation["generation"]),
            str(generation["candidates"]),
            f"{generation['loss']:.3f}",
            percent(generation["best_accuracy"]),
            f"{generation['hypervolume']:.4f}",
        ]
        for generation in report_data.history
    ]
    columns = ("generation", "evaluated", "training loss", "best accuracy", "hypervolume")
    return tag(
        "details",
        tag("summary", f"All {len(rows)} generations in figures"),
        table(columns, rows, "The generations"),
    )
