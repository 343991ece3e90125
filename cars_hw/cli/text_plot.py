"""Plots of characters: a sparkline and a scatter plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Letters(NamedTuple):
    """The characters of a plot; the encoding of the terminal decides which are used."""

    levels: str
    front: str
    other: str
    upright: str
    corner: str
    across: str


UNICODE = Letters("▁▂▃▄▅▆▇█", "●", "·", "│", "└", "─")
ASCII = Letters("_.-=+*#@", "o", ".", "|", "+", "-")


def sparkline(values: Sequence[float], width: int, letters: Letters = UNICODE) -> str:
    """Return one character per value, scaled to their range; of more than ``width`` values an even choice."""
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
    """Return ``height`` lines of ``width`` characters: the points (x, y), those of ``front`` over the ``others``.

    The axes on the left and at the bottom have no labels. A vertical line marks ``limit``, a value of x, if any.
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
    """Return the ends of the x axis and of the y axis of :func:`plot`. A single value is put in the middle."""
    points = [*front, *others]
    xs = [x for x, _ in points] + ([limit] if limit is not None else [])
    ys = [y for _, y in points]
    (left, right), (low, high) = ((min(values), max(values)) for values in (xs, ys))
    if left == right:
        left, right = left - 0.5 * (abs(left) or 1.0), right + 0.5 * (abs(right) or 1.0)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return (left, right), (low, high)
