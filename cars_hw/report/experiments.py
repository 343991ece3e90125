"""The HTML pages of ``cars-hw experiment``, in the style of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup

from cars_hw.formatting import milliseconds, percent
from cars_hw.report.charts import Box, place_labels
from cars_hw.report.curves import Curve, draw_curves, names_of
from cars_hw.report.plot import NARROW, WIDE, Axes, Frame, drawing
from cars_hw.report.render import SPOTS, render
from cars_hw.report.svg import tag
from cars_hw.studies import budget_choice
from cars_hw.studies.budget_choice import ORIGINS
from cars_hw.studies.front_membership import FrontComparison, rows_of

if TYPE_CHECKING:
    from cars_hw.studies.small_model_trap import Trap

WIDE_RANGE: Final = 4.0
"""The scale of an axis is logarithmic if the largest value is at least this many times the smallest."""

BUDGETS_CAPTION: Final = "Test accuracy of the networks that are the most accurate on held-out images"

Table = tuple[Sequence[str], Sequence[Sequence[str]], str]
"""Columns, rows, and a caption."""


class Dot(NamedTuple):
    """A point at ``x``, ``y`` of a ``kind``, with a text that shows on hover; an empty ``name`` is not drawn."""

    name: str
    x: float
    y: float
    kind: str
    text: str
    on_front: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot, drawn for a desktop and for a phone, with a caption and the names of its ``lines`` or ``spots``."""

    wide: Markup
    narrow: Markup
    caption: str
    lines: Sequence[str] = ()
    spots: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A section of an experiment's page."""

    title: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    table: Table | None = None


def front_page(comparison: FrontComparison, subtitle: str) -> str:
    """Return the page of ``comparison``: who is on the front of accuracy and latency."""
    table = (*rows_of(comparison), "The networks")
    sections = [
        Section("Result", comparison.remarks),
        Section("Accuracy against measured latency (Figure 1)", figures=[front_figure(comparison)], table=table),
    ]
    if comparison.at_budgets:
        chosen = (*budget_choice.rows_of(comparison.at_budgets), BUDGETS_CAPTION)
        sections.insert(1, Section("The most accurate network within each budget", table=chosen))
    return _page(f"The front on {comparison.device}", subtitle, sections)


def front_figure(comparison: FrontComparison) -> Figure:
    """Return accuracy against latency of all networks of ``comparison``; a line joins those on the front."""
    notable = {one.name for one in comparison.notable}
    dots = [
        Dot(
            one.name.removeprefix("net-") if one.name in notable else "",
            one.latency_ms,
            100 * one.accuracy,
            one.origin,
            f"{one.name}: {percent(one.accuracy)}, {milliseconds(one.latency_ms)}, {one.standing}",
            on_front=not one.dominated_by,
        )
        for one in comparison.contestants
    ]
    titles = (f"latency on {comparison.device}, ms", "test accuracy, %")
    return dots_figure(dots, *titles, "The line joins the networks that no other network dominates.")


def trap_page(trap: Trap, subtitle: str) -> str:
    """Return the page of ``trap``: the sizes of populations with and without protection, and learning curves."""
    from cars_hw.studies.small_model_trap import NAMES, rows_of

    unit = f"{trap.cost}, {trap.unit}"
    seeds = "Each line is one seed. " if len({one.seed for one in trap.searches}) > 1 else ""

    def sizes(field: str, title: str, caption: str) -> Figure:
        lines = [
            Curve(NAMES[one.protection], [(size.generation, getattr(size, field)) for size in one.sizes])
            for one in trap.searches
        ]
        return curves_figure(lines, "generation", f"{title}: {unit}", f"{seeds}{caption}", from_zero=True)

    learning = [
        Curve(
            f"{curve.name}: {curve.parameters:,} parameters",
            [(epoch, 100 * value) for epoch, value in enumerate(curve.accuracies, start=1)],
        )
        for curve in trap.curves
    ]
    moved = [
        sizes("spread", "range", "The range of the population: largest minus smallest network."),
        sizes("high", "maximum", "The largest network of the population."),
        sizes("deviation", "standard deviation", "The standard deviation depends on every network."),
    ]
    caption = "Each network was trained from scratch by the same recipe."
    sections = [
        Section("Result", trap.verdict),
        Section("Sizes of the population (Figure 3)", figures=moved, table=(*rows_of(trap), "The searches")),
        Section(
            "Learning curves of three sizes (Figure 2)",
            figures=[curves_figure(learning, "epoch", "test accuracy, %", caption)],
        ),
    ]
    return _page("The small-model trap", subtitle, sections)


def curves_figure(
    curves: Sequence[Curve], x_title: str, y_title: str, caption: str, *, from_zero: bool = False
) -> Figure:
    """Return ``curves`` as a figure with a legend; see :func:`~cars_hw.report.curves.draw_curves`."""
    wide, narrow = _both(lambda frame: draw_curves(curves, x_title, y_title, frame, from_zero=from_zero))
    return Figure(wide, narrow, caption, lines=names_of(curves))


def dots_figure(dots: Sequence[Dot], x_title: str, y_title: str, caption: str) -> Figure:
    """Return ``dots`` with their names as a figure; a line joins those on the front."""
    present = {dot.kind for dot in dots}
    kinds = [kind for kind in ORIGINS if kind in present]
    wide, narrow = _both(lambda frame: _dots(dots, kinds, x_title, y_title, frame))
    return Figure(wide, narrow, caption, spots=[ORIGINS[kind] for kind in kinds])


def _page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    return str(
        render(
            "experiment.html",
            title=title,
            subtitle=subtitle,
            sections=sections,
        )
    )


def _both(draw: Callable[[Frame], Markup]) -> tuple[Markup, Markup]:
    return draw(WIDE), draw(NARROW)


def _dots(dots: Sequence[Dot], kinds: Sequence[str], x_title: str, y_title: str, frame: Frame) -> Markup:
    xs = [dot.x for dot in dots]
    axes = Axes(frame, xs, [dot.y for dot in dots], logarithmic=max(xs) >= WIDE_RANGE * min(xs))
    places = [(axes.across(dot.x), axes.down(dot.y)) for dot in dots]
    named = [place for dot, place in zip(dots, places, strict=True) if dot.name]
    texts = [dot.name for dot in dots if dot.name]
    labels = place_labels(named, texts, [Box(x, y, 7, 7) for x, y in places], frame)
    parts = axes.draw(x_title, y_title)
    front = sorted(place for dot, place in zip(dots, places, strict=True) if dot.on_front)
    if front:
        steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in front[1:])
        parts.append(tag("path", class_="stairs", d=f"M{front[0][0]:.1f} {front[0][1]:.1f}{steps}"))
    for dot, (x, y) in zip(dots, places, strict=True):
        kind = f"spot spot-{kinds.index(dot.kind) % SPOTS}"
        radius = 6 if dot.name else 4
        parts.append(tag("circle", tag("title", dot.text), class_=kind, cx=x, cy=y, r=radius))
    for label in labels:
        if label is not None:
            parts.append(tag("text", label.text, class_="label", x=label.x, y=label.y + 4, text_anchor="middle"))
    return drawing(frame, parts, f"{y_title} by {x_title}", role="group")
