"""The front: a plot in which a network is chosen, and its figures."""

from __future__ import annotations

from cars_hw.formatting import UNKNOWN, figure, millions, milliseconds, percent
from cars_hw.report import charts
from cars_hw.report.data import Candidate, Cost, ReportData
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.plot import NARROW, WIDE


def section(report_data: ReportData) -> Html:
    """Return the front over each cost, what the marks mean, and the table of its networks."""
    if not report_data.candidates:
        return tag("p", "The front is empty.")
    return join(
        [*(_plot(report_data, cost) for cost in report_data.costs), _details(report_data), _rejected(report_data)]
    )


def line_of(candidate: Candidate, cost: Cost) -> str:
    """Return one line that tells a network from the others."""
    words = [f"{candidate.name}: {figure(cost.of(candidate))} {cost.unit} {_without_unit(cost)}"]
    if candidate.trained is not None:
        words.append(f"{percent(candidate.trained.accuracy)} on the test images")
    if candidate.shared_accuracy is not None:
        words.append(f"{percent(candidate.shared_accuracy)} under shared weights")
    return ", ".join(words)


def mark_of(candidate: Candidate, cost: Cost) -> charts.Mark:
    """Return where ``candidate`` lies in the plot over ``cost``."""
    shared, trained = candidate.shared_accuracy, candidate.trained
    return charts.Mark(
        candidate.name,
        cost.of(candidate),
        candidate.latency_estimates[cost.index].bound_ms if cost.unit == "ms" else None,
        None if shared is None else 100 * shared,
        None if trained is None else 100 * trained.accuracy,
        candidate.name.removeprefix("net-"),
        line_of(candidate, cost),
    )


def _plot(report_data: ReportData, cost: Cost) -> Html:
    marks = [mark_of(candidate, cost) for candidate in report_data.candidates]
    title = f"{cost.title}, {cost.unit}"
    drawings = [
        tag("div", charts.front(marks, title, cost.limit, cost.limit_text, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    signs = [
        _sign("disc", "test accuracy of a trained network"),
        _sign("ring", "validation accuracy under shared weights"),
    ]
    if cost.unit == "ms":
        signs.append(_sign("bound", "to the upper bound of the prediction, which the budget is held against"))
    return tag(
        "figure",
        *drawings,
        tag("figcaption", tag("ul", *signs, class_="legend")),
        class_="front",
    )


def _sign(kind: str, meaning: str) -> Html:
    shape = (
        tag("path", class_="bound", d="M1 8H21")
        if kind == "bound"
        else tag("circle", class_=kind, cx=11, cy=8, r=5)
    )
    picture = tag("svg", shape, viewBox="0 0 22 16", width=22, height=16, aria_hidden="true")
    return tag("li", picture, meaning)


def _details(report_data: ReportData) -> Html:
    devices = [target.device for target in report_data.targets]
    columns = ["network", "test accuracy", "shared accuracy", "parameters", "multiply-adds"]
    for device in devices:
        columns += [f"predicted, {device}", "upper bound", "measured"]
    rows = []
    for candidate in report_data.candidates:
        row: list[str] = [
            tag("a", candidate.name, href=f"#{candidate.name}"),
            percent(candidate.trained.accuracy) if candidate.trained is not None else UNKNOWN,
            percent(candidate.shared_accuracy),
            millions(candidate.parameters),
            millions(candidate.multiply_adds),
        ]
        for estimate in candidate.latency_estimates:
            row += map(milliseconds, (estimate.predicted_ms, estimate.bound_ms, estimate.measured_ms))
        rows.append(row)
    note = (
        f"{UNKNOWN} is what was not trained or not measured. The latency here was measured when the search ended, "
    )
    note += "with weights that were not trained, which does not change it."
    return tag(
        "details",
        tag("summary", f"All {len(rows)} networks in figures"),
        table(columns, rows, "The networks of the front"),
        tag("p", note, class_="note"),
    )


def _rejected(report_data: ReportData) -> Html:
    if not report_data.rejected:
        return Html("")
    sentence = tag(
        "p",
        f"{len(report_data.rejected)} more networks were predicted to keep to the budget, exceeded it when "
        "measured, and were replaced by the next best.",
    )
    rows = [
        [
            network.name,
            estimate.device,
            *map(milliseconds, (estimate.bound_ms, estimate.measured_ms, estimate.limit_ms)),
        ]
        for network in report_data.rejected
        for estimate in network.latency_estimates
        if estimate.over_limit
    ]
    figures = table(("network", "device", "upper bound", "measured", "budget"), rows, "Networks that were replaced")
    return join([sentence, tag("details", tag("summary", "What was replaced"), figures)])


def _without_unit(cost: Cost) -> str:
    return cost.title if cost.unit == "ms" else f"of {cost.title}"
