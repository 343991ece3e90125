"""The result: which model for which latency, and where its file is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cars_hw.report.data import ReportData

Row = Mapping[str, Any]


def view(report: ReportData) -> dict[str, Any]:
    """Return the best model within the budget, the choice for every smaller latency, and the next step."""
    best = best_model(report)
    devices = [*(target.device for target in report.targets), *(row["device"] for row in report.verified)]
    by_device = {
        device: choices(row for row in report.verified if row["device"] == device)
        for device in dict.fromkeys(devices)
    }
    usual_ms = None if best is None else best.get("usual_ms")
    return {
        "best": best,
        "usual_ms": usual_ms,
        "usually_over": best is not None and _exceeds(usual_ms, best["limit_ms"]),
        "quality": quality(report),
        "network": best and report.candidate(best["name"]),
        "model": best and report.model(best["name"], best["device"]),
        "choices": {device: rows for device, rows in by_device.items() if rows},
        "missed": any(row["within_budget"] is False for row in report.verified),
        "next_command": f"cars-hw {_next_step(report)} {report.name}",
    }


def quality(report: ReportData) -> list[tuple[str, tuple[str, ...]]]:
    """Return the device of each unreliable table, with the reasons."""
    usable = [target.target for target in report.targets if target.target is not None]
    return [(target.device_name, target.quality_warnings) for target in usable if target.quality_warnings]


def _exceeds(ms: float | None, limit_ms: float | None) -> bool:
    return ms is not None and limit_ms is not None and ms > limit_ms


def best_model(report: ReportData) -> Row | None:
    """Return the row of the most accurate model that exceeded no budget when it was measured.

    Of two equally accurate models it is the faster one. A model that was compared with a budget comes before one
    that was measured on a device without a budget.
    """
    over = {row["name"] for row in report.verified if row["within_budget"] is False}
    kept = [row for row in report.verified if row["accuracy"] is not None and row["name"] not in over]
    kept = [row for row in kept if row["within_budget"]] or kept
    return max(kept, key=lambda row: (row["accuracy"], -row["measured_ms"]), default=None)


def choices(rows: Iterable[Row]) -> list[Row]:
    """Return the ``rows`` that no other row equals or exceeds in both speed and accuracy, the fastest first."""
    chosen: list[Row] = []
    known = [row for row in rows if row["accuracy"] is not None and row["within_budget"] is not False]
    for row in sorted(known, key=lambda row: (row["measured_ms"], -row["accuracy"])):
        if not chosen or row["accuracy"] > chosen[-1]["accuracy"]:
            chosen.append(row)
    return chosen


def _next_step(report: ReportData) -> str:
    if any(candidate.models for candidate in report.candidates):
        return "verify"
    return "export" if any(candidate.trained is not None for candidate in report.candidates) else "train"
