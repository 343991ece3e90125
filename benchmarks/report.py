"""A run's report in a headless Chromium: its size, how long it takes to load, what it asks for, how it looks.

::

    .venv/bin/python benchmarks/report.py RUN [--pictures FOLDER] [--loads 5]

Writes the report of the run again, loads it, and prints. The pictures are of its beginning on a desk (1280 CSS
pixels, light and dark) and on a telephone (390); with ``--whole`` they are of the whole page.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chromium import Chromium, chromium, missing
from PIL import Image

from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.page import write_report

LOAD_MS = (
    "const [t] = performance.getEntriesByType('navigation');"
    "const paint = performance.getEntriesByName('first-contentful-paint')[0];"
    "return [t.loadEventEnd, paint ? paint.startTime : null];"
)

LOOKS = {
    "report-1280": (1280, 1560, False, ""),
    "report-1280-dark": (1280, 1560, True, ""),
    "report-390": (390, 1560, False, ""),
    "report-network": (1280, 1560, False, "#networks"),
    "report-population": (1280, 1560, False, "#population"),
}
"""For each picture the screen's width and height, whether it is dark, and the part of the page if it is not all."""


def load(window: Chromium, url: str) -> tuple[float, float | None]:
    """Return after how many milliseconds the page had loaded, and when its first content was painted."""
    window.open("about:blank")
    window.open(url)
    loaded, painted = window.run(LOAD_MS)
    return loaded, painted


def save(path: Path, picture: bytes) -> None:
    """Write ``picture`` to ``path`` with as few colours as a page needs: a third of the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--loads", type=int, default=5)
    arguments = parser.parse_args()
    if missing():
        sys.exit(missing())
    path = write_report(RunFolder.open(arguments.run)).resolve()
    print(f"size: {path.stat().st_size / 1e6:.3f} MB")
    with chromium() as window:
        window.look(1280)
        times = [load(window, path.as_uri()) for _ in range(arguments.loads)]
        loads, paints = [one[0] for one in times], [one[1] for one in times if one[1] is not None]
        print(f"loaded: {statistics.median(loads):.0f} ms (median of {len(loads)}; most {max(loads):.0f} ms)")
        print(f"first content: {statistics.median(paints):.0f} ms" if paints else "first content: not told")
        asked = [url for url in window.requests() if not url.startswith(("about:", path.as_uri()))]
        print(f"requests beside the file: {len(asked)} {asked}")
        print(f"console: {window.errors()}")
        for name, (width, height, dark, part) in LOOKS.items():
            window.look(width, height, dark=dark, phone=width < 500)
            load(window, path.as_uri())
            scrolled = window.run("return document.documentElement.scrollWidth")
            print(f"{name}: {scrolled} pixels wide where there are {width}")
            if arguments.pictures:
                shown = "html" if arguments.whole and not part else part
                save(arguments.pictures / f"{name}.png", window.picture(shown))


if __name__ == "__main__":
    main()
