"""How the population moved over the generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from cars_hw.report import charts
from cars_hw.report.data import Cost, Facts
from cars_hw.report.formatting import percent
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.plot import NARROW, WIDE, Frame


def section(facts: Facts) -> Html:
    """Return every generation's population over each cost, its figures by generation, and both in a table."""
    if not facts.history:
        return tag("p", "The search has left no generations.")
    return join([_moved(facts), _trends(facts), _figures(facts)])


def _moved(facts: Facts) -> Html:
    """Return the populations over all costs in one figure, so that one slider moves them all."""
    generations = [generation for generation in facts.history if generation.get("population")]
    if not generations:
        return Html("")
    first, *further = facts.minimised
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


def _trends(facts: Facts) -> Html:
    numbers = [generation["generation"] for generation in facts.history]
    plots = [
        charts.trend(numbers, [generation["hypervolume"] for generation in facts.history], "hypervolume"),
        charts.trend(
            numbers,
            [100 * generation["best_accuracy"] for generation in facts.history],
            "best accuracy under shared weights, %",
        ),
    ]
    if all(generation.get("population") for generation in facts.history):
        plots += [_spread(facts, cost, numbers) for cost in facts.minimised]
    most = (
        "the full budget" if facts.costs[0].limit is not None else "the cost of the dearest of the first networks"
    )
    note = (
        f"Hypervolume is the share of the space between no error at no cost and all errors at {most} that the "
        "population dominates: 1 would be perfect."
    )
    return join(
        [tag("div", *(tag("figure", plot) for plot in plots), class_="trends"), tag("p", note, class_="note")]
    )


def _spread(facts: Facts, cost: Cost, numbers: Sequence[int]) -> Html:
    spreads = [[member["costs"][cost.index] for member in generation["population"]] for generation in facts.history]
    return charts.trend(
        numbers,
        [median(costs) for costs in spreads],
        f"{cost.title}, {cost.unit}: median, range",
        [(min(costs), max(costs)) for costs in spreads],
    )


def _figures(facts: Facts) -> Html:
    rows = [
        [
            str(generation["generation"]),
            str(generation["candidates"]),
            f"{generation['loss']:.3f}",
            percent(generation["best_accuracy"]),
            f"{generation['hypervolume']:.4f}",
        ]
        for generation in facts.history
    ]
    columns = ("generation", "evaluated", "training loss", "best accuracy", "hypervolume")
    return tag(
        "details",
        tag("summary", f"All {len(rows)} generations in figures"),
        table(columns, rows, "The generations"),
    )
