"""A drawing of a network of blocks: one box a block, first to last, and the shape of what each stage makes."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from cars_hw.report.svg import tag
from cars_hw.space.blocks import BlockChoice, BlockLayout, block_layouts
from cars_hw.space.genotype import Genotype, names_of
from cars_hw.space.network_spec import NetworkSpec

COLUMNS: Final = 8
"""So many blocks stand in a row."""

WIDTH: Final = 78
HEIGHT: Final = 44
GAP: Final = 18
CAPTION: Final = 18
MARGIN: Final = 8
SCALE: Final = 1.2


def draw_blocks(spec: NetworkSpec, genotype: Genotype, title: str) -> Markup:
    """Return the SVG of the blocks of ``genotype`` under ``spec`` with the name ``title``."""
    layouts, names = block_layouts(spec), names_of(genotype)
    boxes = [_box(layout, name) for layout, name in zip(layouts, names, strict=True)]
    columns, rows = min(COLUMNS, len(boxes)), -(-len(boxes) // COLUMNS)
    width = 2 * MARGIN + columns * (WIDTH + GAP) - GAP
    height = 2 * MARGIN + rows * (HEIGHT + CAPTION + GAP) - GAP
    return tag(
        "svg",
        *boxes,
        viewBox=f"0 0 {width} {height}",
        width=f"{SCALE * width:.0f}",
        height=f"{SCALE * height:.0f}",
        role="img",
        aria_label=f"{title}: {describe(spec, genotype)}",
        class_="cell",
        style=f"min-width:{0.8 * width:.0f}px",
    )


def describe(spec: NetworkSpec, genotype: Genotype) -> str:
    """Return a description of the blocks for screen readers."""
    placed = zip(block_layouts(spec), names_of(genotype), strict=True)
    return "; ".join(f"block {layout.position + 1} is {called(name)}" for layout, name in placed)


def called(name: str) -> str:
    """Return what the choice ``name`` is called, in words."""
    choice = BlockChoice.parse(name)
    if choice is None:
        return "left out"
    squeeze = ", squeeze" if choice.squeeze else ""
    return f"{choice.kernel}×{choice.kernel}, expansion {choice.expansion}{squeeze}"


def _box(layout: BlockLayout, name: str) -> Markup:
    row, column = divmod(layout.position, COLUMNS)
    x, y = MARGIN + column * (WIDTH + GAP), MARGIN + row * (HEIGHT + CAPTION + GAP)
    middle, choice = x + WIDTH / 2, BlockChoice.parse(name)
    if choice is None:
        lines = ("left out", "")
    else:
        lines = (f"{choice.kernel}×{choice.kernel}", f"×{choice.expansion}{' SE' * choice.squeeze}")
    output = layout.output
    shape = f"{output.channels} · {output.height}×{output.width}"
    arrow = [] if column == 0 else [tag("path", class_="flow", d=f"M{x - GAP} {y + HEIGHT / 2}H{x}")]
    return tag(
        "g",
        *arrow,
        tag(
            "g",
            tag("title", f"block {layout.position + 1}: {called(name)}; it makes {shape} pixels"),
            tag("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=6),
            tag("text", lines[0], x=middle, y=y + 18, text_anchor="middle"),
            tag("text", lines[1], x=middle, y=y + 34, text_anchor="middle"),
            class_="operation absent" if choice is None else "operation separable",
        ),
        tag("text", shape, x=middle, y=y + HEIGHT + 14, text_anchor="middle"),
    )
