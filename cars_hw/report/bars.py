"""Stacked bars: the parts of a predicted latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from cars_hw.formatting import parts_of, percent
from cars_hw.latency import Part
from cars_hw.report.kinds import FAMILIES, kind_of
from cars_hw.report.render import render
from cars_hw.space.network_spec import NetworkSpec


class Bar(NamedTuple):
    """A name, and the milliseconds of each family of operations."""

    name: str
    families: Mapping[str, float]

    @property
    def ms(self) -> float:
        """The sum of the families, in milliseconds."""
        return sum(self.families.values())


def by_place(parts: Sequence[Part], spec: NetworkSpec, rest: float) -> list[Bar]:
    """Return a bar for the stem, each cell and the classifier, and one for ``rest`` (ms), the constant part."""
    names: dict[int | str, str] = {"stem": "stem"}
    for index in range(spec.layers):
        halves = ", reduction" if index in spec.reductions else ""
        names[index] = f"{spec.parts.removesuffix('s')} {index + 1}{halves}"
    names["head"] = "classifier"
    sums: dict[int | str, dict[str, float]] = {place: {} for place in names}
    for placed, ms in parts:
        place = placed.what if placed.cell is None else placed.cell
        family = kind_of(placed.key.kind).family
        sums[place][family] = sums[place].get(family, 0.0) + ms
    return [Bar(name, sums[place]) for place, name in names.items()] + _rest(rest)


def by_operation(parts: Sequence[Part], rest: float) -> list[Bar]:
    """Return a bar for each kind of operation, the slowest first, and one for ``rest`` (ms), the constant part."""
    sums: dict[str, float] = {}
    for placed, ms in parts:
        sums[placed.key.kind] = sums.get(placed.key.kind, 0.0) + ms
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    return [Bar(kind_of(kind).title, {kind_of(kind).family: ms}) for kind, ms in ranked] + _rest(rest)


def draw_bars(bars: Sequence[Bar], title: str) -> Markup:
    """Return ``bars`` as a list, each with its milliseconds and its share; the longest fills the width."""
    longest = max((bar.ms for bar in bars), default=0.0) or 1.0
    whole = sum(bar.ms for bar in bars) or 1.0
    written = parts_of(whole)
    shown = [
        {
            "name": bar.name,
            "ms": written(bar.ms),
            "share": percent(bar.ms / whole, 0),
            "segments": [
                {
                    "family": family,
                    "width": f"{100 * bar.families[family] / longest:.2f}",
                    "title": f"{called}: {written(bar.families[family])}",
                }
                for family, called in families_in([bar]).items()
            ],
        }
        for bar in bars
    ]
    return render("bars.html", bars=shown, title=title)


def families_in(bars: Sequence[Bar]) -> dict[str, str]:
    """Return the families of operations in ``bars`` with their titles, in the order of the stack."""
    return {
        family: title
        for family, title in FAMILIES.items()
        if any(bar.families.get(family, 0.0) > 0 for bar in bars)
    }


def _rest(ms: float) -> list[Bar]:
    return [Bar("constant", {"rest": ms})] if ms else []
