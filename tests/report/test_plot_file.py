"""Pictures by matplotlib: what is in them, and that they depend on their points alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cars_hw.report.plot_file import FORMATS, write_scatter

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [(1.0, 1.5), (2.0, 2.0), (4.0, 3.0)]
TITLES = ("measured, ms", "predicted & bounded, ms", "3 <networks>")


def test_an_svg_holds_every_point_at_its_place_and_its_titles(tmp_path: Path) -> None:
    write_scatter(tmp_path / "plot.svg", POINTS, *TITLES)
    drawn = ElementTree.parse(tmp_path / "plot.svg").getroot()
    (points,) = (group for group in drawn.iter(f"{SVG}g") if group.get("id") == "points")
    places = [(float(use.get("x", 0)), float(use.get("y", 0))) for use in points.iter(f"{SVG}use")]
    assert len(places) == 3
    (x0, y0), (x1, y1), (x2, y2) = places
    # Both axes have one scale, and y counts from above.
    unit = x1 - x0
    assert unit > 0
    assert x2 - x1 == pytest.approx(2 * unit, abs=0.01)
    assert (y0 - y1, y1 - y2) == pytest.approx((0.5 * unit, unit), abs=0.01)
    texts = {text.text for text in drawn.iter(f"{SVG}text")}
    assert set(TITLES) <= texts
    assert any(group.get("id") == "equal" for group in drawn.iter(f"{SVG}g"))


def test_the_suffix_decides_the_format(tmp_path: Path) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")):
        write_scatter(tmp_path / f"plot{suffix}", POINTS, *TITLES)
        assert (tmp_path / f"plot{suffix}").read_bytes().startswith(magic)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (900, 900)
        blue = sum(count for count, (r, g, b) in picture.convert("RGB").getcolors(1 << 20) if b > r + 60 and b > g)
    assert blue > 100


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_points_give_the_same_bytes_in_any_process(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write_scatter(first, POINTS, *TITLES)
    code = (
        "import sys; from pathlib import Path; from cars_hw.report.plot_file import write_scatter\n"
        f"write_scatter(Path(sys.argv[1]), {POINTS!r}, *{TITLES!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(second)], check=True)
    assert first.read_bytes() == second.read_bytes()


def test_one_point_has_room_around_it(tmp_path: Path) -> None:
    write_scatter(tmp_path / "plot.svg", [(0.0, 0.0)], *TITLES)
    assert "NaN" not in (tmp_path / "plot.svg").read_text()
