"""The front as a picture: an SVG that stands in the page itself."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 20, 48


class Point(NamedTuple):
    """A mark at ``x``, ``y`` with a text that shows on hover; ``kind`` is its class in the style sheet."""

    x: float
    y: float
    text: str
    kind: str


STYLE = (
    "svg{background:#fff;font:13px system-ui,sans-serif;fill:#333}.grid{stroke:#ddd}"
    ".limit,.equal{stroke:#c33;stroke-dasharray:5 4}circle{fill:#1667c0;fill-opacity:.7}"
)
"""For a picture that stands alone; in a page it has the page's."""


def standalone(svg: str) -> str:
    """Return ``svg`` as the text of a file."""
    return svg.replace(">", f' xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>', 1) + "\n"


def scatter(
    points: Sequence[Point], x_title: str, y_title: str, limit: float | None = None, *, equal: bool = False
) -> str:
    """Return an SVG of ``points``, with a vertical line at ``limit`` on the x axis if there is one.

    With ``equal`` both axes have one scale, and a line joins where x is y.
    """
    xs = [point.x for point in points] + ([limit] if limit is not None else [])
    ys = [point.y for point in points]
    if equal:
        xs = ys = xs + ys
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))

    def across(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(y_title)} by {_text(x_title)}">']
    for x in x_ticks:
        parts.append(f'<path class="grid" d="M{across(x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:.4g}</text>')
    for y in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    if limit is not None:
        parts.append(f'<path class="limit" d="M{across(limit):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    if equal:
        low, high = x_ticks[0], x_ticks[-1]
        parts.append(
            f'<path class="equal" d="M{across(low):.1f} {down(low):.1f}L{across(high):.1f} {down(high):.1f}"/>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{_text(x_title)}</text>'
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{_text(y_title)}</text>"
    )
    for point in points:
        parts.append(
            f'<circle class="{point.kind}" cx="{across(point.x):.1f}" cy="{down(point.y):.1f}" r="5">'
            f"<title>{_text(point.text)}</title></circle>"
        )
    parts.append("</svg>")
    return "".join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers, evenly spaced, the first not above ``low`` and the last not below ``high``."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _text(text: str) -> str:
    return html.escape(text)
