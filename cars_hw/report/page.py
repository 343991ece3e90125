"""One HTML page about a run, without anything that it would have to fetch."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cars_hw.files import write_text
from cars_hw.report.plot import Point, scatter
from cars_hw.runs.folder import FrontNetwork, RunFolder, TrainedNetwork
from cars_hw.units import format_latency

STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--paper:#fff;--soft:#d8dee6;--mark:#1664c0;--other:#9aa7b5;
--limit:#c0392b}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9f0;--paper:#151a21;--soft:#39424e;--mark:#6ab0ff;--other:#66727f}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;
padding:0 1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid var(--soft);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--ink)}.grid{stroke:var(--soft);fill:none}
.limit{stroke:var(--limit);stroke-dasharray:5 4;fill:none}circle.trained{fill:var(--mark)}
circle.front{fill:none;stroke:var(--other);stroke-width:2}code{word-break:break-all}
.missed{color:var(--limit);font-weight:bold}
"""


def write_report(run: RunFolder) -> Path:
    """Write the report of ``run`` into its folder and return where it is.

    Raises:
        RunError: the search has not finished, or a file of the run is damaged.
    """
    front, trained, verified = run.front(), run.trained(), run.verified()
    title = f"cars-hw: {run.path.resolve().name}"
    body = [
        f"<h1>{_text(title)}</h1>",
        _answer(verified),
        "<h2>The front</h2>",
        _plot(front, trained),
        _front_table(front, trained),
        _struck(run.struck()),
    ]
    if verified:
        body += ["<h2>Promised and measured</h2>", _verified_table(verified), _int8(verified)]
    body += ["<h2>How the search went</h2>", _history_table(run.history())]
    body += ["<h2>Conditions</h2>", _conditions(run), "<h2>Genotypes</h2>", _genotypes(front)]
    write_text(
        run.report,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n",
    )
    return run.report


def _answer(verified: Sequence[dict[str, Any]]) -> str:
    kept = [row for row in verified if row["within_budget"] is not False and row["accuracy"] is not None]
    if not kept:
        return "<p>No exported model has been measured yet; run <code>cars-hw verify</code>.</p>"
    best = max(kept, key=lambda row: row["accuracy"])
    asked = f", asked for {format_latency(best['asked_ms'])}" if best["asked_ms"] is not None else ""
    return (
        f"<p><strong>{_text(best['name'])}</strong> is the most accurate model within the budget: "
        f"{100 * best['accuracy']:.1f}% on the test images, {format_latency(best['measured_ms'])} measured on "
        f"{_text(best['device'])}{asked}.</p>"
    )


def _plot(front: Sequence[FrontNetwork], trained: Sequence[TrainedNetwork]) -> str:
    if not front:
        return "<p>The front is empty.</p>"
    accuracies = {network.name: network.accuracy for network in trained}
    points = []
    for network in front:
        x = network.promises[0].predicted_ms if network.promises else network.multiply_adds / 1e6
        points.append(Point(x, 100 * network.accuracy, f"{network.name}: shared weights", "front"))
        if network.name in accuracies:
            points.append(Point(x, 100 * accuracies[network.name], f"{network.name}: trained", "trained"))
    promise = front[0].promises[0] if front[0].promises else None
    x_title = f"predicted latency on {promise.device}, ms" if promise else "multiply-adds, millions"
    legend = "<p>Rings: validation accuracy under shared weights. Discs: test accuracy of trained networks.</p>"
    return scatter(points, x_title, "accuracy, %", promise.asked_ms if promise else None) + legend


def _front_table(front: Sequence[FrontNetwork], trained: Sequence[TrainedNetwork]) -> str:
    accuracies = {network.name: network.accuracy for network in trained}
    devices = [promise.device for promise in front[0].promises] if front else []
    columns = ["network", "shared accuracy", "trained accuracy", "parameters", "multiply-adds"]
    for device in devices:
        columns += [f"predicted on {device}", "upper bound", "measured"]
    rows = []
    for network in front:
        row = [
            network.name,
            f"{100 * network.accuracy:.1f}%",
            f"{100 * accuracies[network.name]:.1f}%" if network.name in accuracies else "not trained",
            f"{network.parameters:,}",
            f"{network.multiply_adds:,}",
        ]
        for promise in network.promises:
            measured = promise.measured_ms
            row += [format_latency(promise.predicted_ms), format_latency(promise.bound_ms)]
            row.append(format_latency(measured) if measured is not None else "not measured")
        rows.append(row)
    return _table(columns, rows)


def _struck(struck: Sequence[FrontNetwork]) -> str:
    if not struck:
        return ""
    return (
        f"<p>{len(struck)} more networks were predicted to keep to the budget, exceeded it when measured, "
        "and were replaced by the next best.</p>"
    )


def _verified_table(verified: Sequence[dict[str, Any]]) -> str:
    rows = []
    for row in verified:
        known = {name: row[name] for name in ("predicted_ms", "bound_ms", "asked_ms")}
        latencies = [format_latency(value) if value is not None else "not known" for value in known.values()]
        accuracy = f"{100 * row['accuracy']:.1f}%" if row["accuracy"] is not None else "not known"
        deviation = f"{100 * row['deviation']:+.1f}%" if row["deviation"] is not None else "not known"
        measured = format_latency(row["measured_ms"]) + (" (over)" if row["within_budget"] is False else "")
        rows.append(
            [
                row["name"],
                row["device"],
                row.get("precision", "fp32"),
                accuracy,
                f"{row['parameters']:,}",
                *latencies,
                measured,
                deviation,
            ]
        )
    columns = [
        "network",
        "device",
        "precision",
        "accuracy",
        "parameters",
        "predicted",
        "upper bound",
        "asked",
        "measured",
    ]
    return _table([*columns, "deviation"], rows)


def _int8(verified: Sequence[dict[str, Any]]) -> str:
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
            points = f", {100 * (row['accuracy'] - whole['accuracy']):+.1f} points of accuracy"
        lines.append(f"{row['name']} on {row['device']}: {speed} in float{points}.")
    if not lines:
        return ""
    return "<h3>What int8 does here</h3><ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _history_table(history: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            str(generation["generation"]),
            str(generation["candidates"]),
            f"{generation['loss']:.3f}",
            f"{100 * generation['best_accuracy']:.1f}%",
            f"{generation['hypervolume']:.4f}",
        ]
        for generation in history
    ]
    return _table(["generation", "evaluated", "loss", "best accuracy", "hypervolume"], rows)


def _conditions(run: RunFolder) -> str:
    configuration = run.configuration
    lines = [
        f"data: {configuration['data']}",
        f"network: {run.network.describe()}",
        f"seed: {configuration['seed']}",
        f"protection: {configuration['evolution']['protection']}",
    ]
    lines += [f"table: {budget['device']}, profiled {budget['profiled']}" for budget in configuration["budgets"]]
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _genotypes(front: Sequence[FrontNetwork]) -> str:
    return "".join(
        f"<p><strong>{_text(network.name)}</strong> <code>{_text(network.genotype.to_darts())}</code></p>"
        for network in front
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(text: str) -> str:
    return html.escape(text)
