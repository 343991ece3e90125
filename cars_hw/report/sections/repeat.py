"""The commands and settings of the run's steps, and the command that repeats the search."""

from __future__ import annotations

import json

from cars_hw.pipeline.run_folder import Step
from cars_hw.report.data import ReportData
from cars_hw.report.markup import Html, join, tag, text


def section(report_data: ReportData) -> Html:
    """Return the steps as they were run, and how to repeat the search."""
    parts = []
    if report_data.steps:
        parts += [
            tag("p", "These steps made the run. The commands are those that were given:"),
            tag("ol", *(_step(step) for step in report_data.steps), class_="steps"),
        ]
    else:
        parts.append(tag("p", "The run keeps no record of its steps."))
    if report_data.search_command is not None:
        parts += [
            tag(
                "p",
                text("To repeat the search with the settings and tables of this run, in the folder that holds "),
                tag("code", f"{report_data.name}/"),
                text(":"),
            ),
            _code(report_data.search_command),
        ]
    return join(parts)


def _step(step: Step) -> Html:
    title = tag("h3", f"{step.name.capitalize()}, {step.time}, cars-hw {step.version}")
    if step.command is None:
        note = "This step was run from Python with these settings:"
        return tag("li", title, tag("p", note, class_="note"), _code(json.dumps(step.settings, indent=1)))
    return tag(
        "li", title, tag("p", text("In "), tag("code", step.folder), text(":"), class_="note"), _code(step.command)
    )


def _code(line: str) -> Html:
    return tag("pre", tag("code", line), class_="copied", tabindex="0")
