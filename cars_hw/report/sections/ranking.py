"""Whether shared weights put networks into the order that training puts them into."""

from __future__ import annotations

from collections.abc import Sequence

from cars_hw.formatting import percent
from cars_hw.report.data import ReportData
from cars_hw.report.markup import Html, join, table, tag, text
from cars_hw.report.plot import SQUARE, Point, scatter
from cars_hw.studies.ranking import MINIMUM, Ranked, Ranking, spread


def section(report_data: ReportData) -> Html:
    """Return the sample that was trained alone, drawn against its accuracies under shared weights."""
    ranking = report_data.ranking
    if ranking is None:
        return _of_the_front(report_data)
    if not ranking.networks:
        return tag("p", "Not checked: a sample of none was asked for.")
    networks = ranking.networks
    words = f"alone, {percent(spread(networks))} between the best and the worst"
    if ranking.tau is None:
        told = f"All {len(networks)} networks are equal in one of the two: no order to compare; {words}."
    else:
        told = (
            f"Kendall's tau is {ranking.tau:.2f} over {len(networks)} networks (1: the same order, 0: one says "
            f"nothing of the other); {words}."
        )
    if ranking.agreement is not None:
        told += (
            f" A second training of the same networks agrees with the first by {ranking.agreement:.2f}, which is "
            "what an order as good as a training would reach."
        )
    drawn = scatter(
        [_point(one) for one in networks],
        "under shared weights (validation), %",
        "trained alone (test), %",
        frame=SQUARE,
    )
    epochs = "" if ranking.recipe is None else f"for {ranking.recipe.epochs} epochs"
    caption = (
        f"{told} Each was trained from scratch {epochs}, with the SuperNet's "
        "channels and cells. Discs: of the front. Rings: drawn at random within the budgets."
    )
    return join([tag("figure", drawn, tag("figcaption", caption), class_="beside"), _figures(networks)])


def _of_the_front(report_data: ReportData) -> Html:
    """Return what the front's own trained networks tell, where no sample was trained for it."""
    both = [
        Ranked(one.name, one.genotype, one.shared_accuracy, one.trained.accuracy)
        for one in report_data.candidates
        if one.trained is not None and one.shared_accuracy is not None
    ]
    how = [
        text("A sample with random architectures, trained from scratch, says more: "),
        tag("code", f"cars-hw rank {report_data.name}"),
        text("."),
    ]
    if len(both) < MINIMUM:
        return tag("p", text("Not checked: no sample of architectures was trained alone to compare with. "), *how)
    tau = Ranking(tuple(both), None).tau
    told = "all are equal in one of the two" if tau is None else f"Kendall's tau is {tau:.2f}"
    words = (
        f"Of the front's own {len(both)} networks that were trained to the end, {told} (1: the same order, 0: one "
        f"says nothing of the other), with {percent(spread(both))} between the best and the worst. They are few, "
        "chosen, and may have begun with shared weights. "
    )
    return join([tag("p", text(words), *how), _figures(both)])


def _point(one: Ranked) -> Point:
    words = f"{one.name}: {percent(one.shared)} under shared weights, {percent(one.standalone)} alone"
    return Point(100 * one.shared, 100 * one.standalone, words, "ring" if one.drawn else "disc")


def _figures(networks: Sequence[Ranked]) -> Html:
    rows = [
        [one.name, percent(one.shared), percent(one.standalone)]
        for one in sorted(networks, key=lambda one: -one.standalone)
    ]
    return table(["network", "shared weights", "trained alone"], rows, "Accuracies under shared weights and alone")
