"""The final stage of the search: which networks were trained in it, why, and which went on."""

from __future__ import annotations

from typing import Any, Final

from cars_hw.config.evaluated import training_words
from cars_hw.config.evaluation import ClassCounts
from cars_hw.evolution.nominees import Nominee, Reason, losses_decide
from cars_hw.formatting import accuracy_text, figure, percent
from cars_hw.latency.validation import kendall_tau
from cars_hw.pipeline.records import FinalStage
from cars_hw.report.data import ReportData

REASONS: Final[dict[Reason, str]] = {
    "score": "among the best of the search",
    "largest": "among the largest",
    "grown": "a finalist at a larger size",
    "near-limit": "the only one that uses most of a limit",
    "cheapest": "the cheapest of all",
}

LEAST: Final = 4
"""Kendall's tau of fewer networks says nothing."""


def view(report: ReportData) -> dict[str, Any]:
    """Return the figures of the stage and a row for each of its networks; nothing of a search without one."""
    stage, evaluated = report.final_stage, training_words(0, report.classifier)
    if stage is None:
        return {"stage": None, "evaluated": evaluated}
    first = report.minimised[0]
    names = {one.architecture.key(): one.name for one in report.candidates}
    rejected = {one.architecture.key() for one in report.rejected}
    epochs = [f"after {number} {'epoch' if number == 1 else 'epochs'}" for number in stage.rungs.epochs]
    columns = ["network", "size", f"{first.title}, {first.unit}", "stretch", "nominated as", report.shared_name]
    return {
        "stage": stage,
        "evaluated": evaluated,
        "trains": report.configuration.training.trains,
        "columns": [*columns, *epochs, "outcome"],
        "rows": [(*_cells(report, stage, one), _outcome(stage, one, names, rejected)) for one in stage.networks],
        "share": percent(stage.share, 0),
        "images": stage.networks[0].results[0].total,
        "grown": sum(one.reason == "grown" for one in stage.networks),
        "cost": first.title,
        "name": report.accuracy_name,
        "decided": "loss" if losses_decide(stage.networks, report.objective) else report.accuracy_name,
        "tau": _tau(report, stage),
    }


def _cells(report: ReportData, stage: FinalStage, one: Nominee) -> list[str]:
    results: list[ClassCounts | None] = list(one.results)
    results += [None] * (len(stage.rungs.epochs) - len(results))
    return [
        one.name,
        report.size_of(one.spec),
        figure(one.costs[0]),
        str(one.stretch),
        REASONS[one.reason],
        accuracy_text(one.shared, None),
        *(
            accuracy_text(
                None if counts is None else counts.score(report.objective),
                None if counts is None else counts.interval(report.objective),
            )
            for counts in results
        ),
    ]


def _outcome(stage: FinalStage, one: Nominee, names: dict[Any, str], rejected: set[Any]) -> str:
    key = one.architecture.key()
    if key in rejected:
        return "over a budget when it was measured"
    if len(one.results) < len(stage.rungs.epochs) and key not in names:
        loss = one.results[-1].loss
        with_loss = "" if loss is None else f", with a loss of {figure(loss)}"
        return f"left out after rung {len(one.results)}{with_loss}"
    if key in names:
        return f"in the front: {names[key]}"
    return "another is better and costs no more"


def _tau(report: ReportData, stage: FinalStage) -> str | None:
    """Return Kendall's tau between the order under shared weights and that after the first rung, as text.

    None if there are too few networks, or no order.
    """
    pairs = [
        (shared, one.results[0].score(report.objective))
        for one in stage.networks
        if (shared := one.shared_figure) is not None
    ]
    if len(pairs) < LEAST or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return f"{kendall_tau([shared for shared, _ in pairs], [trained for _, trained in pairs]):.2f}"
