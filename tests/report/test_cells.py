"""The drawing of a cell, against positions computed by hand."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from cars_hw.report.cells import columns, describe, draw_cell
from cars_hw.space.genotype import Cell, Edge
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

CHAIN: Cell = (
    (Edge("sep_conv_3x3", 0), Edge("max_pool_3x3", 1)),
    (Edge("none", 0), Edge("dil_conv_5x5", 2)),
    (Edge("skip_connect", 1), Edge("none", 2)),
    (Edge("avg_pool_3x3", 3), Edge("sep_conv_5x5", 4)),
)
"""Node 1 reads node 0, node 3 reads node 1 and node 2, and node 2 only the second input."""

GENOTYPES = [published.genotype for published in zoo().values()]
GENOTYPES += [SearchSpace().sample(np.random.default_rng(seed)) for seed in range(40)]
CELLS = [cell for genotype in GENOTYPES for cell in (genotype.normal, genotype.reduce)]


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


def test_a_node_stands_behind_all_that_it_reads() -> None:
    assert columns(CHAIN) == [1, 2, 1, 3]


def test_a_chain_lies_where_it_was_computed_to_lie() -> None:
    picture = ElementTree.fromstring(draw_cell(CHAIN, "Normal cell"))
    # A column is 34 + 62 + 16 + 22 = 134 wide, the inputs 8 + 50; lanes are 66 high, the first one from 8 to 74.
    assert picture.get("viewBox") == f"0 0 {58 + 3 * 134 + 34 + 26 + 8} {16 + 4 * 66}"
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in picture.iter("circle")]
    assert circles == [
        (58 + 134 - 11, 41),
        (58 + 2 * 134 - 11, 107),
        (58 + 134 - 11, 173),
        (58 + 3 * 134 - 11, 239),
    ]
    ways = {path.get("data-edge"): numbers(path.get("d", "")) for path in picture.iter("path")}
    # The first edge of node 0 leaves the first input at 58, 74 and comes in on the upper rail, 13 above the lane.
    assert ways["0-2"][:2] == [58, 74]
    assert ways["0-2"][6:9] == [58 + 28, 28, 58 + 34]
    # Node 1 has one edge: it runs along the middle of the lane, and begins at node 0.
    assert ways["2-3"][:2] == [58 + 134, 41]
    assert ways["2-3"][6:9] == [58 + 134 + 28, 107, 58 + 134 + 34]
    # All edges end at their node.
    assert ways["4-5"][-2:] == [58 + 3 * 134 - 22, 239]


@pytest.mark.parametrize("cell", CELLS)
def test_every_real_edge_is_drawn_and_labelled_and_no_other(cell: Cell) -> None:
    picture = ElementTree.fromstring(draw_cell(cell, "cell"))
    drawn = sorted(
        (p.get("data-edge"), p.get("data-operation")) for p in picture.iter("path") if p.get("data-edge")
    )
    expected = [
        (f"{edge.source}-{number + 2}", edge.operation)
        for number, node in enumerate(cell)
        for edge in node
        if edge.is_real
    ]
    assert drawn == sorted(expected)
    labels = [group for group in picture.iter("g") if (group.get("class") or "").startswith("operation")]
    assert len(labels) == len(expected)


@pytest.mark.parametrize("cell", CELLS)
def test_no_edge_runs_over_a_label_or_a_node(cell: Cell) -> None:
    picture = ElementTree.fromstring(draw_cell(cell, "cell"))
    boxes = [
        tuple(float(rect.get(name, 0)) for name in ("x", "y", "width", "height")) for rect in picture.iter("rect")
    ]
    boxes = [box for box in boxes if box[2] == 62]
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in picture.iter("circle")]
    for path in picture.iter("path"):
        if path.get("class") == "edge":
            values = numbers(path.get("d", ""))
            # From behind the bend to the label it is a straight line; the bend itself is in a gap between columns.
            bend, y, end = values[6], values[7], values[8]
            assert bend <= end
            assert not any(x < end and x + width > bend and top < y < top + high for x, top, width, high in boxes)
            assert not any(bend < x < end and abs(y - middle) < 11 for x, middle in circles)


def test_a_cell_is_told_in_words() -> None:
    words = describe(CHAIN)
    assert "node 0 is separable conv. 3\N{MULTIPLICATION SIGN}3 of the input before last plus max" in words
    assert "node 2 is skip connection of the last input;" in words
    assert words.endswith("of node 1 plus separable conv. 5\N{MULTIPLICATION SIGN}5 of node 2")
