"""The run's networks beside published ones and random ones that were trained on the same images."""

from __future__ import annotations

from typing import Any

from cars_hw.report.data import ReportData
from cars_hw.report.experiments import BUDGETS_CAPTION, front_figure
from cars_hw.studies import budget_choice
from cars_hw.studies.front_membership import rows_of


def view(report: ReportData) -> dict[str, Any]:
    """Return the comparison as a plot, its tables, and its remarks; nothing of a run without one."""
    found = report.comparison
    if found is None:
        return {"found": None}
    return {
        "found": found,
        "budgets": (*budget_choice.rows_of(found.at_budgets), BUDGETS_CAPTION) if found.at_budgets else None,
        "figure": front_figure(found),
        "networks": (*rows_of(found), "The networks of the comparison"),
    }
