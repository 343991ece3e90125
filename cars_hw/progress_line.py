"""Progress for callers from Python that did not ask for any: one line on standard error, where somebody watches it.

It is drawn in a terminal and in a notebook, and nowhere else: a script whose output goes to a file prints nothing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final, TextIO

from cars_hw.formatting import printable

SECONDS_BETWEEN_LINES: Final = 0.1


class ProgressLine:
    """Draws the stage that reported last over the one before; a finished stage keeps its line.

    An object is a :data:`cars_hw.progress.Progress`, and :meth:`log` is a :data:`cars_hw.progress.Log`.
    """

    def __init__(self) -> None:
        self._drawn = ""
        self._stage = ""
        self._time = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``stage`` are done."""
        stream = watched()
        if stream is None or not total:
            return
        now = time.monotonic()
        if done < total and stage == self._stage and now - self._time < SECONDS_BETWEEN_LINES:
            return
        self._stage, self._time = stage, now
        self._draw(stream, f"{printable(stage)}: {done}/{total}")
        if done >= total:
            self._end_line(stream)
            self._stage = ""

    def log(self, line: str) -> None:
        """Show a message on a line of its own."""
        stream = watched()
        if stream is not None:
            self._draw(stream, printable(line))
            self._end_line(stream)

    def _draw(self, stream: TextIO, text: str) -> None:
        # Spaces over what is left of a longer line: not every notebook knows the escape that erases it.
        stream.write(f"\r{text}{' ' * (len(self._drawn) - len(text))}")
        stream.flush()
        self._drawn = text

    def _end_line(self, stream: TextIO) -> None:
        stream.write("\n")
        stream.flush()
        self._drawn = ""


def watched() -> TextIO | None:
    """Return standard error if it is a terminal that can return to the beginning of a line, or a notebook."""
    # A process without a console has no streams.
    stream: TextIO | None = sys.stderr
    if stream is None:
        return None
    if _in_notebook():
        return stream
    is_terminal = stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    return stream if is_terminal else None


def _in_notebook() -> bool:
    # IPython's shell is there before a notebook's first cell; it is never imported for this question.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


show: Final = ProgressLine()
"""The default :data:`~cars_hw.progress.Progress` of the functions that people call."""
