"""Bars that are made of parts: where a latency goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cars_hw.formatting import FAMILIES, kind_of, parts_of, percent
from cars_hw.latency import Part
from cars_hw.report.markup import Html, tag
from cars_hw.space.network_spec import NetworkSpec


class Bar(NamedTuple):
    """A name, and the milliseconds of each family of operations."""

    name: str
    families: Mapping[str, float]

    @property
    def ms(self) -> float:
        """All of it, in milliseconds."""
        return sum(self.families.values())


def by_place(parts: Sequence[Part], spec: NetworkSpec, rest: float) -> list[Bar]:
    """Return a bar for the stem, each cell and the classifier, and one for ``rest`` (ms), what belongs to none."""
    names: dict[int | str, str] = {"stem": "stem"}
    for index in range(spec.layers):
        names[index] = f"cell {index + 1}{', reduction' if index in spec.reductions else ''}"
    names["head"] = "classifier"
    sums: dict[int | str, dict[str, float]] = {place: {} for place in names}
    for placed, ms in parts:
        place = placed.what if placed.cell is None else placed.cell
        family = kind_of(placed.key.kind).family
        sums[place][family] = sums[place].get(family, 0.0) + ms
    return [Bar(name, sums[place]) for place, name in names.items()] + _rest(rest)


def by_operation(parts: Sequence[Part], rest: float) -> list[Bar]:
    """Return a bar for each kind of operation, the slowest first, and one for ``rest`` (ms)."""
    sums: dict[str, float] = {}
    for placed, ms in parts:
        sums[placed.key.kind] = sums.get(placed.key.kind, 0.0) + ms
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return [Bar(kind_of(kind).title, {kind_of(kind).family: ms}) for kind, ms in ranked] + _rest(rest)


def draw_bars(bars: Sequence[Bar], title: str) -> Html:
    """Return ``bars`` as a list, the longest as wide as there is room, each with its milliseconds and its share."""
    longest = max((bar.ms for bar in bars), default=0.0) or 1.0
    whole = sum(bar.ms for bar in bars) or 1.0
    written = parts_of(whole)
    rows = []
    for bar in bars:
        segments = [
            tag(
                "span",
                class_=f"segment {family}",
                style=f"width:{100 * bar.families[family] / longest:.2f}%",
                title=f"{FAMILIES[family]}: {written(bar.families[family])}",
            )
            for family in FAMILIES
            if bar.families.get(family, 0.0) > 0
        ]
        rows.append(
            tag(
                "li",
                tag("span", bar.name, class_="name"),
                tag("span", *segments, class_="bar"),
                tag("span", written(bar.ms), class_="ms"),
                tag("span", percent(bar.ms / whole, 0), class_="share"),
            )
        )
    return tag("ol", *rows, class_="bars", aria_label=title)


def legend(bars: Sequence[Bar]) -> Html:
    """Return what the colours of ``bars`` mean, for the families that are in them."""
    there = [family for family in FAMILIES if any(bar.families.get(family, 0.0) > 0 for bar in bars)]
    items = [tag("li", tag("span", class_=f"segment {family}"), FAMILIES[family]) for family in there]
    return tag("ul", *items, class_="legend")


def _rest(ms: float) -> list[Bar]:
    return [Bar("any network", {"rest": ms})] if ms else []
