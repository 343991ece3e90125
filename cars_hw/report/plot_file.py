"""Plots in files of their own, drawn by matplotlib. The charts of the HTML report are in ``plot.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cars_hw.config.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".png", ".svg", ".pdf")
"""Suffixes of the files that can be written."""

UNDATED: Final = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata without what differs from one day to the next."""


def write_scatter(
    path: Path, points: Sequence[tuple[float, float]], x_title: str, y_title: str, title: str
) -> None:
    """Draw ``points`` (x, y) on two axes of one scale with the line x = y, and write the picture to ``path``.

    The suffix of ``path``, one of :data:`FORMATS`, decides the format. The same points give the same bytes.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the extra ``plot`` brings it.
        KeyError: another suffix.
    """
    values = [value for point in points for value in point]
    margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    limits = (min(values) - margin, max(values) + margin)

    def draw(axes: Axes) -> None:
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.plot(limits, limits, color="tab:red", linestyle="--", linewidth=1, gid="equal")

    _write(path, points, x_title, y_title, title, draw)


def write_points(path: Path, points: Sequence[tuple[float, float]], x_title: str, y_title: str, title: str) -> None:
    """Draw ``points`` (x, y) on axes of their own scales, and write the picture to ``path``.

    Raises:
        see :func:`write_scatter`.
    """
    _write(path, points, x_title, y_title, title, lambda _axes: None)


def _write(  # noqa: PLR0917 -- as the functions above
    path: Path,
    points: Sequence[tuple[float, float]],
    x_title: str,
    y_title: str,
    title: str,
    draw: Callable[[Axes], None],
) -> None:
    # Not pyplot, which keeps its figures and may open windows.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    suffix = path.suffix.lower()
    # Letters stay letters in SVG, and the ids in it do not depend on the process.
    with rc_context({"svg.hashsalt": "cars-hw", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 6), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=x_title, ylabel=y_title)
        draw(axes)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.scatter([x for x, _ in points], [y for _, y in points], color="tab:blue", alpha=0.7, gid="points")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], dpi=150, metadata=UNDATED[suffix])
