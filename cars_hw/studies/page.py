"""One HTML page about an experiment, in the report's style, with plots of several lines or of named points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from cars_hw.report.charts import Box, place_labels
from cars_hw.report.curves import Curve, draw_curves, key, names_of
from cars_hw.report.document import document
from cars_hw.report.markup import Html, join, tag
from cars_hw.report.plot import NARROW, WIDE, Axes, Frame, drawing

STYLE: Final = (
    ".spot{stroke:var(--mark);stroke-width:2}"
    ".spot-0{fill:var(--mark)}"
    ".spot-1{fill:var(--card)}"
    ".spot-2{fill:var(--card);stroke:var(--limit);stroke-dasharray:3 2}"
    ".spot-3{fill:var(--pooling);stroke:var(--pooling)}"
    # The last column is words, which may take two lines where the table is wider than the page.
    "@media(min-width:60rem){th,td{padding-inline:.6rem}td:last-child{white-space:normal}}"
)
KINDS: Final = 4
"""How many kinds of points there are."""


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
    header = tag("header", tag("h1", title), tag("p", subtitle))
    main = tag("main", *(tag("section", tag("h2", name), content) for name, content in sections))
    return document(title, [header, main], style=STYLE)


def curves_figure(
    curves: Sequence[Curve], x_title: str, y_title: str, caption: str, *, from_zero: bool = False
) -> Html:
    """Return ``curves`` drawn for a desk and for a telephone, with their key; see :func:`draw_curves`."""
    drawings = [
        tag("div", draw_curves(curves, x_title, y_title, frame, from_zero=from_zero), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    return tag("figure", *drawings, tag("figcaption", key(names_of(curves)), tag("p", caption)))


def dots_figure(dots: Sequence[Dot], x_title: str, y_title: str, caption: str) -> Html:
    """Return ``dots`` with their names, those on the front joined, drawn for a desk and for a telephone."""
    kinds = list(dict.fromkeys(dot.kind for dot in dots))
    drawings = [
        tag("div", _dots(dots, kinds, x_title, y_title, frame), class_=kind)
        for kind, frame in (("wide", WIDE), ("narrow", NARROW))
    ]
    entries = [tag("li", _spot(kinds.index(kind)), kind) for kind in kinds]
    return tag("figure", *drawings, tag("figcaption", tag("ul", *entries, class_="legend"), tag("p", caption)))


def paragraphs(texts: Sequence[str]) -> Html:
    """Return a paragraph for each of ``texts``."""
    return join(tag("p", text) for text in texts)


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
