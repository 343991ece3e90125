"""A search as it is seen in a terminal while it runs, and as plain lines elsewhere."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from cars_hw.callbacks import SearchCallback
from cars_hw.cli.options import milliseconds, percent
from cars_hw.cli.progress_bars import Bars, is_screen
from cars_hw.cli.search_status import Best, Dot, SearchStatus, best_of
from cars_hw.cli.text_plot import ASCII, UNICODE, Letters, bar, plot, span, sparkline
from cars_hw.config.units import format_seconds

if TYPE_CHECKING:
    from rich.text import Text

    from cars_hw.evolution.objectives import CostObjective

FRAMES_A_SECOND = 2
"""How often the view is drawn: a clock needs no more, and the search none of it."""

FRONT_ROWS = 12
PLOT_LEAST = 26
"""Rows of the front at most, and the columns that a plot needs beside it."""


def search_view(status: SearchStatus, *, standalone: bool = True) -> LiveView | LinesView:
    """Return the view for standard error: live in a terminal that can move its cursor, lines elsewhere.

    ``standalone``: there are no other processes of this search.
    """
    return LiveView(status, standalone=standalone) if is_screen() else LinesView(status)


class LinesView(Bars, SearchCallback):
    """Progress as :class:`cars_hw.cli.progress_bars.Bars` shows it, and a line a generation."""

    def __init__(self, status: SearchStatus) -> None:
        super().__init__()
        self._status = status

    def __enter__(self) -> LinesView:
        return self

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Print the last generation of the earlier process."""
        self.log(f"resumes after {generation_line(history[-1], self._status)}")

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Print the generation's figures."""
        self.log(generation_line(record, self._status))


def generation_line(record: Mapping[str, Any], status: SearchStatus) -> str:
    """Return a generation in a line: the best network with its costs, and the hypervolume."""
    best = best_of(record, status.objectives)
    costs = "; ".join(_cost_text(best, index, one) for index, one in enumerate(status.objectives))
    return (
        f"generation {record['generation']}/{status.generations}: best accuracy {percent(best.accuracy)} under "
        f"shared weights ({costs}), hypervolume {record['hypervolume']:.4f}"
    )


