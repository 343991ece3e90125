"""The report's plots: the front, the population of every generation, and figures by generation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from markupsafe import Markup

from cars_hw.report.plot import SMALL, Axes, Frame, drawing
from cars_hw.report.svg import tag

LETTER: Final = 8.8
"""Maximum width of a letter of a label, in units of the view box."""

HALF: Final = 8.0
"""Half the height of a label."""

GAP: Final = 4.0
"""Minimum distance between two labels side by side."""

HALO: Final = 11
"""Radius of the ring around a selected network."""

DOT: Final = 5.0
"""Radius of a dot, for the placement of labels."""


class Mark(NamedTuple):
    """A network of the front: its cost and the cost's upper bound, and its accuracies in percent.

    ``shared`` is under shared weights and ``trained`` after training; either may be missing. ``label`` is the
    short name in the drawing, ``text`` describes the network in one line.
    """

    name: str
    cost: float
    bound: float | None
    shared: float | None
    trained: float | None
    label: str
    text: str


class Box(NamedTuple):
    """An occupied rectangle: its centre, half its width and half its height."""

    x: float
    y: float
    half_width: float
    half_height: float

    def overlaps(self, other: Box) -> bool:
        """Return whether the two rectangles overlap."""
        return (
            abs(self.x - other.x) < self.half_width + other.half_width
            and abs(self.y - other.y) < self.half_height + other.half_height
        )


class Label(NamedTuple):
    """A text whose centre is at ``x``, ``y``."""

    x: float
    y: float
    text: str

    @property
    def box(self) -> Box:
        """The rectangle that it occupies."""
        return Box(self.x, self.y, LETTER * len(self.text) / 2, HALF)


def front(  # noqa: PLR0917 -- as the other plots
    marks: Sequence[Mark],
    x_title: str,
    limit: float | None,
    limit_text: str,
    frame: Frame,
    y_title: str = "accuracy",
) -> Markup:
    """Return the front: a ring at the shared accuracy of a network and a disc at its accuracy after training.

    Every network is a link to its section (``#name``), which works with the keyboard and without a script. A thin
    line leads from the predicted cost to its upper bound, which is compared with the limit.
    """
    costs = [cost for mark in marks for cost in (mark.cost, mark.bound) if cost is not None]
    heights = [height for mark in marks for height in (mark.shared, mark.trained) if height is not None]
    axes = Axes(frame, costs + ([limit] if limit is not None else []), heights)
    parts = axes.draw(x_title, f"{y_title}, %")
    points = [point for mark in marks for point in _column(mark)]
    line, limit_label = _limit(limit, limit_text, axes, points)
    parts += line
    labels = _places(marks, axes, limit_label)
    parts.append(_stairs(marks, axes))
    parts += [_network(mark, label, axes) for mark, label in zip(marks, labels, strict=True)]
    return drawing(frame, parts, f"The front: {y_title} by {x_title}", role="group")


def place_labels(
    anchors: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box], frame: Frame
) -> list[Label | None]:
    """Return for each anchor a label beside it that overlaps no other label and no ``taken`` rectangle.

    It tries above, left, right and below in this order; None where none of them is free.
    """
    boxes = list(taken)
    found: list[Label | None] = []
    for (x, y), text in zip(anchors, texts, strict=True):
        aside = LETTER * len(text) / 2 + HALO + 3
        options = [Label(x + dx, y + dy, text) for dx, dy in ((0, -19), (-aside, 0), (aside, 0), (0, 19))]
        free = [
            label
            for label in options
            if _is_inside(label.box, frame) and not any(label.box.overlaps(box) for box in boxes)
        ]
        found.append(free[0] if free else None)
        # Two names without a gap would read as one.
        boxes += [label.box._replace(half_width=label.box.half_width + GAP) for label in free[:1]]
    return found


def generations(  # noqa: PLR0917 -- as the other plots
    populations: Sequence[tuple[int, Sequence[tuple[float, float]]]],
    x_title: str,
    limit: float | None,
    limit_text: str,
    frame: Frame,
    y_title: str = "accuracy under shared weights",
) -> Markup:
    """Return each generation's population (cost, accuracy in percent); later dots are stronger and larger."""
    everybody = [member for _, members in populations for member in members]
    xs = [x for x, _ in everybody] + ([limit] if limit is not None else [])
    axes = Axes(frame, xs, [y for _, y in everybody])
    parts = axes.draw(x_title, f"{y_title}, %")
    parts += _limit(limit, limit_text, axes, everybody)[0]
    for place, (number, members) in enumerate(populations):
        age = (place + 1) / len(populations)
        # A line of length 0 with round ends is a disc, written in a third of the characters of a circle.
        dots = "".join(f"M{axes.across(x):.1f} {axes.down(y):.1f}h0" for x, y in members)
        parts.append(
            tag(
                "path",
                class_="generation",
                data_generation=number,
                d=dots,
                opacity=f"{0.12 + 0.78 * age**2:.2f}",
                stroke_width=f"{4 + 5 * age:.1f}",
            )
        )
    return drawing(frame, parts, f"The population of every generation: {y_title} by {x_title}")


def trend(
    numbers: Sequence[int],
    values: Sequence[float],
    title: str,
    band: Sequence[tuple[float, float]] = (),
    frame: Frame = SMALL,
) -> Markup:
    """Return ``values`` by generation as a line; ``band`` is the range around it, generation by generation."""
    axes = Axes(frame, numbers, [*values, *(end for ends in band for end in ends)], counted=True)
    parts = axes.draw("generation", title)
    if band:
        there = [f"{axes.across(x):.1f} {axes.down(low):.1f}" for x, (low, _) in zip(numbers, band, strict=True)]
        back = [f"{axes.across(x):.1f} {axes.down(high):.1f}" for x, (_, high) in zip(numbers, band, strict=True)]
        parts.append(tag("path", class_="band", d=f"M{'L'.join(there + back[::-1])}Z"))
    line = [f"{axes.across(x):.1f} {axes.down(y):.1f}" for x, y in zip(numbers, values, strict=True)]
    parts.append(tag("path", class_="line", d=f"M{'L'.join(line)}"))
    parts.append(tag("path", class_="dots", d="".join(f"M{point}h0" for point in line)))
    return drawing(frame, parts, f"{title}, by generation")


def _network(mark: Mark, label: Label | None, axes: Axes) -> Markup:
    x = axes.across(mark.cost)
    heights = [axes.down(height) for height in (mark.shared, mark.trained) if height is not None]
    parts = [tag("title", mark.text)]
    if mark.bound is not None:
        parts.append(tag("path", class_="bound", d=f"M{x:.1f} {heights[-1]:.1f}H{axes.across(mark.bound):.1f}"))
    if len(heights) == 2:
        parts.append(tag("path", class_="gained", d=f"M{x:.1f} {heights[0]:.1f}V{heights[1]:.1f}"))
    # Visible around the mark of the selected network: at the disc, or without one at the ring.
    parts.append(tag("circle", class_="halo", cx=x, cy=heights[-1], r=HALO))
    if mark.shared is not None:
        parts.append(tag("circle", class_="ring", cx=x, cy=heights[0], r=5))
    if mark.trained is not None:
        parts.append(tag("circle", class_="disc", cx=x, cy=heights[-1], r=6))
    if label is not None:
        parts.append(tag("text", label.text, class_="label", x=label.x, y=label.y + 4, text_anchor="middle"))
    return tag(
        "a",
        *parts,
        href=f"#{mark.name}",
        class_="point",
        data_network=mark.name,
        data_x=x,
        data_y=heights[-1],
        aria_label=mark.text,
    )


def _column(mark: Mark) -> list[tuple[float, float]]:
    """Return points of the line from the shared accuracy to the accuracy after training."""
    heights = [height for height in (mark.shared, mark.trained) if height is not None]
    first, last = heights[0], heights[-1]
    return [(mark.cost, first + (last - first) * step / 8) for step in range(9)]


def _stairs(marks: Sequence[Mark], axes: Axes) -> Markup:
    """Return the Pareto front under shared weights as a step line."""
    steps = []
    best: float | None = None
    for mark in sorted(marks, key=lambda mark: mark.cost):
        if mark.shared is not None and (best is None or mark.shared > best):
            best = mark.shared
            steps.append((axes.across(mark.cost), axes.down(mark.shared)))
    if not steps:
        return Markup("")
    path = f"M{steps[0][0]:.1f} {steps[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" for _, (x, y) in pairwise(steps))
    return tag("path", class_="stairs", d=path)


