"""One HTML page about an experiment, in the report's style, with plots of several lines or of named points."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from cars_hw.report.markup import Html, join, tag
from cars_hw.report.plot import NARROW, WIDE, Axes, Frame, drawing

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself sees to it that the page fetches nothing and runs nothing."""

# Lines differ in their dashes as well, for whoever does not tell the colours apart.
STYLE: Final = (
    ".series{fill:none;stroke-width:2.2}"
    ".series-0{stroke:var(--limit);stroke-dasharray:7 4}"
    ".series-1{stroke:var(--mark)}"
    ".series-2{stroke:var(--pooling);stroke-dasharray:2 3}"
    ".series-3{stroke:var(--dilated);stroke-dasharray:10 3 2 3}"
    "a.point{text-decoration:none}"
)
KINDS: Final = 4
"""How many kinds of lines there are."""


class Line(NamedTuple):
    """A line through ``points`` (x, y); lines of one ``name`` look alike."""

    name: str
    points: Sequence[tuple[float, float]]


def page(title: str, subtitle: str, sections: Sequence[tuple[str, Html]]) -> str:
    """Return the page of ``sections``, each a title and what is in it: HTML that needs nothing else."""
    style = Html(files("cars_hw.report").joinpath("style.css").read_text(encoding="utf-8") + STYLE)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - cars-hw"),
        tag("style", style),
    )
    header = tag("header", tag("h1", title), tag("p", subtitle))
    main = tag("main", *(tag("section", tag("h2", name), content) for name, content in sections))
    return f"<!doctype html>\n{tag('html', head, tag('body', header, main), lang='en')}\n"


def lines_figure(lines: Sequence[Line], x_title: str, y_title: str, caption: str) -> Html:
    """Return ``lines`` over what is counted on the x axis, drawn for a desk and for a telephone, with their key."""
    names = list(dict.fromkeys(line.name for line in lines))
    drawings = [
        tag("div", _lines(lines, names, x_title, y_title, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    key = [tag("li", _sample(names.index(name)), name) for name in names]
    return tag("figure", *drawings, tag("figcaption", tag("ul", *key, class_="legend"), tag("p", caption)))


def paragraphs(texts: Sequence[str]) -> Html:
    """Return a paragraph for each of ``texts``."""
    return join(tag("p", text) for text in texts)


def _lines(lines: Sequence[Line], names: Sequence[str], x_title: str, y_title: str, frame: Frame) -> Html:
    points = [point for line in lines for point in line.points]
    axes = Axes(frame, [x for x, _ in points], [y for _, y in points], counted=True)
    parts = axes.draw(x_title, y_title)
    for line in lines:
        path = "L".join(f"{axes.across(x):.1f} {axes.down(y):.1f}" for x, y in line.points)
        # A line of one point is a dot.
        path += "h0.1" if len(line.points) == 1 else ""
        parts.append(tag("path", class_=_kind(names.index(line.name)), d=f"M{path}"))
    return drawing(frame, parts, f"{y_title} by {x_title}: {', '.join(names)}")


def _sample(number: int) -> Html:
    shape = tag("path", class_=_kind(number), d="M1 8H25")
    return tag("svg", shape, viewBox="0 0 26 16", width=26, height=16, aria_hidden="true")


def _kind(number: int) -> str:
    return f"series series-{number % KINDS}"
