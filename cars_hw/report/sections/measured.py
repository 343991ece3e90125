"""What was predicted and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cars_hw.formatting import UNKNOWN, milliseconds, percent, signed_percent
from cars_hw.report.data import ReportData
from cars_hw.report.markup import Html, join, table, tag
from cars_hw.report.plot import SQUARE, Point, scatter

Row = Mapping[str, Any]


def section(report_data: ReportData) -> Html:
    """Return predicted against measured for every device with a table, and all models that were measured."""
    plots = [_plot(report_data, index) for index, _ in enumerate(report_data.targets)]
    figures = _figures(report_data.verified) if report_data.verified else Html("")
    if not any(plots) and not figures:
        return tag("p", "Nothing has been measured yet.")
    return join([*plots, figures, int8(report_data.verified)])


def _plot(report_data: ReportData, index: int) -> Html:
    device = report_data.targets[index].device
    points, errors = [], []
    for candidate in report_data.candidates:
        estimate = candidate.latency_estimates[index]
        if estimate.measured_ms is not None:
            points.append(
                _point(candidate.name, estimate.predicted_ms, estimate.measured_ms, "ring", "when the search ended")
            )
            errors.append(estimate.measured_ms / estimate.predicted_ms - 1)
    for row in report_data.verified:
        if row["device"] == device and row["predicted_ms"] is not None:
            points.append(
                _point(row["name"], row["predicted_ms"], row["measured_ms"], "disc", "the exported model")
            )
            errors.append(row["measured_ms"] / row["predicted_ms"] - 1)
    if not points:
        return Html("")
    titles = (f"predicted on {device}, ms", "measured, ms")
    drawn = scatter(points, *titles, equal=True, frame=SQUARE)
    summary = (
        f"On {device}, {len(points)} measurements are {signed_percent(min(errors))} to "
        f"{signed_percent(max(errors))} off their predictions, {percent(sum(map(abs, errors)) / len(errors))} on "
        "average. On the line both are equal; above it the device was slower. Rings: measured when the search "
        "ended. Discs: exported models, measured again."
    )
    return tag("figure", drawn, tag("figcaption", summary), class_="beside")


def _point(name: str, predicted_ms: float, measured_ms: float, kind: str, when: str) -> Point:
    words = f"{name}: predicted {milliseconds(predicted_ms)}, measured {milliseconds(measured_ms)}, {when}"
    return Point(predicted_ms, measured_ms, words, kind)


def _figures(verified: Sequence[Row]) -> Html:
    rows = []
    devices = list(dict.fromkeys(row["device"] for row in verified))
    for row in sorted(verified, key=lambda row: (devices.index(row["device"]), row["name"])):
        over = row["within_budget"] is False
        budget = (
            UNKNOWN
            if row["limit_ms"] is None
            else f"{milliseconds(row['limit_ms'])} {'missed' if over else 'kept'}"
        )
        rows.append(
            [
                row["name"],
                row["device"],
                row.get("precision", "fp32"),
                percent(row["accuracy"]),
                *map(milliseconds, (row["predicted_ms"], row["bound_ms"], row["measured_ms"])),
                signed_percent(row["deviation"]),
                tag("strong", budget, class_="missed") if over else budget,
            ]
        )
    columns = (
        "model",
        "device",
        "precision",
        "accuracy",
        "predicted",
        "upper bound",
        "measured",
        "deviation",
        "budget",
    )
    drifts = {row["device"]: row["drift"] for row in verified if row.get("drift") is not None}
    notes = [
        tag(
            "p",
            f"When the exported models were measured, {device} ran {percent(abs(drift))} "
            f"{'slower' if drift > 0 else 'faster'} than when its table was made: its reference network says so.",
            class_="note",
        )
        for device, drift in drifts.items()
    ]
    return join([tag("h3", "Every exported model"), table(columns, rows, "Every exported model"), *notes])


def int8(verified: Sequence[Row]) -> Html:
    """Say what int8 did to latency and accuracy, model by model."""
    floats = {(row["device"], row["name"]): row for row in verified if row.get("precision") == "fp32"}
    lines = []
    for row in verified:
        whole = floats.get((row["device"], row["name"].removesuffix(".int8")))
        if row.get("precision") != "int8" or whole is None:
            continue
        ratio = row["measured_ms"] / whole["measured_ms"]
        speed = f"{ratio:.2f} times slower than" if ratio > 1 else f"{1 / ratio:.2f} times faster than"
        points = ""
        if None not in (row["accuracy"], whole["accuracy"]):
            gained = f"{100 * (row['accuracy'] - whole['accuracy']):+.1f}".replace("-", "\N{MINUS SIGN}")
            points = f", {gained} points of accuracy"
        lines.append(tag("li", f"{row['name']} on {row['device']}: {speed} in float{points}."))
    if not lines:
        return Html("")
    return join([tag("h3", "What int8 does here"), tag("ul", *lines, class_="columns")])
