"""One HTML page about a run. It contains everything that it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from cars_hw.config.files import write_text
from cars_hw.formatting import milliseconds
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.data import ReportData, gather
from cars_hw.report.document import document
from cars_hw.report.markup import Html, join, tag, text
from cars_hw.report.sections import (
    answer,
    baselines,
    conditions,
    front,
    measured,
    networks,
    population,
    ranking,
    repeat,
)


class Section(NamedTuple):
    """A section of the page: its address in it, its title, and what draws it."""

    name: str
    title: str
    draw: Callable[[ReportData], Html]


SECTIONS: Final = (
    Section("answer", "The answer", answer.section),
    Section("front", "The front", front.section),
    Section("networks", "The networks", networks.section),
    Section("measured", "Predicted and measured", measured.section),
    Section("population", "How the search went", population.section),
    Section("baselines", "Is it better than chance?", baselines.section),
    Section("ranking", "Is the SuperNet right?", ranking.section),
    Section("conditions", "Conditions", conditions.section),
    Section("repeat", "Do it again", repeat.section),
)


def write_report(run: RunFolder) -> Path:
    """Write the report of ``run`` into its folder and return its path.

    Raises:
        RunError: the search has not finished, or a file of the run is damaged.
        InputError: the card of an exported model is damaged.
    """
    write_text(run.report, page(gather(run)))
    return run.report


def page(report_data: ReportData) -> str:
    """Return the page: HTML with its style and its script in it."""
    links = [tag("a", section.title, href=f"#{section.name}") for section in SECTIONS]
    top = tag(
        "header",
        tag("h1", _title(report_data)),
        tag("p", _subtitle(report_data)),
        tag("nav", *links, aria_label="Sections"),
    )
    sections = [
        tag(
            "section",
            tag("h2", section.title, id=f"{section.name}-title"),
            section.draw(report_data),
            id=section.name,
        )
        for section in SECTIONS
    ]
    skip = tag("a", "To the answer", href="#answer", class_="skip")
    return document(_title(report_data), [skip, top, tag("main", *sections)], script="script.js")


def _title(report_data: ReportData) -> str:
    """Return what the run was to find: the data, the devices and the budgets."""
    data = Path(str(report_data.configuration["data"])).name
    places = [
        target.device + (f" in {milliseconds(ms)}" if (ms := target.record["limit_ms"]) else "")
        for target in report_data.targets
    ]
    return f"{data} on {' and '.join(places)}" if places else f"{data}: {report_data.costs[0].title}"


def _subtitle(report_data: ReportData) -> Html:
    words = [tag("code", f"{report_data.name}/"), text(f": networks of {report_data.spec.describe()}")]
    created = str(report_data.about.get("created", ""))[:10]
    return join([*words, f"; searched on {created}" if created else ""])
