"""One HTML page about an experiment, in the report's style, with plots of several lines or of named points."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from cars_hw.report.charts import Box, place_labels
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
    ".spot{stroke:var(--mark);stroke-width:2}"
    ".spot-0{fill:var(--mark)}"
    ".spot-1{fill:var(--card)}"
    ".spot-2{fill:var(--card);stroke:var(--limit);stroke-dasharray:3 2}"
    ".spot-3{fill:var(--pooling);stroke:var(--pooling)}"
)
KINDS: Final = 4
"""How many kinds of lines there are."""


class Titles(NamedTuple):
    """What is across and what is up."""

    x: str
    y: str


class Line(NamedTuple):
    """A line through ``points`` (x, y); lines of one ``name`` look alike."""

    name: str
    points: Sequence[tuple[float, float]]


class Dot(NamedTuple):
    """A named point at ``x``, ``y`` of a ``kind``, with a text that shows on hover."""

    name: str
    x: float
    y: float
    kind: str
    text: str
    on_front: bool = False


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


def lines_figure(
    lines: Sequence[Line], x_title: str, y_title: str, caption: str, *, from_zero: bool = False
) -> Html:
    """Return ``lines`` over what is counted on the x axis, drawn for a desk and for a telephone, with their key.

    With ``from_zero`` the y axis begins there: of what shrinks, one sees how much is left.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    floor = [0.0] if from_zero else []
    drawings = [
        tag("div", _lines(lines, names, Titles(x_title, y_title), floor, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    key = [tag("li", _sample(names.index(name)), name) for name in names]
    return tag("figure", *drawings, tag("figcaption", tag("ul", *key, class_="legend"), tag("p", caption)))


def dots_figure(dots: Sequence[Dot], x_title: str, y_title: str, caption: str) -> Html:
    """Return ``dots`` with their names, those on the front joined, drawn for a desk and for a telephone."""
    kinds = list(dict.fromkeys(dot.kind for dot in dots))
    drawings = [
        tag("div", _dots(dots, kinds, x_title, y_title, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    key = [tag("li", _spot(kinds.index(kind)), kind) for kind in kinds]
    return tag("figure", *drawings, tag("figcaption", tag("ul", *key, class_="legend"), tag("p", caption)))


def paragraphs(texts: Sequence[str]) -> Html:
    """Return a paragraph for each of ``texts``."""
    return join(tag("p", text) for text in texts)


def _lines(
    lines: Sequence[Line], names: Sequence[str], titles: Titles, floor: Sequence[float], frame: Frame
) -> Html:
    points = [point for line in lines for point in line.points]
    axes = Axes(frame, [x for x, _ in points], [*floor, *(y for _, y in points)], counted=True)
    parts = axes.draw(*titles)
    for line in lines:
        path = "L".join(f"{axes.across(x):.1f} {axes.down(y):.1f}" for x, y in line.points)
        # A line of one point is a dot.
        path += "h0.1" if len(line.points) == 1 else ""
        parts.append(tag("path", class_=_kind(names.index(line.name)), d=f"M{path}"))
    return drawing(frame, parts, f"{titles.y} by {titles.x}: {', '.join(names)}")


def _dots(dots: Sequence[Dot], kinds: Sequence[str], x_title: str, y_title: str, frame: Frame) -> Html:
    axes = Axes(frame, [dot.x for dot in dots], [dot.y for dot in dots])
    places = [(axes.across(dot.x), axes.down(dot.y)) for dot in dots]
    labels = place_labels(places, [dot.name for dot in dots], [Box(x, y, 7, 7) for x, y in places], frame)
    parts = axes.draw(x_title, y_title)
    front = sorted(place for dot, place in zip(dots, places, strict=True) if dot.on_front)
    if front:
        steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in front[1:])
        parts.append(tag("path", class_="stairs", d=f"M{front[0][0]:.1f} {front[0][1]:.1f}{steps}"))
    for dot, (x, y), label in zip(dots, places, labels, strict=True):
        kind = f"spot spot-{kinds.index(dot.kind) % KINDS}"
        parts.append(tag("circle", tag("title", dot.text), class_=kind, cx=x, cy=y, r=6))
        if label is not None:
            parts.append(tag("text", label.text, class_="label", x=label.x, y=label.y + 4, text_anchor="middle"))
    return drawing(frame, parts, f"{y_title} by {x_title}", role="group")


def _spot(number: int) -> Html:
    shape = tag("circle", class_=f"spot spot-{number % KINDS}", cx=11, cy=8, r=6)
    return tag("svg", shape, viewBox="0 0 22 16", width=22, height=16, aria_hidden="true")


def _sample(number: int) -> Html:
    shape = tag("path", class_=_kind(number), d="M1 8H25")
    return tag("svg", shape, viewBox="0 0 26 16", width=26, height=16, aria_hidden="true")


def _kind(number: int) -> str:
    return f"series series-{number % KINDS}"