class LiveView(SearchCallback):
    """The search on the terminal's second screen, so that what was there before is there again afterwards.

    It is drawn by a thread of its own, from what it was told; whoever tells it waits for nothing.
    """

    def __init__(
        self, status: SearchStatus, *, standalone: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._status = status
        self._clock = clock
        self._standalone = standalone
        self._lock = threading.Lock()
        # The true stream: sys.stderr is another while the view is shown.
        self._console = Console(file=sys.stderr)
        self._letters = UNICODE if "utf" in self._console.encoding.lower() else ASCII
        self._live = Live(
            console=self._console,
            screen=True,
            refresh_per_second=FRAMES_A_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._draw,
        )
        self._logged: list[str] = []
        self._stderr = sys.stderr
        self._terminated: Any = None

    def __enter__(self) -> LiveView:
        # A plain kill would leave the second screen behind; it unwinds as Ctrl-C does. Of several processes each
        # has to end at once, and one that waits for the others would not come to it.
        if self._standalone and threading.current_thread() is threading.main_thread():
            self._terminated = signal.signal(signal.SIGTERM, _end)
        self._stderr = sys.stderr
        sys.stderr = _Lines(self.log)
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        sys.stderr = self._stderr
        if self._terminated is not None:
            signal.signal(signal.SIGTERM, self._terminated)
        for line in [*self._logged, *closing_lines(self._status, self._clock())]:
            print(line, file=self._stderr)

    def update(self, stage: str, done: int, total: int) -> None:
        """Hear that ``done`` of ``total`` steps of ``stage`` are done."""
        with self._lock:
            self._status.update(stage, done, total, self._clock())

    def log(self, line: str) -> None:
        """Show ``line`` among the last messages, and leave it in the terminal when the view ends."""
        with self._lock:
            self._logged.append(line)
            self._status.log(line)

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show the generations of the earlier process."""
        with self._lock:
            self._status.add(*history)

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Show the generation."""
        with self._lock:
            self._status.add(record)

    def _draw(self) -> Text:
        from rich.text import Text

        width, height = self._console.size
        with self._lock:
            lines = draw(self._status, self._clock(), width, height, self._letters)
        return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


class _Lines(io.TextIOBase):
    """A stream whose lines are messages: a warning that anybody prints must not tear the view."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)

    def writable(self) -> bool:
        return True


def closing_lines(status: SearchStatus, now: float) -> list[str]:
    """Return what stays in the terminal when the view has ended."""
    if status.last is None:
        return []
    last, took = status.last, format_seconds(round(now - status.begun))
    return [
        f"generation {last.generation}/{status.generations} after {took}: best "
        f"accuracy {percent(last.best.accuracy)} under shared weights, hypervolume {last.hypervolume:.4f}"
    ]


def draw(status: SearchStatus, now: float, width: int, height: int, letters: Letters = UNICODE) -> list[Text]:
    """Return the view at the time ``now``: at most ``height`` lines of at most ``width`` letters.

    Where there is little room, the front is shortened first and messages go next.
    """
    head = [*_head(status, now, width, letters), *_best(status), *_volume(status, width, letters)]
    room = height - len(head)
    messages = list(status.messages)[-min(3, max(0, room - 6)) :] if room > 6 and status.messages else []
    if messages:
        room -= len(messages) + 1
    front = _front(status, width, min(room - 1, FRONT_ROWS + 1), letters) if room >= 5 else []
    lines = head
    if front:
        lines = [*lines, _text(""), *front]
    if messages:
        lines = [*lines, _text(""), *(_text(line, "dim") for line in messages)]
    for line in lines:
        line.truncate(width)
    return lines[:height]


def _text(words: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(words, style=style, no_wrap=True)


def _head(status: SearchStatus, now: float, width: int, letters: Letters) -> list[Text]:
    took = format_seconds(round(now - status.begun)) + " gone"
    left = status.left(now)
    if left is not None:
        took += f", {'more than' if left.at_least else 'about'} {format_seconds(round(left.seconds))} left"
    # What was asked for is known to who asked; the time is not.
    title = _text(status.title, "bold")
    title.truncate(max(0, width - len(took) - 2), overflow="ellipsis", pad=True)
    title.append(f"  {took}", "none")
    doing = _text(status.doing)
    done, rest = bar(status.share, max(0, width - len(doing) - 2), letters)
    return [title, doing.append("  ").append(done, "cyan").append(rest, "dim")]


def _best(status: SearchStatus) -> list[Text]:
    """Return the best network: a line for its accuracy with its first cost, and one for each further cost."""
    if status.last is None:
        return []
    best = status.last.best
    limited = any(one.limit is not None for one in status.objectives)
    name = "best under the budget" if limited else "best"
    line = _text(f"{name}: ").append(percent(best.accuracy), "bold green").append(" under shared weights")
    costs = [_text(f"  {_cost_text(best, index, one)}") for index, one in enumerate(status.objectives)]
    return [line, *costs]


def _cost_text(best: Best, index: int, objective: CostObjective) -> str:
    words = f"{cost_text(best.costs[index], objective)} {_short(objective)}"
    upper = best.uppers[index]
    if upper is None or objective.limit is None:
        return words
    return f"{words}, at most {cost_text(upper, objective)}, budget {cost_text(objective.limit, objective)}"


def cost_text(value: float, objective: CostObjective) -> str:
    """Return a cost of ``objective`` as the front is printed: milliseconds, or a count."""
    return milliseconds(value) if objective.unit == "ms" else f"{round(1e6 * value):,}"


def _short(objective: CostObjective) -> str:
    """Return the objective's name after a figure: 0.3 ms on ort, 40,000 parameters."""
    return objective.name.removeprefix("latency ")


def _volume(status: SearchStatus, width: int, letters: Letters) -> list[Text]:
    if not status.hypervolumes:
        return []
    words = f"hypervolume {status.hypervolumes[-1]:.4f}  "
    since = f"  from {status.hypervolumes[0]:.4f}" if len(status.hypervolumes) > 1 else ""
    drawn = sparkline(status.hypervolumes, max(1, width - len(words) - len(since)), letters)
    return [_text(words).append(drawn, "cyan").append(since, "dim")]


def _front(status: SearchStatus, width: int, height: int, letters: Letters) -> list[Text]:
    """Return the front as a table of ``height`` lines at most, and as a plot beside it where there is room."""
    if status.last is None or height < 3:
        return []
    table = _table(status.last.front, status.objectives, height)
    wide = max(map(len, table))
    beside = width - wide - 3
    if beside < PLOT_LEAST or height < 5:
        return table
    drawn = _plot(status, min(beside, 72), height, letters)
    lines = []
    for number, line in enumerate(drawn):
        row = table[number] if number < len(table) else _text("")
        row.pad_right(wide + 3 - len(row))
        lines.append(row.append_text(line))
    return lines


def _table(front: Sequence[Dot], objectives: Sequence[CostObjective], height: int) -> list[Text]:
    rows, missing = _chosen(front, height - 1)
    titles = ["accuracy", *(_column(one) for one in objectives)]
    cells = [
        [percent(dot.accuracy), *(cost_text(cost, one) for cost, one in zip(dot.costs, objectives, strict=True))]
        for dot in rows
    ]
    wide = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = ["   ".join(cell.rjust(size) for cell, size in zip(row, wide, strict=True)) for row in [titles, *cells]]
    texts = [_text(lines[0], "bold"), *map(_text, lines[1:])]
    return [*texts, _text(f"and {missing} between them", "dim")] if missing else texts


def _column(objective: CostObjective) -> str:
    return objective.name if len(objective.name) <= 18 else f"{objective.name[:15]}..."


def _chosen(front: Sequence[Dot], room: int) -> tuple[list[Dot], int]:
    """Return as many of ``front`` as ``room`` holds, evenly spread with both ends, and how many are left out."""
    if len(front) <= room:
        return list(front), 0
    # The last row says how many are not shown.
    count = max(1, room - 1)
    steps = [index * (len(front) - 1) / max(1, count - 1) for index in range(count)]
    return [front[round(step)] for step in steps], len(front) - count


def _plot(status: SearchStatus, width: int, height: int, letters: Letters) -> list[Text]:
    """Return accuracy over the first cost: the front, the rest of the population, the budget."""
    assert status.last is not None
    objective = status.objectives[0]
    front = [(dot.costs[0], dot.accuracy) for dot in status.last.front]
    others = [(dot.costs[0], dot.accuracy) for dot in status.last.population]
    (left, right), (low, high) = span(front, others, objective.limit)
    labels = {0: percent(high), height - 3: percent(low)}
    margin = max(map(len, labels.values()))
    drawn = plot(front, others, objective.limit, width - margin - 1, height - 1, letters)
    lines = [
        _text(labels.get(number, "").rjust(margin) + " ", "dim").append(line, "none")
        for number, line in enumerate(drawn)
    ]
    ends = cost_text(left, objective), cost_text(right, objective)
    # The limit is at the right end: bounds, which keep to it, are above what is drawn.
    ends = (ends[0], f"budget {ends[1]}" if objective.limit == right else ends[1])
    gap = width - margin - 1 - len(ends[0]) - len(ends[1])
    return [*lines, _text(" " * (margin + 1) + ends[0] + " " * max(1, gap) + ends[1], "dim")]
