"""The result: which model for which latency, and where its file is."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from typing import Any

from cars_hw.formatting import milliseconds, percent
from cars_hw.pipeline.budget_use import BudgetUse, budget_use, budget_uses
from cars_hw.pipeline.larger_networks import stage_end
from cars_hw.pipeline.records import Verified
from cars_hw.pipeline.standing import decided, standing
from cars_hw.report.accuracies import equals, majority_notes, shown, trained_of
from cars_hw.report.data import ReportData


def view(report: ReportData) -> dict[str, Any]:
    """Return the best model within the budget, the choice for every smaller latency, and the next step."""
    best = best_model(report)
    equal = None if best is None else equals(report, best, [row for row in kept(report) if row is not best])
    devices = [*(target.device for target in report.targets), *(row.device for row in report.verified)]
    by_device = {
        device: choices(row for row in shown(report) if row.device == device) for device in dict.fromkeys(devices)
    }
    usual_ms = None if best is None else best.usual_ms
    compared = standing(decided(trained_of(report)))
    return {
        "best": best,
        "equal": equal,
        "standing": compared.sentence if compared is not None else "",
        "majority": majority_notes(report),
        "left_out": sorted({row.network for row in report.verified} - {row.network for row in shown(report)}),
        "usual_ms": usual_ms,
        "usually_over": best is not None and _exceeds(usual_ms, best.limit_ms),
        "quality": quality(report),
        "network": best and report.candidate(best.name),
        "model": best and report.model(best.name, best.device),
        "budget_uses": budget_uses_of(report, best),
        "slower": "" if best is None else slower(report, best),
        "choices": {device: rows for device, rows in by_device.items() if rows},
        "missed": any(row.within_budget is False for row in report.verified),
        "next_command": f"cars-hw {_next_step(report)} {shlex.quote(report.name)}",
    }


def budget_uses_of(report: ReportData, best: Verified | None) -> list[BudgetUse]:
    """Return the use of the budget that ``best`` was compared with; before models are measured, of every budget."""
    usable = {index: one.target for index, one in enumerate(report.targets) if one.target is not None}
    space = report.configuration.architectures
    end = stage_end(report.configuration, report.final_stage, [one.architecture for one in report.rejected])
    if best is None:
        front = [one for one in report.candidates if one.shared_accuracy is not None]
        if len(usable) < len(report.targets) or not front or report.verified:
            return []
        chosen = max(front, key=lambda one: one.shared_accuracy or 0.0)
        return budget_uses(chosen, list(usable.values()), space, end)
    network = report.candidate(best.name)
    if network is None or best.limit_ms is None:
        return []
    conditions = (best.device, best.precision, best.threads, best.limit_ms)
    return [
        budget_use(one, best.name, network.architecture, best.measured_ms, index=index, space=space, end=end)
        for index, one in usable.items()
        if (one.device_name, one.precision, one.threads, one.limit_ms) == conditions
    ][:1]


def slower(report: ReportData, best: Verified) -> str:
    """Return a sentence on the models that use more of the budget than ``best``; empty without any."""
    rows = [row for row in kept(report) if row.device == best.device and row.measured_ms > best.measured_ms]
    if best.limit_ms is None or not rows:
        return ""
    most = max(rows, key=lambda row: (row.accuracy or 0.0, -row.measured_ms))
    those = "1 trained model uses" if len(rows) == 1 else f"{len(rows)} trained models use"
    which = "it" if len(rows) == 1 else f"the most accurate of them, {most.name},"
    return (
        f"{those} more of the {milliseconds(best.limit_ms)} on {best.device}: in {milliseconds(most.measured_ms)}, "
        f"{which} has {percent(most.accuracy)} of the test images right, and {best.name} {percent(best.accuracy)} "
        f"in {milliseconds(best.measured_ms)}."
    )


def quality(report: ReportData) -> list[tuple[str, tuple[str, ...]]]:
    """Return the device of each unreliable table, with the reasons."""
    usable = [target.target for target in report.targets if target.target is not None]
    return [(target.device_name, target.quality_warnings) for target in usable if target.quality_warnings]


def _exceeds(ms: float | None, limit_ms: float | None) -> bool:
    return ms is not None and limit_ms is not None and ms > limit_ms


def best_model(report: ReportData) -> Verified | None:
    """Return the row of the most accurate model that exceeded no budget when it was measured.

    Of two equally accurate models it is the faster one. A model that was compared with a budget comes before one
    that was measured on a device without a budget.
    """
    return max(kept(report), key=lambda row: (row.accuracy or 0.0, -row.measured_ms), default=None)


def kept(report: ReportData) -> list[Verified]:
    """Return the rows that :func:`best_model` chooses from, those of one training of each network."""
    over = {row.name for row in report.verified if row.within_budget is False}
    rows = [row for row in shown(report) if row.accuracy is not None and row.name not in over]
    return [row for row in rows if row.within_budget] or rows


def choices(rows: Iterable[Verified]) -> list[Verified]:
    """Return the ``rows`` that no other row equals or exceeds in both speed and accuracy, the fastest first."""
    known = [
        (row.measured_ms, -row.accuracy, row)
        for row in rows
        if row.accuracy is not None and row.within_budget is not False
    ]
    chosen: list[Verified] = []
    least_error = math.inf
    for _, error, row in sorted(known, key=lambda one: one[:2]):
        if error < least_error:
            least_error = error
            chosen.append(row)
    return chosen


def _next_step(report: ReportData) -> str:
    if any(candidate.models for candidate in report.candidates):
        return "verify"
    return "export" if any(candidate.trained is not None for candidate in report.candidates) else "train"
