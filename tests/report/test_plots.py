"""Plots and bars, against positions and sums computed by hand."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from cars_hw.formatting import figure, millions, milliseconds, parts_of, percent, size
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.report import charts
from cars_hw.report.bars import Bar, by_operation, by_place, draw_bars
from cars_hw.report.kinds import kind_of
from cars_hw.report.plot import NARROW, WIDE, Frame, Point, scatter, ticks
from cars_hw.report.svg import tag
from cars_hw.space.search_space import SearchSpace

PLAIN = Frame(width=130, height=120, left=20, right=10, top=10, bottom=10)
"""A hundred by a hundred, 20 from the left and 10 from the top."""


def test_text_and_attributes_of_a_drawing_are_escaped() -> None:
    naughty = "<b>\"&'"
    assert tag("p", naughty, data_title=naughty) == (
        '<p data-title="&lt;b&gt;&#34;&amp;&#39;">&lt;b&gt;&#34;&amp;&#39;</p>'
    )
    assert tag("p", Markup("<b>1</b>"), "<") == "<p><b>1</b>&lt;</p>"
    assert tag("rect", class_="a b", stroke_width=1.25, x=2) == '<rect class="a b" stroke-width="1.2" x="2"/>'


def test_points_lie_where_their_figures_say() -> None:
    drawn = ElementTree.fromstring(
        scatter([Point(0, 0, "a", "k"), Point(1, 50, "b", "k"), Point(4, 100, "<", "k")], "x", "y", frame=PLAIN)
    )
    circles = [(circle.get("cx"), circle.get("cy")) for circle in drawn.iter("circle")]
    assert circles == [("20", "110"), ("45", "60"), ("120", "10")]
    assert [title.text for title in drawn.iter("title")] == ["a", "b", "<"]


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.13, 0.39, False, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]),
        (1, 11, False, [0, 2.5, 5, 7.5, 10, 12.5]),
        (1, 11, True, [0, 2, 4, 6, 8, 10, 12]),
        (1, 3, True, [1, 2, 3]),
        (2, 2, True, [1, 2, 3]),
        (5, 5, False, [2, 4, 6, 8]),
    ],
)
def test_ticks_are_round_and_reach_over_everything(
    low: float, high: float, whole: bool, expected: list[float]
) -> None:
    assert ticks(low, high, 6 if whole or low < 1 else 4, whole=whole) == expected


def test_values_that_are_all_but_equal_have_an_axis_around_them() -> None:
    low, high = 0.0412, 0.0412 * (1 + 1e-15)
    found = ticks(low, high)
    assert found[0] < low
    assert high < found[-1]
    scatter([Point(low, high, "a network", "dot")], "across", "up", equal=True)


def marks(count: int) -> list[charts.Mark]:
    return [
        charts.Mark(
            f"net-{n}", 1 + 0.03 * n, 1.08 * (1 + 0.03 * n), 60 + n, 80 + n if n % 2 else None, f"{n:02d}", f"<{n}>"
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("frame", [WIDE, NARROW])
@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_every_network_is_a_link_and_labels_touch_nothing(frame: Frame, count: int) -> None:
    drawn = ElementTree.fromstring(charts.front(marks(count), "ms", 3.0, "budget 3 ms", frame))
    links = list(drawn.iter("a"))
    assert [link.get("href") for link in links] == [f"#net-{n}" for n in range(count)]
    assert [link.get("aria-label") for link in links] == [f"<{n}>" for n in range(count)]
    assert sum(circle.get("class") == "ring" for circle in drawn.iter("circle")) == count
    assert sum(circle.get("class") == "disc" for circle in drawn.iter("circle")) == count // 2
    letters = [label for label in drawn.iter("text") if label.get("class") in ("label", "limit")]
    places = []
    for label in letters:
        half = charts.LETTER * len(label.text or "") / 2
        x = float(label.get("x", 0)) - (half if label.get("text-anchor") == "end" else 0)
        places.append((x, float(label.get("y", 0)), half))
    for (x, y, half), (other_x, other_y, other_half) in combinations(places, 2):
        assert abs(x - other_x) >= half + other_half - 0.2 or abs(y - other_y) >= 2 * charts.HALF - 0.2
    rings = [
        (float(c.get("cx", 0)), float(c.get("cy", 0))) for c in drawn.iter("circle") if c.get("class") != "halo"
    ]
    for x, y, half in places[1:]:
        assert not any(abs(x - cx) < half + 4 and abs(y - 4 - cy) < charts.HALF + 4 for cx, cy in rings)


def test_a_label_goes_where_there_is_room_or_nowhere() -> None:
    free = charts.place_labels([(70, 60)], ["1"], [], PLAIN)
    assert free == [charts.Label(70, 41, "1")]
    # Above is taken, so it goes to the left; and where everything is taken, nowhere.
    beside = charts.place_labels([(70, 60)], ["1"], [charts.Box(70, 41, 5, 5)], PLAIN)
    assert beside == [charts.Label(70 - charts.HALO - 3 - charts.LETTER / 2, 60, "1")]
    assert charts.place_labels([(70, 60)], ["1"], [charts.Box(70, 60, 50, 50)], PLAIN) == [None]
    # Letters are 8.8 wide: above points that are 12 apart 3.2 would be left between them, and 4 are asked for.
    first, second = charts.place_labels([(70, 60), (82, 60)], ["1", "2"], [], PLAIN)
    assert (first, second) == (charts.Label(70, 41, "1"), charts.Label(pytest.approx(63.6), 60, "2"))
    apart = charts.place_labels([(70, 60), (83, 60)], ["1", "2"], [], PLAIN)
    assert [label and label.y for label in apart] == [41, 41]


@pytest.mark.parametrize("frame", [WIDE, NARROW])
def test_a_trained_network_at_the_upper_end_of_the_axis_has_its_label(frame: Frame) -> None:
    low = charts.Mark("net-01", 1.2, None, 65.0, None, "01", "")
    best = charts.Mark("net-02", 2.0, 2.1, 70.0, 80.0, "02", "")
    drawn = ElementTree.fromstring(charts.front([low, best], "ms", 3.0, "budget", frame))
    labels = {one.text: float(one.get("y", 0)) for one in drawn.iter("text") if one.get("class") == "label"}
    # The axis ends at 80, where a label has no room above, and the line to the shared accuracy runs below.
    assert set(labels) == {"01", "02"}
    assert labels["02"] == frame.top + 4


def test_the_text_of_a_limit_stands_as_high_as_no_dot_is_behind_it() -> None:
    def height(dots: list[tuple[float, float]]) -> float:
        # From 0 to 4 on the axes, the limit at the right end.
        corners = [(0.0, 0.0), (4.0, 100.0)]
        drawn = ElementTree.fromstring(charts.generations([(1, corners + dots)], "ms", 4.0, "budget", WIDE))
        (text,) = (float(one.get("y", 0)) for one in drawn.iter("text") if one.get("class") == "limit")
        return text - 4

    # The corner's own dot is 6 to the right of the text, and reaches 5 to the left.
    top = WIDE.top + 10
    assert height([]) == top
    assert height([(3.9, 97.0)]) == top + 20
    assert height([(3.9, 97.0), (3.9, 90.0)]) > top + 20
    # Where there are dots at every height, it is as high as there are the fewest.
    everywhere = [(3.9, float(y)) for y in range(101)]
    assert height([*everywhere, (3.9, 97.0)]) > top


def test_the_text_of_a_limit_keeps_clear_of_the_line_from_shared_to_trained_accuracy() -> None:
    corners = [charts.Mark("a", 0.0, None, 0.0, None, "a", ""), charts.Mark("b", 1.0, None, 100.0, None, "b", "")]
    close = charts.Mark("c", 3.9, None, 50.0, 97.0, "c", "")
    drawn = ElementTree.fromstring(charts.front([*corners, close], "ms", 4.0, "budget", WIDE))
    (height,) = (float(one.get("y", 0)) - 4 for one in drawn.iter("text") if one.get("class") == "limit")
    # Half of the axis is below the middle, from 26 to 420 - 54.
    middle = WIDE.top + (WIDE.height - WIDE.top - WIDE.bottom) / 2
    assert middle + charts.HALF + charts.DOT <= height < middle + charts.HALF + charts.DOT + 20


def test_each_generation_has_all_its_members_and_the_last_is_the_strongest() -> None:
    populations = [(1, [(0.0, 0.0), (1.0, 50.0)]), (2, [(4.0, 100.0)])]
    drawn = ElementTree.fromstring(charts.generations(populations, "ms", None, "", PLAIN))
    first, last = (path for path in drawn.iter("path") if path.get("class") == "generation")
    assert first.get("d") == "M20.0 110.0h0M45.0 60.0h0"
    assert last.get("d") == "M120.0 10.0h0"
    assert (first.get("data-generation"), last.get("data-generation")) == ("1", "2")
    assert float(first.get("opacity", 1)) < float(last.get("opacity", 0)) == 0.9


def test_a_trend_is_a_line_through_its_figures_in_its_band() -> None:
    drawn = ElementTree.fromstring(charts.trend([0, 4], [25.0, 50.0], "y", [(0.0, 50.0), (25.0, 100.0)], PLAIN))
    ways = {path.get("class"): path.get("d") for path in drawn.iter("path")}
    assert ways["line"] == "M20.0 85.0L120.0 60.0"
    assert ways["band"] == "M20.0 110.0L120.0 85.0L120.0 10.0L20.0 60.0Z"


def test_bars_add_up_to_the_prediction(table: LatencyTable) -> None:
    predictor = Predictor(table)
    rng = np.random.default_rng(2)
    for genotype in [SearchSpace().sample(rng) for _ in range(10)]:
        parts, made = predictor.parts(genotype), predictor.composition(genotype)
        breakdown = predictor.breakdown(genotype)
        places = by_place(parts, table.spec, made.intercept_ms)
        operations = by_operation(parts, made.intercept_ms)
        assert sum(bar.ms for bar in places) == pytest.approx(made.ms)
        assert sum(bar.ms for bar in operations) == pytest.approx(made.ms)
        assert [bar.ms for bar in places[1:4]] == pytest.approx(list(breakdown.cells))
        assert [places[0].ms, places[4].ms] == pytest.approx([breakdown.stem, breakdown.head])
        assert [bar.name for bar in places[:5]] == [
            "stem",
            "cell 1",
            "cell 2, reduction",
            "cell 3, reduction",
            "classifier",
        ]
        assert [bar.name for bar in operations[: len(breakdown.operations)]] == [
            kind_of(kind).title for kind in breakdown.operations
        ]


def test_the_longest_bar_is_as_wide_as_there_is_room() -> None:
    drawn = draw_bars([Bar("a", {"pooling": 1.0, "dilated": 3.0}), Bar("<b>", {"pooling": 2.0})], "bars")
    assert re.findall(r"width:([\d.]+)%", drawn) == ["75.00", "25.00", "50.00"]
    assert re.findall(r'class="ms">([^<]*)<', drawn) == ["4.000 ms", "2.000 ms"]
    assert re.findall(r'class="share">([^<]*)<', drawn) == ["67%", "33%"]
    assert "<b>" not in drawn


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figure(0.13387), "0.134"),
        (figure(0.0047298), "0.00473"),
        (figure(20.46), "20.5"),
        (figure(999.6), "1,000"),
        (figure(12345.0), "12,300"),
        (figure(-0.5), "-0.500"),
        (figure(0.0), "0"),
        (milliseconds(None), "\N{EN DASH}"),
        (milliseconds(1.0), "1.00 ms"),
        (percent(0.8725), "87.2%"),
        (millions(4_713_120), "4.71 M"),
        (size(512), "1 kB"),
        (size(167_800), "168 kB"),
        (size(1_300_000), "1.3 MB"),
        (parts_of(0.309)(0.0057), "0.0057 ms"),
        (parts_of(42.0)(3.14159), "3.14 ms"),
    ],
)
def test_figures_are_written_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected
