"""Axes and points of the charts in the HTML report, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from cars_hw.report.svg import tag


class Frame(NamedTuple):
    """The size of a drawing and the margins around what it shows, in units of its view box."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


WIDE: Final = Frame(860, 420, 62, 24, 26, 54)
NARROW: Final = Frame(360, 340, 46, 12, 26, 52)
SMALL: Final = Frame(350, 230, 46, 12, 28, 44)
SQUARE: Final = Frame(440, 430, 52, 14, 28, 48)
"""For a desktop, for a phone, for one of several plots in a row, and for two axes of one scale."""


class Point(NamedTuple):
    """A mark at ``x``, ``y`` with a text that shows on hover; ``kind`` is its class in the style sheet."""

    x: float
    y: float
    text: str
    kind: str


class Axes:
    """Two axes in ``frame`` whose ranges include ``xs`` and ``ys``.

    With ``equal`` they have one scale; with ``counted`` the ticks of the x axis are whole numbers. With
    ``logarithmic`` the scale of the x axis is logarithmic; ``xs`` are positive then.
    """

    def __init__(
        self,
        frame: Frame,
        xs: Sequence[float],
        ys: Sequence[float],
        *,
        equal: bool = False,
        counted: bool = False,
        logarithmic: bool = False,
    ) -> None:
        self.frame = frame
        self.logarithmic = logarithmic
        if equal:
            xs = ys = [*xs, *ys]
        about = 6 if counted or frame.width > SQUARE.width else 4
        self.x_ticks = (
            logarithmic_ticks(min(xs), max(xs), 2 * about)
            if logarithmic
            else ticks(min(xs), max(xs), about, whole=counted)
        )
        self.y_ticks = ticks(min(ys), max(ys))

    def across(self, x: float) -> float:
        """Return the position of ``x`` from the left of the drawing."""
        low, high, frame = self.x_ticks[0], self.x_ticks[-1], self.frame
        if self.logarithmic:
            x, low, high = math.log(x), math.log(low), math.log(high)
        return frame.left + (x - low) / (high - low) * (frame.width - frame.left - frame.right)

    def down(self, y: float) -> float:
        """Return the position of ``y`` from the top of the drawing."""
        low, high, frame = self.y_ticks[0], self.y_ticks[-1], self.frame
        return frame.height - frame.bottom - (y - low) / (high - low) * (frame.height - frame.top - frame.bottom)

    def draw(self, x_title: str, y_title: str) -> list[Markup]:
        """Return the grid, its numbers and the titles of the axes."""
        frame, bottom = self.frame, self.frame.height - self.frame.bottom
        parts = []
        for x in self.x_ticks:
            parts.append(self.upright(x, "grid"))
            parts.append(tag("text", f"{x:.4g}", x=self.across(x), y=bottom + 18, text_anchor="middle"))
        for y in self.y_ticks:
            parts.append(
                tag("path", class_="grid", d=f"M{frame.left} {self.down(y):.1f}H{frame.width - frame.right}")
            )
            parts.append(tag("text", f"{y:.4g}", x=frame.left - 8, y=self.down(y) + 4, text_anchor="end"))
        middle = (frame.left + frame.width - frame.right) / 2
        parts.append(tag("text", x_title, class_="title", x=middle, y=frame.height - 10, text_anchor="middle"))
        # Above the axis, so that it is horizontal and readable.
        parts.append(tag("text", y_title, class_="title", x=4, y=14))
        return parts

    def upright(self, x: float, kind: str) -> Markup:
        """Return a vertical line at ``x`` of the class ``kind``."""
        frame = self.frame
        return tag("path", class_=kind, d=f"M{self.across(x):.1f} {frame.top}V{frame.height - frame.bottom}")

    def diagonal(self) -> Markup:
        """Return the line where x is y, for axes of one scale."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        ends = f"M{self.across(low):.1f} {self.down(low):.1f}L{self.across(high):.1f} {self.down(high):.1f}"
        return tag("path", class_="equal", d=ends)


def drawing(frame: Frame, parts: Sequence[Markup], title: str, *, role: str = "img") -> Markup:
    """Return the SVG of ``parts`` with the name ``title``; in a ``group``, screen readers read the parts too."""
    return tag("svg", *parts, viewBox=f"0 0 {frame.width} {frame.height}", role=role, aria_label=title)


def scatter(
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    *,
    equal: bool = False,
    frame: Frame = WIDE,
) -> Markup:
    """Return an SVG of ``points``; with ``equal`` both axes have one scale, and a line marks where x is y."""
    axes = Axes(frame, [point.x for point in points], [point.y for point in points], equal=equal)
    parts = axes.draw(x_title, y_title)
    if equal:
        parts.append(axes.diagonal())
    for point in points:
        parts.append(
            tag(
                "circle",
                tag("title", point.text),
                class_=point.kind,
                cx=axes.across(point.x),
                cy=axes.down(point.y),
                r=5,
            )
        )
    return drawing(frame, parts, f"{y_title} by {x_title}")


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Return round numbers, evenly spaced, the first not above ``low`` and the last not below ``high``.

    With ``whole`` they are whole numbers, as for generations.
    """
    # Rounding would make one tick of values that differ by less.
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / about
    if whole:
        raw = max(raw, 1.0)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def logarithmic_ticks(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, the first not above ``low`` and the last not below ``high``.

    If these are more than ``most``, they are powers of ten.
    """
    for factors in ((1, 2, 5), (1,)):
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        known = [float(f"{factor}e{power}") for power in powers for factor in factors]
        first = max(index for index, one in enumerate(known) if one <= low * (1 + 1e-9))
        last = min(index for index, one in enumerate(known) if one >= high * (1 - 1e-9) and index > first)
        if last - first < most:
            break
    return known[first : last + 1]
