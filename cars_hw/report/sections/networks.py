"""The networks one by one: figures, files, the two cells, and where the latency goes."""

from __future__ import annotations

from cars_hw.formatting import UNKNOWN, figure, millions, milliseconds, percent, size
from cars_hw.report.bars import by_operation, by_place, draw_bars, legend
from cars_hw.report.cells import draw_cell
from cars_hw.report.data import Candidate, ReportData, RunTarget
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.sections.answer import file_link, tile
from cars_hw.report.sections.front import line_of


def section(report_data: ReportData) -> Html:
    """Return a part for every network; a script shows one of them at a time, and without one all are there."""
    if not report_data.candidates:
        return Html("")
    chips = [
        tag("a", candidate.name, href=f"#{candidate.name}", data_network=candidate.name)
        for candidate in report_data.candidates
    ]
    told = tag("p", class_="hidden", id="told", role="status", aria_live="polite")
    return join(
        [
            tag("nav", *chips, class_="chips", aria_label="Networks"),
            told,
            *(_network(report_data, candidate) for candidate in report_data.candidates),
        ]
    )


def _network(report_data: ReportData, candidate: Candidate) -> Html:
    name = candidate.name
    cells = [
        tag(
            "figure",
            tag("figcaption", title),
            tag(
                "div",
                draw_cell(candidate.genotype.cell(reduction), f"{title} of {name}"),
                class_="scroll",
                tabindex="0",
                role="region",
                aria_label=f"{title} of {name}, drawn",
            ),
        )
        for title, reduction in (("Normal cell", False), ("Reduction cell", True))
    ]
    note = (
        "k-1 is the output of the cell before, k-2 that of the one before it. A circle is a node, the sum of its "
        "edges. In the reduction cell, operations on k-1 and k-2 halve the image."
    )
    latencies = [_latency(candidate, target) for target in report_data.targets]
    return tag(
        "section",
        tag("h3", name, id=f"{name}-title"),
        _figures(candidate),
        _files(candidate),
        tag("h4", "Its two cells"),
        tag("div", *cells, class_="cells"),
        tag("p", note, class_="note"),
        *latencies,
        tag("h4", "Its genotype"),
        tag("pre", tag("code", candidate.genotype.to_darts()), class_="copied", tabindex="0"),
        id=name,
        class_="network",
        tabindex="-1",
        aria_labelledby=f"{name}-title",
        data_line=line_of(candidate, report_data.costs[0]),
    )


def _figures(candidate: Candidate) -> Html:
    tiles = []
    if candidate.trained is not None:
        shared = percent(candidate.shared_accuracy)
        tiles.append(
            tile("accuracy, test images", percent(candidate.trained.accuracy), f"{shared} under shared weights")
        )
    else:
        note = "under shared weights; not trained"
        tiles.append(tile("accuracy, validation images", percent(candidate.shared_accuracy), note))
    for estimate in candidate.latency_estimates:
        budget = f", budget {milliseconds(estimate.limit_ms)}" if estimate.limit_ms is not None else ""
        note = f"at most {milliseconds(estimate.bound_ms)}{budget}"
        tiles.append(tile(f"predicted on {estimate.device}", milliseconds(estimate.predicted_ms), note))
    for row in candidate.measured:
        if row["name"] == candidate.name:
            off = f"{_off(row['deviation'])} than predicted" if row["deviation"] is not None else ""
            tiles.append(tile(f"measured on {row['device']}", milliseconds(row["measured_ms"]), off))
    tiles.append(tile("parameters", millions(candidate.parameters), f"{candidate.parameters:,}"))
    tiles.append(tile("multiply-adds", millions(candidate.multiply_adds), f"{candidate.multiply_adds:,}"))
    return tag("dl", *tiles, class_="tiles")


def _files(candidate: Candidate) -> Html:
    if not candidate.models:
        return Html("")
    rows = []
    for model in candidate.models:
        card = model.card
        rows.append(
            [
                file_link(model),
                card.precision,
                percent(card.accuracy),
                milliseconds(card.measured_ms),
                size(model.size),
                f"{card.parity:.0e}",
            ]
        )
    columns = ("file", "precision", "accuracy", "measured", "size", "error of export")
    return join([tag("h4", "Its files"), table(columns, rows, f"Files of {candidate.name}")])


def _latency(candidate: Candidate, run_target: RunTarget) -> Html:
    title = tag("h4", f"Where its latency goes on {run_target.device}")
    if run_target.target is None:
        return join([title, tag("p", f"Not known: {run_target.problem}.")])
    predictor = run_target.target.predictor
    parts = predictor.parts(candidate.genotype)
    made = predictor.composition(candidate.genotype)
    places = by_place(parts, predictor.spec, made.intercept_ms)
    operations = by_operation(parts, made.intercept_ms)
    by_cell = f"Latency of {candidate.name} on {run_target.device} by cell"
    by_kind = f"Latency of {candidate.name} on {run_target.device} by operation"
    words = (
        f"The bars add up to the predicted {milliseconds(made.ms)}. The operations, each measured by itself, take "
        f"{milliseconds(made.isolated_ms)} together; inside a network, where nothing is converted between them, "
        f"{milliseconds(made.corrected_ms)}. The predictor, fitted on whole networks, takes {figure(made.slope)} "
        f"times that and adds {milliseconds(made.intercept_ms)}, what any network costs however small."
    )
    return join(
        [
            title,
            tag(
                "div",
                tag("div", tag("h5", "by cell"), draw_bars(places, by_cell)),
                tag("div", tag("h5", "by operation"), draw_bars(operations, by_kind)),
                class_="twice",
            ),
            legend(places),
            tag("p", words, class_="note"),
        ]
    )


def _off(deviation: float | None) -> str:
    if deviation is None:
        return UNKNOWN
    return f"{percent(abs(deviation))} {'slower' if deviation > 0 else 'faster'}"
