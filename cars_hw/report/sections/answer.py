"""The answer: which model for which latency, and where its file is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cars_hw.formatting import UNKNOWN, milliseconds, percent, size
from cars_hw.report.data import ModelFile, ReportData
from cars_hw.report.markup import Html, join, table, tag

Row = Mapping[str, Any]


def section(report_data: ReportData) -> Html:
    """Return the best model within the budget, and the choice for every smaller latency."""
    best = best_model(report_data)
    if best is None:
        return _nothing_yet(report_data)
    return join([_best(report_data, best), _choices(report_data)])


def best_model(report_data: ReportData) -> Row | None:
    """Return the row of the most accurate model that was measured to exceed no budget, the faster one of two.

    One that was held against a budget comes before one that was measured on another device.
    """
    over = {row["name"] for row in report_data.verified if row["within_budget"] is False}
    kept = [row for row in report_data.verified if row["accuracy"] is not None and row["name"] not in over]
    kept = [row for row in kept if row["within_budget"]] or kept
    return max(kept, key=lambda row: (row["accuracy"], -row["measured_ms"]), default=None)


def choices(rows: Iterable[Row]) -> list[Row]:
    """Return those of ``rows`` that no other is as fast and as accurate as, the fastest first."""
    chosen: list[Row] = []
    known = [row for row in rows if row["accuracy"] is not None and row["within_budget"] is not False]
    for row in sorted(known, key=lambda row: (row["measured_ms"], -row["accuracy"])):
        if not chosen or row["accuracy"] > chosen[-1]["accuracy"]:
            chosen.append(row)
    return chosen


def _best(report_data: ReportData, row: Row) -> Html:
    model = report_data.model(row["name"], row["device"])
    candidate, asked = report_data.candidate(row["name"]), row["limit_ms"]
    budget = f"budget {milliseconds(asked)}: kept" if asked is not None else "no budget was asked for"
    statement = tag(
        "p",
        tag("strong", row["name"], data_best=candidate.name if candidate is not None else None),
        " is the most accurate model within the budget: " if asked is not None else " is the most accurate model: ",
        tag("strong", percent(row["accuracy"])),
        " of the test images in ",
        tag("strong", milliseconds(row["measured_ms"])),
        f" on {row['device']}.",
        class_="statement",
    )
    tiles = [
        tile("accuracy, test images", percent(row["accuracy"])),
        tile(f"measured on {row['device']}", milliseconds(row["measured_ms"]), budget),
        tile("parameters", f"{row['parameters']:,}"),
    ]
    if model is not None:
        tiles.append(tile("file", file_link(model), f"in models/, {size(model.size)}"))
    return join([statement, tag("dl", *tiles, class_="tiles")])


def file_link(model: ModelFile) -> Html:
    """Return the name of the file of ``model``, which leads to it as long as the page lies in its run's folder."""
    return tag("a", model.file, href=model.path, download=True)


def tile(name: str, value: str, note: str = "") -> Html:
    """Return a figure with its name, and a note below it."""
    below = tag("dd", note, class_="note") if note else Html("")
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), below)


def _choices(report_data: ReportData) -> Html:
    devices = dict.fromkeys(
        [*(target.device for target in report_data.targets), *(row["device"] for row in report_data.verified)]
    )
    parts = [tag("h3", "Which model for which latency")]
    for device in devices:
        rows = choices(row for row in report_data.verified if row["device"] == device)
        if not rows:
            continue
        lines = []
        for row in rows:
            model = report_data.model(row["name"], device)
            file = file_link(model) if model is not None else "not in the run"
            lines.append(
                [
                    f"from {milliseconds(row['measured_ms'])}",
                    percent(row["accuracy"]),
                    file,
                    size(model.size) if model is not None else UNKNOWN,
                    row.get("precision", "fp32"),
                    _linked(report_data, row["name"]),
                ]
            )
        columns = (f"latency, {device}", "accuracy", "file", "size", "precision", "network")
        parts.append(table(columns, lines, f"Which model for which latency on {device}"))
    parts.append(
        tag(
            "p",
            "Latencies were measured with the exported files, accuracies on the test images. Models that another "
            "one beats in both are left out here.",
            class_="note",
        )
    )
    return join(parts)


def _linked(report_data: ReportData, name: str) -> Html:
    candidate = report_data.candidate(name)
    return tag("a", candidate.name, href=f"#{candidate.name}") if candidate is not None else tag("span", name)


def _nothing_yet(report_data: ReportData) -> Html:
    if any(row["within_budget"] is False for row in report_data.verified):
        words = "Every exported model was measured to exceed the budget; search again with a smaller "
        return tag("p", words, tag("code", "--latency"), ".", class_="statement")
    done = any(candidate.models for candidate in report_data.candidates)
    trained = any(candidate.trained is not None for candidate in report_data.candidates)
    following = "verify" if done else "export" if trained else "train"
    return tag(
        "p",
        "No exported model has been measured yet. The next step: ",
        tag("code", f"cars-hw {following} {report_data.name}"),
        class_="statement",
    )
