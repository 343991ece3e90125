"""Several lines in one plot, distinguished by colour and by dashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from cars_hw.report.plot import Axes, Frame, drawing
from cars_hw.report.svg import tag

KINDS: Final = 8
"""Lines that the style sheet distinguishes."""


class Curve(NamedTuple):
    """A line through ``points`` (x, y), where x is a whole number; curves of one ``name`` look alike.

    ``band`` holds the lower and the upper end of a range for each point, or nothing.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


def draw_curves(
    curves: Sequence[Curve], x_title: str, y_title: str, frame: Frame, *, from_zero: bool = False
) -> Markup:
    """Return ``curves`` in one plot; with ``from_zero`` the y axis starts at 0."""
    names = names_of(curves)
    points = [point for curve in curves for point in curve.points]
    heights = [y for _, y in points] + [end for curve in curves for ends in curve.band for end in ends]
    axes = Axes(frame, [x for x, _ in points], [*heights, 0.0] if from_zero else heights, counted=True)
    parts = axes.draw(x_title, y_title)

    def path(places: Sequence[tuple[float, float]]) -> str:
        return "L".join(f"{axes.across(x):.1f} {axes.down(y):.1f}" for x, y in places)

    for curve in curves:
        if curve.band:
            ends = [(x, *between) for (x, _), between in zip(curve.points, curve.band, strict=True)]
            around = [(x, low) for x, low, _ in ends] + [(x, high) for x, _, high in reversed(ends)]
            parts.append(tag("path", class_="band", d=f"M{path(around)}Z"))
    for curve in curves:
        # A line with one point is drawn as a dot.
        dot = "h0.1" if len(curve.points) == 1 else ""
        kind = f"line curve-{names.index(curve.name) % KINDS}"
        parts.append(tag("path", tag("title", curve.name), class_=kind, d=f"M{path(curve.points)}{dot}"))
    return drawing(frame, parts, f"{y_title} by {x_title}: {', '.join(names)}")


def names_of(curves: Sequence[Curve]) -> list[str]:
    """Return the names of ``curves``, each once, in their order."""
    return list(dict.fromkeys(curve.name for curve in curves))
