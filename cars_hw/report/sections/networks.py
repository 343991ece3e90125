"""The networks one by one: figures, files, the two cells or the blocks, and the parts of the predicted latency."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from cars_hw.report.bars import by_operation, by_place, draw_bars, families_in
from cars_hw.report.blocks import draw_blocks
from cars_hw.report.cells import draw_cell
from cars_hw.report.data import Candidate, ReportData, RunTarget
from cars_hw.report.sections.front import line_of


def view(report: ReportData) -> dict[str, Any]:
    """Return every network; a script shows one of them at a time, and without a script all are visible."""
    return {"networks": [_network(report, candidate) for candidate in report.candidates]}


def _network(report: ReportData, candidate: Candidate) -> dict[str, Any]:
    return {
        "candidate": candidate,
        "line": line_of(report, candidate, report.costs[0]),
        "cells": _drawings(candidate),
        "latencies": [
            _latency(candidate, target, estimate.usual_ms)
            for target, estimate in zip(report.targets, candidate.latency_estimates, strict=True)
        ],
    }


def _drawings(candidate: Candidate) -> list[tuple[str, Markup]]:
    """Return the drawings of the two cells, or that of all blocks, each with its title."""
    genotype = candidate.genotype
    if candidate.spec.blocks is not None:
        return [("Blocks", draw_blocks(candidate.spec, genotype, f"Blocks of {candidate.name}"))]
    return [
        (title, draw_cell(genotype.cell(reduction), f"{title} of {candidate.name}", genotype.joined(reduction)))
        for title, reduction in (("Normal cell", False), ("Reduction cell", True))
    ]


def _latency(candidate: Candidate, run_target: RunTarget, usual_ms: float | None) -> dict[str, Any]:
    if run_target.target is None:
        return {"device": run_target.device, "problem": run_target.problem}
    predictor = run_target.target.predictor_of(candidate.spec)
    parts = predictor.parts(candidate.genotype)
    made = predictor.composition(candidate.genotype)
    intercept_ms = made.factor * made.intercept_ms
    places = by_place(parts, predictor.spec, intercept_ms)
    title = f"Latency of {candidate.name} on {run_target.device}"
    return {
        "device": run_target.device,
        "problem": "",
        "made": made,
        "state": run_target.target.state,
        "usual_ms": usual_ms,
        "by_cell": draw_bars(places, f"{title} by {candidate.spec.parts.removesuffix('s')}"),
        "by_operation": draw_bars(by_operation(parts, intercept_ms), f"{title} by operation"),
        "families": families_in(places),
    }
