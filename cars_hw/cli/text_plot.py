"""Small drawings out of letters: a bar, a line of figures, points over two axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Letters(NamedTuple):
    """What is drawn with: what a terminal can show decides."""

    levels: str
    full: str
    rest: str
    front: str
    other: str
    upright: str
    corner: str
    across: str


UNICODE = Letters("▁▂▃▄▅▆▇█", "━", "─", "●", "·", "│", "└", "─")
ASCII = Letters("_.-=+*#@", "#", "-", "o", ".", "|", "+", "-")


def bar(share: float, width: int, letters: Letters = UNICODE) -> tuple[str, str]:
    """Return the done and the other part of a bar of ``width`` letters, of which ``share`` is done."""
    done = round(min(max(share, 0.0), 1.0) * width)
    return letters.full * done, letters.rest * (width - done)


def sparkline(values: Sequence[float], width: int, letters: Letters = UNICODE) -> str:
    """Return a letter a value, between the least and the most of them; of too many, evenly many, with the last."""
    if len(values) > width:
        values = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    if not values:
        return ""
    low, high = min(values), max(values)
    top = len(letters.levels) - 1
    return "".join(
        letters.levels[round((value - low) / (high - low) * top) if high > low else 0] for value in values
    )


def plot(
    front: Sequence[tuple[float, float]],
    others: Sequence[tuple[float, float]],
    limit: float | None,
    width: int,
    height: int,
    letters: Letters = UNICODE,
) -> list[str]:
    """Return ``height`` lines of ``width`` letters with points (x, y), those of ``front`` over the ``others``.

    Axes, without figures, are on the left and below. A line stands at ``limit`` on the x axis, if there is one.
    """
    columns, rows = width - 1, height - 1
    (left, right), (low, high) = span(front, others, limit)

    def place(x: float, y: float) -> tuple[int, int]:
        return (
            round((x - left) / (right - left) * (columns - 1)),
            round((high - y) / (high - low) * (rows - 1)),
        )

    grid = [[" "] * columns for _ in range(rows)]
    if limit is not None:
        for row in grid:
            row[place(limit, low)[0]] = letters.upright
    for points, letter in ((others, letters.other), (front, letters.front)):
        for point in points:
            column, row_number = place(*point)
            grid[row_number][column] = letter
    return [letters.upright + "".join(row) for row in grid] + [letters.corner + letters.across * columns]


def span(
    front: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]], limit: float | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of the x and of the y axis of :func:`plot`; a single value gets room on both sides."""
    points = [*front, *others]
    xs = [x for x, _ in points] + ([limit] if limit is not None else [])
    ys = [y for _, y in points]
    (left, right), (low, high) = ((min(values), max(values)) for values in (xs, ys))
    if left == right:
        left, right = left - 0.5 * (abs(left) or 1.0), right + 0.5 * (abs(right) or 1.0)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return (left, right), (low, high)
