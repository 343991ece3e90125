"""The steps of the run as they were given, and the command that repeats the search."""

from __future__ import annotations

import json
from typing import Any

from cars_hw.report.data import ReportData


def view(report: ReportData) -> dict[str, Any]:
    """Return the steps, each with its command or, for a step from Python, with its settings."""
    return {
        "steps": [
            {"step": step, "code": step.command or json.dumps(step.settings, indent=1)} for step in report.steps
        ]
    }
