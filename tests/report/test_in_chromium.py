"""The page where people open it: in a browser, from disk, by pointer and keyboard, on a telephone and on paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest
from chromium import ENTER, RIGHT, Chromium, chromium, missing

from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.page import write_report

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SHOWN = "return [...document.querySelectorAll('.network')].filter((n) => n.checkVisibility()).map((n) => n.id);"
HASH = "return location.hash;"
SELECTED = (
    "return [...new Set([...document.querySelectorAll('[data-network][aria-current=true]')]"
    ".map((one) => one.dataset.network))];"
)

NETWORKS = [f"net-{n:02d}" for n in range(1, 6)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as window:
        yield window


@pytest.fixture(scope="module")
def address(run: RunFolder) -> str:
    return write_report(run).as_uri()


@pytest.fixture
def window(browser: Chromium, address: str) -> Iterator[Chromium]:
    """The page at the width of a desk; whatever a test does, no error must come of it, and no request."""
    browser.look(1280)
    browser.open("about:blank")
    browser.errors()
    browser.requests()
    browser.open(address)
    yield browser
    assert browser.errors() == []
    assert {url.partition("#")[0] for url in browser.requests()} <= {address, "about:blank"}


def test_it_opens_with_the_answer_selected(window: Chromium) -> None:
    assert window.run(SHOWN) == ["net-05"]
    assert window.run(SELECTED) == ["net-05"]
    assert window.run("return document.readyState") == "complete"


@pytest.mark.parametrize("name", ["net-01", "net-04"])
def test_a_click_on_a_point_selects_its_network(window: Chromium, name: str) -> None:
    window.click(f".front .point[data-network='{name}'] .ring")
    assert window.run(SHOWN) == [name]
    assert window.run(HASH) == f"#{name}"
    assert window.run(SELECTED) == [name]
    assert window.run("return document.getElementById('told').textContent").startswith(f"Selected: {name}: ")


def test_the_keyboard_does_what_the_pointer_does(window: Chromium) -> None:
    focus = "[...document.querySelectorAll('.wide .point')].find((p) => p.dataset.network === 'net-02').focus();"
    window.run(focus)
    window.press(ENTER)
    assert window.run(SHOWN) == ["net-02"]
    window.press(RIGHT)
    assert window.run(SHOWN) == ["net-03"]
    assert window.run("return document.activeElement.dataset.network") == "net-03"
    assert window.run("return getComputedStyle(document.activeElement.querySelector('.halo')).stroke") != "none"
    window.press(RIGHT)
    assert window.run(HASH) == "#net-04"


def test_a_link_to_a_network_opens_with_it(window: Chromium, address: str) -> None:
    window.open("about:blank")
    window.open(f"{address}#net-04")
    assert window.run(SHOWN) == ["net-04"]


def test_the_slider_leaves_one_generation_and_what_came_before_it(window: Chromium) -> None:
    window.run(
        "const slider = document.querySelector('.slider input'); slider.value = 1;"
        "slider.dispatchEvent(new Event('input'));"
    )
    drawn = (
        "return [...document.querySelectorAll('.wide .generation')].map((p) => Number(p.getAttribute('opacity')));"
    )
    first, second, third = window.run(drawn)
    assert 0 < first < second
    assert third == 0
    assert "2 of 3" in window.run("return document.querySelector('.slider output').textContent")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 320, 768, 1280])
def test_nothing_is_wider_than_the_screen(window: Chromium, address: str, width: int, dark: bool) -> None:
    window.look(width, dark=dark, phone=width < 500)
    window.open(address)
    assert window.run("return document.documentElement.scrollWidth") <= width
    shown = window.run(
        "return [...document.querySelectorAll('.front svg[role=group]')].filter((s) => s.checkVisibility()).length"
    )
    assert shown == 1


def test_a_tap_beside_a_point_selects_the_nearest(window: Chromium, address: str) -> None:
    window.look(390, phone=True)
    window.open(address)
    window.click(".front .narrow .point[data-network='net-01'] .disc")
    assert window.run(SHOWN) == ["net-01"]


def test_without_a_script_all_is_there_to_be_read(window: Chromium, address: str) -> None:
    window.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.open("about:blank")
        window.open(address)
        window.devtools("Emulation.setScriptExecutionDisabled", value=False)
        assert window.run("return document.documentElement.className") == ""
        assert window.run(SHOWN) == NETWORKS
        assert window.run("return document.documentElement.scrollWidth") <= 1280
    finally:
        window.devtools("Emulation.setScriptExecutionDisabled", value=False)


PAPER = {"A4": (8.27, 11.69), "Letter": (8.5, 11.0)}
"""Width and height in inches; a CSS pixel is a 96th of one."""

MARGINS = 28 / 25.4, 26 / 25.4
"""What the style sheet leaves free, both sides together."""

TOO_LARGE = """
const [width, height] = arguments;
const parts = '.network, figure, table, pre, .tiles, .facts, .bars, svg';
return [...document.querySelectorAll(parts)].filter((e) => e.checkVisibility()).filter((e) => {
  const box = e.getBoundingClientRect();
  return box.left < 0 || box.right > width + 1 || box.height > height;
}).map((e) => `${e.tagName}.${e.className}`);
"""


def test_on_paper_every_network_is_printed(window: Chromium) -> None:
    window.devtools("Emulation.setEmulatedMedia", media="print")
    assert window.run(SHOWN) == NETWORKS
    for part in (".chips", ".slider", "header nav"):
        assert not window.run("return document.querySelector(arguments[0]).checkVisibility()", part)


@pytest.mark.parametrize("paper", PAPER)
def test_nothing_is_cut_off_or_torn_on_paper(window: Chromium, paper: str) -> None:
    width, height = (int(96 * (side - free)) for side, free in zip(PAPER[paper], MARGINS, strict=True))
    window.look(width)
    window.devtools("Emulation.setEmulatedMedia", media="print")
    assert window.run(TOO_LARGE, width, height) == []
    # A4 is as narrow as a small screen, and gets the drawings of a desk all the same.
    shown = "return document.querySelector(arguments[0]).checkVisibility()"
    drawn = [window.run(shown, f".front {kind}") for kind in (".wide", ".narrow")]
    assert drawn == [True, False]
    inches = dict(zip(("paperWidth", "paperHeight"), PAPER[paper], strict=True))
    printed = base64.b64decode(window.devtools("Page.printToPDF", **inches)["data"])
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert {tuple(round(float(side) / 72, 1) for side in box) for box in boxes} == {
        tuple(round(side, 1) for side in PAPER[paper])
    }
    # A page for each of five networks, one for their classes, and what comes before and after them.
    assert 8 <= len(re.findall(rb"/Type /Page\b", printed)) <= 12


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (colour) => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = rgb(colour).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (rgb(colour)[3] === 255) return colour;
  }
  return 'white';
};
const bad = [];
const check = (element, colour, least) => {
  const [a, b] = [light(colour), light(ground(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < least) bad.push(`${element.tagName}.${element.getAttribute('class')}: ${ratio.toFixed(2)}`);
};
const words = 'p, a, th, td, dt, dd, li, h1, h2, h3, h4, h5, code, summary, figcaption, button';
for (const e of document.querySelectorAll(words)) {
  if (e.checkVisibility() && e.textContent.trim() && !e.closest('svg')) check(e, getComputedStyle(e).color, 4.5);
}
for (const e of document.querySelectorAll('svg text')) {
  const inside = e.closest('.node, .state');
  if (e.checkVisibility() && !inside) check(e.closest('svg').parentElement, getComputedStyle(e).fill, 4.5);
}
for (const e of document.querySelectorAll('.segment')) {
  if (e.checkVisibility()) check(e.parentElement, getComputedStyle(e).backgroundColor, 3);
}
return [...new Set(bad)];
"""


@pytest.mark.parametrize("dark", [False, True])
def test_letters_and_bars_stand_out_from_what_is_behind_them(window: Chromium, dark: bool) -> None:
    window.look(1280, dark=dark)
    assert window.run(CONTRAST) == []
