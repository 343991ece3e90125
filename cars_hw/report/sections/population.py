"""How the population moved over the generations."""

from __future__ import annotations

from statistics import median

from cars_hw.report import charts
from cars_hw.report.facts import Cost, Facts
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.plot import NARROW, WIDE
from cars_hw.report.words import percent


def section(facts: Facts) -> Html:
    """Return the population of every generation in one plot, its figures by generation, and both in a table."""
    if not facts.history:
        return tag("p", "The search has left no generations.")
    return join([*(_moved(facts, cost) for cost in facts.costs[:1]), _trends(facts), _figures(facts)])


def _moved(facts: Facts, cost: Cost) -> Html:
    populations = [
        (
            generation["generation"],
            [
                (member["costs"][cost.index], 100 * member["accuracy"])
                for member in generation.get("population", ())
            ],
        )
        for generation in facts.history
    ]
    populations = [(number, members) for number, members in populations if members]
    if not populations:
        return Html("")
    title = f"{cost.title}, {cost.unit}"
    drawings = [
        tag("div", charts.generations(populations, title, cost.limit, cost.limit_text, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    words = (
        "Each dot is an architecture of the population, judged under the shared weights of its generation. The "
        f"larger and stronger, the later: {populations[0][0]} to {populations[-1][0]}."
    )
    return tag("figure", *drawings, tag("figcaption", words), class_="population")


def _trends(facts: Facts) -> Html:
    numbers = [generation["generation"] for generation in facts.history]
    cost = facts.costs[0]
    plots = [
        charts.trend(numbers, [generation["hypervolume"] for generation in facts.history], "hypervolume"),
        charts.trend(
            numbers,
            [100 * generation["best_accuracy"] for generation in facts.history],
            "best accuracy under shared weights, %",
        ),
    ]
    spreads = [
        [member["costs"][cost.index] for member in generation.get("population", ())] for generation in facts.history
    ]
    if all(spreads):
        plots.append(
            charts.trend(
                numbers,
                [median(costs) for costs in spreads],
                f"{cost.title}, {cost.unit}: median, range",
                [(min(costs), max(costs)) for costs in spreads],
            )
        )
    most = "the full budget" if cost.limit is not None else "the cost of the dearest of the first networks"
    note = (
        f"Hypervolume is the share of the space between no error at no cost and all errors at {most} that the "
        "population dominates: 1 would be perfect."
    )
    return join(
        [tag("div", *(tag("figure", plot) for plot in plots), class_="trends"), tag("p", note, class_="note")]
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
