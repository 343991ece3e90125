"""A drawing of a cell: two inputs on the left, four nodes, and the output on the right.

Every node has a lane of its own from left to right, and two rails in it, one for each of its edges. An edge leaves
its source, changes in the gap behind it to its rail, and runs along it to the label of its operation: so no edge
runs over a label or over another node, whatever the genotype.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from markupsafe import Markup

from cars_hw.report.kinds import kind_of
from cars_hw.report.svg import tag
from cars_hw.space.genotype import Cell, Edge, States

INPUT: Final = 50
GAP: Final = 34
LABEL: Final = 62
TO_NODE: Final = 16
NODE: Final = 22
LANE: Final = 66
RAIL: Final = 13
OUTPUT: Final = 26
MARGIN: Final = 8
LABEL_HEIGHT: Final = 21
SCALE: Final = 1.2
"""Size of a drawing relative to its view box where the page is wide enough."""


class Place(NamedTuple):
    """The position of a state: the middle of its right side, where the edges that read it begin."""

    x: float
    y: float


def columns(cell: Cell) -> list[int]:
    """Return the column of each node, from 1: the number of nodes on the longest path to it, itself included."""
    depths: list[int] = []
    for node in cell:
        depths.append(1 + max((depths[edge.source - 2] for edge in node if _from_node(edge)), default=0))
    return depths


def draw_cell(cell: Cell, title: str, joined: States | None = None) -> Markup:
    """Return the SVG of ``cell`` with the name ``title``: all real edges, each with its operation.

    Lines run from the nodes among the states ``joined`` to the output, by default from all nodes.
    """
    depths = columns(cell)
    height = 2 * MARGIN + LANE * len(cell)
    width = MARGIN + INPUT + max(depths) * _pitch() + GAP + OUTPUT + MARGIN
    end = width - MARGIN - OUTPUT
    lanes = [MARGIN + LANE * (number + 0.5) for number in range(len(cell))]
    states = [Place(MARGIN + INPUT, lanes[0] + LANE / 2), Place(MARGIN + INPUT, lanes[-1] - LANE / 2)]
    states += [Place(MARGIN + INPUT + depth * _pitch(), lane) for depth, lane in zip(depths, lanes, strict=True)]
    edges, boxes = [], []
    for number, node in enumerate(cell):
        lane = states[number + 2]
        label_x = lane.x - NODE - TO_NODE - LABEL
        real = [edge for edge in node if edge.is_real]
        for edge, rail in zip(real, _rails(len(real), lane.y), strict=True):
            edges.append(_edge(edge, (states[edge.source], lane), rail, number))
            boxes.append(_label(edge, label_x, rail))
        boxes.append(_node(number, lane, empty=not real))
        if joined is None or number + 2 in joined:
            edges.append(tag("path", class_="flow", d=f"M{lane.x:.1f} {lane.y:.1f}H{end:.1f}"))
    boxes += [_input(name, state) for name, state in zip(("k-2", "k-1"), states[:2], strict=True)]
    boxes.append(_output(end, height))
    return tag(
        "svg",
        *edges,
        *boxes,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{SCALE * width:.0f}",
        height=f"{SCALE * height:.0f}",
        role="img",
        aria_label=f"{title}: {describe(cell)}",
        class_="cell",
        style=f"min-width:{0.8 * width:.0f}px",
    )


def describe(cell: Cell) -> str:
    """Return a description of ``cell`` for screen readers."""
    nodes = []
    for number, node in enumerate(cell):
        terms = [f"{kind_of(edge.operation).title} of {_source(edge)}" for edge in node if edge.is_real]
        nodes.append(f"node {number} is {' plus '.join(terms) if terms else 'zero'}")
    return "; ".join(nodes)


def _pitch() -> float:
    """Return the distance of two columns."""
    return GAP + LABEL + TO_NODE + NODE


def _from_node(edge: Edge) -> bool:
    return edge.is_real and edge.source >= 2


def _source(edge: Edge) -> str:
    return (
        ("the input before last", "the last input")[edge.source] if edge.source < 2 else f"node {edge.source - 2}"
    )


def _rails(count: int, lane: float) -> list[float]:
    return [lane - RAIL, lane + RAIL] if count == 2 else [lane] * count


def _edge(edge: Edge, ends: tuple[Place, Place], rail: float, number: int) -> Markup:
    """Return the edge between its ``ends``: along ``rail`` to the label of its operation, and on to the node."""
    source, node = ends
    begin = node.x - NODE - TO_NODE - LABEL
    bend, half = source.x + GAP - 6, source.x + (GAP - 6) / 2
    way = f"M{source.x:.1f} {source.y:.1f}C{half:.1f} {source.y:.1f} {half:.1f} {rail:.1f} {bend:.1f} {rail:.1f}"
    way += f"H{begin:.1f}"
    end, middle = node.x - NODE, node.x - NODE - TO_NODE / 2
    way += (
        f"M{begin + LABEL:.1f} {rail:.1f}C{middle:.1f} {rail:.1f} {middle:.1f} {node.y:.1f} {end:.1f} {node.y:.1f}"
    )
    return tag("path", class_="edge", d=way, data_edge=f"{edge.source}-{number + 2}", data_operation=edge.operation)


def _label(edge: Edge, x: float, rail: float) -> Markup:
    kind = kind_of(edge.operation)
    box = tag("rect", x=x, y=rail - LABEL_HEIGHT / 2, width=LABEL, height=LABEL_HEIGHT, rx=5)
    letters = tag("text", kind.short, x=x + LABEL / 2, y=rail + 4, text_anchor="middle")
    return tag(
        "g", tag("title", f"{kind.title} of {_source(edge)}"), box, letters, class_=f"operation {kind.family}"
    )


def _node(number: int, place: Place, *, empty: bool) -> Markup:
    x = place.x - NODE / 2
    circle = tag("circle", cx=x, cy=place.y, r=NODE / 2)
    meaning = f"node {number}: zero, it has no edge" if empty else f"node {number}: the sum of its edges"
    letters = tag("text", str(number), x=x, y=place.y + 4, text_anchor="middle")
    return tag("g", tag("title", meaning), circle, letters, class_="node empty" if empty else "node")


def _input(name: str, place: Place) -> Markup:
    box = tag("rect", x=place.x - INPUT, y=place.y - 15, width=INPUT, height=30, rx=6)
    letters = tag("text", name, x=place.x - INPUT / 2, y=place.y + 4, text_anchor="middle")
    return tag("g", box, letters, class_="state")


def _output(x: float, height: float) -> Markup:
    middle = height / 2
    box = tag("rect", x=x, y=MARGIN, width=OUTPUT, height=height - 2 * MARGIN, rx=6)
    centre = x + OUTPUT / 2
    turned = tag(
        "text",
        "concatenated",
        text_anchor="middle",
        transform=f"translate({centre + 4:.1f} {middle:.1f}) rotate(-90)",
    )
    return tag("g", box, turned, class_="state")
