"""Whether shared weights put networks into the order that training puts them into."""

from __future__ import annotations

from collections.abc import Sequence

from cars_hw.report.facts import Facts
from cars_hw.report.markup import Html, join, table, tag, text
from cars_hw.report.plot import SQUARE, Point, scatter
from cars_hw.report.words import percent
from cars_hw.runs.ranking import Ranked, spread


def section(facts: Facts) -> Html:
    """Return the sample that was trained alone, drawn against its accuracies under shared weights."""
    ranking = facts.ranking
    if ranking is None:
        return tag(
            "p",
            text(
                "Nothing was checked: the sample is zero, no architecture was trained alone to be held against its "
                "accuracy under shared weights. "
            ),
            tag("code", f"cars-hw rank {facts.name}"),
            text(" trains a sample (20, or as many as --sample says); the next report shows how the orders agree."),
        )
    networks = ranking.networks
    words = f"alone, {percent(spread(networks))} between the best and the worst"
    if ranking.tau is None:
        told = f"All {len(networks)} networks are equal in one of the two: no order to compare; {words}."
    else:
        told = (
            f"Kendall's tau is {ranking.tau:.2f} over {len(networks)} networks (1: the same order, 0: one says "
            f"nothing of the other); {words}."
        )
    drawn = scatter(
        [_point(one) for one in networks],
        "under shared weights (validation), %",
        "trained alone (test), %",
        frame=SQUARE,
    )
    caption = (
        f"{told} Each was trained from scratch for {ranking.recipe.get('epochs')} epochs, with the SuperNet's "
        "channels and cells. Discs: of the front. Rings: drawn at random within the budgets."
    )
    return join([tag("figure", drawn, tag("figcaption", caption), class_="beside"), _figures(networks)])


def _point(one: Ranked) -> Point:
    words = f"{one.name}: {percent(one.shared)} under shared weights, {percent(one.alone)} alone"
    return Point(100 * one.shared, 100 * one.alone, words, "ring" if one.drawn else "disc")


def _figures(networks: Sequence[Ranked]) -> Html:
    rows = [
        [one.name, percent(one.shared), percent(one.alone)] for one in sorted(networks, key=lambda one: -one.alone)
    ]
    return table(["network", "shared weights", "trained alone"], rows, "Accuracies under shared weights and alone")
