"""One HTML page about a run; it needs no other file and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from cars_hw.config.files import write_text
from cars_hw.formatting import milliseconds
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.data import ReportData, gather
from cars_hw.report.render import render
from cars_hw.report.sections import (
    answer,
    baselines,
    classes,
    comparison,
    conditions,
    evidence,
    final,
    front,
    measured,
    networks,
    population,
    ranking,
    repeat,
)


class Section(NamedTuple):
    """A section of the page: its id and the name of its template, its title, and the values of the template."""

    name: str
    title: str
    view: Callable[[ReportData], dict[str, Any]]


SECTIONS: Final = (
    Section("answer", "Result", answer.view),
    Section("front", "Pareto front", front.view),
    Section("networks", "Networks", networks.view),
    Section("classes", "Accuracy by class", classes.view),
    Section("measured", "Predicted and measured latency", measured.view),
    Section("evidence", "What this run shows", evidence.view),
    Section("population", "Progress of the search", population.view),
    Section("final", "Final stage", final.view),
    Section("baselines", "Comparison with random search", baselines.view),
    Section("comparison", "Comparison with published networks", comparison.view),
    Section("ranking", "Rank correlation", ranking.view),
    Section("conditions", "Conditions", conditions.view),
    Section("repeat", "Commands of the run", repeat.view),
)


def section(name: str, report: ReportData) -> Markup:
    """Return the content of section ``name``."""
    (found,) = (one for one in SECTIONS if one.name == name)
    return render(f"{name}.html", report=report, **found.view(report))


def write_report(run: RunFolder) -> Path:
    """Write the report of ``run`` into its folder and return its path.

    Raises:
        RunError: the search has not finished, or a file of the run is damaged.
        InputError: the card of an exported model is damaged.
    """
    write_text(run.report, page(gather(run)))
    return run.report


def page(report: ReportData) -> str:
    """Return the page: HTML that contains its style sheet and its script."""
    contents = {one.name: section(one.name, report) for one in SECTIONS}
    return str(render("report.html", title=_title(report), report=report, sections=SECTIONS, contents=contents))


def _title(report: ReportData) -> str:
    """Return the data, the devices and the budgets of the search."""
    data = Path(report.configuration.data).name
    places = [
        target.device + (f" in {milliseconds(ms)}" if (ms := target.record.limit_ms) else "")
        for target in report.targets
    ]
    return f"{data} on {' and '.join(places)}" if places else f"{data}: {report.costs[0].title}"
