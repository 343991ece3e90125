"""Progress on standard error: bars in a terminal, a line every 15 seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

import click

from cars_hw.cli.verbosity import is_quiet, is_verbose
from cars_hw.config.units import format_seconds
from cars_hw.formatting import printable

SECONDS_BETWEEN_LINES = 15.0

MOST_BARS = 12
"""With more bars than this, finished ones are hidden: a small terminal has 24 lines."""


def is_screen() -> bool:
    """Return whether progress is drawn: standard error can move its cursor, and shows no debug lines."""
    if is_quiet() or is_verbose():
        return False
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


class Bars:
    """Shows each stage as a bar or in lines; a context manager.

    :meth:`update` is a :data:`cars_hw.progress.Progress`, and :meth:`log` a :data:`cars_hw.progress.Log`.
    """

    def __init__(self) -> None:
        self._bars: _RichBars | _Lines = _RichBars() if is_screen() else _Lines(is_quiet())

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``stage`` are done."""
        self._bars.update(stage, done, total)

    def log(self, line: str) -> None:
        """Print a message above the bars."""
        self._bars.log(line)


class _RichBars:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, object] = {}
        self._progress.start()

    def update(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total)
        shown = done < total or len(self._tasks) <= MOST_BARS
        self._progress.update(
            self._tasks[stage],  # type: ignore[arg-type]  # rich's id is an int
            completed=done,
            total=total,
            visible=shown,
        )

    def log(self, line: str) -> None:
        self._progress.console.print(printable(line), highlight=False, markup=False)

    def stop(self) -> None:
        self._progress.stop()


class _Lines:
    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._started: dict[str, tuple[float, int]] = {}
        self._printed: dict[str, float] = {}
        self._finished: set[str] = set()

    def update(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun, before = self._started.setdefault(stage, (now, done))
        ends = done >= total and stage not in self._finished
        if not ends and (stage in self._finished or now - self._printed.get(stage, 0.0) < SECONDS_BETWEEN_LINES):
            return
        if ends:
            self._finished.add(stage)
        self._printed[stage] = now
        line = f"{stage}: {done}/{total} after {now - begun:.0f} s"
        # Steps of an earlier process took no time of this one.
        if before < done < total:
            line += f", about {format_seconds((now - begun) * (total - done) / (done - before))} left"
        self.log(line)

    def log(self, line: str) -> None:
        if not self._quiet:
            click.echo(printable(line), err=True)

    def stop(self) -> None:
        pass
