"""The commands that repeat the run."""

from __future__ import annotations

from cars_hw.report.commands import steps
from cars_hw.report.data import ReportData
from cars_hw.report.markup import Html, join, tag


def section(report_data: ReportData) -> Html:
    """Return the commands, step by step, with what they cannot say."""
    words = "In the folder that holds "
    parts = [tag("p", words, tag("code", f"{report_data.name}/"), ", one after the other:")]
    items = []
    for step in steps(report_data):
        commands = tag("pre", tag("code", "\n".join(step.commands)), class_="copied", tabindex="0")
        items.append(
            tag("li", tag("h3", step.title), commands, *(tag("p", note, class_="note") for note in step.notes))
        )
    return join([*parts, tag("ol", *items, class_="steps")])