def _places(marks: Sequence[Mark], axes: Axes, limit: Label | None) -> list[Label | None]:
    """Return the labels: at the disc, or at the ring of a network that was not trained."""
    tops: list[tuple[float, float]] = []
    taken = [] if limit is None else [limit.box]
    for mark in marks:
        x = axes.across(mark.cost)
        heights = [axes.down(height) for height in (mark.shared, mark.trained) if height is not None]
        tops.append((x, heights[-1]))
        taken += [Box(x, y, 7, 7) for y in heights]
        taken.append(Box(x, (heights[0] + heights[-1]) / 2, 1, abs(heights[0] - heights[-1]) / 2))
        if mark.bound is not None:
            end = axes.across(mark.bound)
            taken.append(Box((x + end) / 2, heights[-1], abs(end - x) / 2, 1))
    # Trained networks are the most important ones, and their labels are placed first.
    order = sorted(range(len(marks)), key=lambda index: marks[index].trained is None)
    labels = place_labels(
        [tops[index] for index in order], [marks[index].label for index in order], taken, axes.frame
    )
    return [label for _, label in sorted(zip(order, labels, strict=True), key=lambda pair: pair[0])]


def _is_inside(box: Box, frame: Frame) -> bool:
    return (
        frame.left <= box.x - box.half_width
        and box.x + box.half_width <= frame.width - 2
        # A label may reach half its height above the grid: beside a point at the upper end of the axis.
        and frame.top - HALF <= box.y - box.half_height
        and box.y + box.half_height <= frame.height - frame.bottom
    )


def _limit(
    limit: float | None, text: str, axes: Axes, points: Sequence[tuple[float, float]]
) -> tuple[list[Markup], Label | None]:
    """Return the line of a limit with its text, and the label, placed where it covers the fewest ``points``."""
    if limit is None:
        return [], None
    frame, middle = axes.frame, axes.across(limit) - 6 - LETTER * len(text) / 2
    places = [(axes.across(x), axes.down(y)) for x, y in points]

    def covered(label: Label) -> int:
        room = label.box
        return sum(room.overlaps(Box(x, y, DOT, DOT)) for x, y in places)

    lines = range(round(frame.top) + 10, round(frame.height - frame.bottom) - 10, 20)
    # min returns the first of several, which is the highest.
    label = min((Label(middle, y, text) for y in lines), key=covered)
    letters = tag("text", text, class_="limit", x=axes.across(limit) - 6, y=label.y + 4, text_anchor="end")
    return [axes.upright(limit, "limit"), letters], label
