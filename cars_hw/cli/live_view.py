"""The view of a running search: live in a terminal, plain lines elsewhere."""

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
from cars_hw.cli.search_status import Best, Dot, SearchStatus, Snapshot, best_of
from cars_hw.cli.text_plot import ASCII, UNICODE, Letters, plot, span, sparkline
from cars_hw.config.evaluated import shared_words, short_words
from cars_hw.config.units import format_seconds
from cars_hw.formatting import accuracy_text, figure, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.layout import Layout
    from rich.table import Table
    from rich.text import Text

    from cars_hw.evolution.objectives import CostObjective

FRAMES_A_SECOND = 2
"""How often the view is drawn; its clock shows seconds."""

PLOT_LEAST = 26
"""The columns that a plot needs beside the front."""


def search_view(status: SearchStatus, *, standalone: bool = True) -> LiveView | LinesView:
    """Return the view for standard error: live in a terminal that can move its cursor, lines elsewhere.

    ``standalone``: this process is the only one of the search.
    """
    return LiveView(status, standalone=standalone) if is_screen() else LinesView(status)


class LinesView(Bars, SearchCallback):
    """Progress lines of :class:`cars_hw.cli.progress_bars.Bars`, and one line per generation."""

    def __init__(self, status: SearchStatus) -> None:
        super().__init__()
        self._status = status

    def __enter__(self) -> LinesView:
        return self

    def on_note(self, text: str) -> None:
        """Print a line on the images."""
        self.log(text)

    def on_final_stage(self, text: str) -> None:
        """Print a line on the final stage."""
        self.log(text)

    def on_time(self, text: str) -> None:
        """Print a line on the time."""
        self.log(text)

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Print the last generation of the earlier process."""
        self.log(f"resumes after {generation_line(history[-1], self._status)}")

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Print the generation's figures."""
        self.log(generation_line(record, self._status))


def generation_line(record: Mapping[str, Any], status: SearchStatus) -> str:
    """Return one line about a generation: the best network with its costs, and the hypervolume."""
    best = best_of(record, status.objectives)
    costs = "; ".join(_cost_text(best, index, one) for index, one in enumerate(status.objectives))
    return (
        f"generation {record['generation']}/{status.generations}: best {_named(status)} {_share(status, best)} "
        f"{shared_words(status.classifier)} ({costs}), hypervolume {record['hypervolume']:.4f}"
    )


def _named(status: SearchStatus) -> str:
    """Return the words for what the search maximises."""
    return status.objective.replace("-", " ")


def _share(status: SearchStatus, best: Best) -> str:
    """Return the accuracy of ``best`` with its interval and its images: ``80% (49 to 94) of 10 images``."""
    text = accuracy_text(best.accuracy, best.counts.interval(status.objective))
    return f"{text} of {best.counts.total:,} images"


class LiveView(SearchCallback):
    """The search on the alternate screen of the terminal, which leaves the main screen as it was.

    A thread draws the view from the collected reports, so that reporting never waits for the terminal.
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
        # The view keeps the stream of now: sys.stderr is replaced while the view is shown.
        self._console = Console(file=sys.stderr)
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
        # SIGTERM would leave the alternate screen on, so that it is handled as Ctrl-C is. One of several processes
        # has to end at once: it may be waiting for the others, where no handler runs.
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
        """Show that ``done`` of ``total`` steps of ``stage`` are done."""
        with self._lock:
            self._status.update(stage, done, total, self._clock())

    def log(self, line: str) -> None:
        """Show the message ``line``, and print it again when the view ends."""
        with self._lock:
            self._logged.append(line)
            self._status.log(line)

    def on_note(self, text: str) -> None:
        """Show a line on the images."""
        self.log(text)

    def on_final_stage(self, text: str) -> None:
        """Show a line on the final stage."""
        self.log(text)

    def on_time(self, text: str) -> None:
        """Show a line on the time."""
        self.log(text)

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show the generations of the earlier process."""
        with self._lock:
            self._status.add(*history)

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Show the generation."""
        with self._lock:
            self._status.add(record)

    def _draw(self) -> Layout:
        with self._lock:
            return draw(self._console, self._status, self._clock())


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


class _Lines(io.TextIOBase):
    """A stream that turns lines into messages, so that a printed warning does not disturb the view."""

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
    """Return the lines that stay in the terminal when the view has ended."""
    if status.last is None:
        return []
    last, took = status.last, format_seconds(round(now - status.begun))
    return [
        f"generation {last.generation}/{status.generations} after {took}: best {_named(status)} "
        f"{_share(status, last.best)} {shared_words(status.classifier)}, hypervolume {last.hypervolume:.4f}"
    ]


def draw(console: Console, status: SearchStatus, now: float) -> Layout:
    """Return the view at the time ``now``, for the size and the letters of ``console``.

    In a small terminal the front is shortened first, and then the messages are left out.
    """
    from rich.console import Group
    from rich.layout import Layout
    from rich.text import Text

    width, height = console.size
    letters = ASCII if console.options.ascii_only else UNICODE
    head: list[RenderableType] = [
        _title(status, now),
        _stage(status),
        *_best(status),
        *_hypervolume(status, width, letters),
    ]
    room = height - len(head) - 1
    logged = list(status.messages)[-min(3, room - 5) :] if room > 5 else []
    messages = [Text(printable(line), "dim", no_wrap=True, overflow="ellipsis") for line in logged]
    room -= len(messages) + bool(messages)
    front = Layout(Group())
    if status.last is not None and room >= 3:
        front = _front(console, status, status.last, room, letters)
    layout = Layout()
    layout.split_column(
        Layout(Group(*head), size=len(head) + 1),
        front,
        Layout(Group(Text(), *messages), size=len(messages) + 1, visible=bool(messages)),
    )
    return layout


def _title(status: SearchStatus, now: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    time_text = format_seconds(round(now - status.begun)) + " elapsed"
    left = status.left(now)
    if left is not None:
        time_text += f", {'more than' if left.at_least else 'about'} {format_seconds(round(left.seconds))} left"
    # The user knows the title, and not the time: the title is shortened.
    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(style="bold", no_wrap=True, ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(Text(printable(status.title)), time_text)
    return line


def _stage(status: SearchStatus) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(
        status.doing,
        ProgressBar(1.0, status.share, complete_style="cyan", finished_style="cyan"),
    )
    return line


def _best(status: SearchStatus) -> list[Text]:
    """Return the best network: a line for its accuracy, and one for each cost."""
    from rich.text import Text

    if status.last is None:
        return []
    best = status.last.best
    limited = any(one.limit is not None for one in status.objectives)
    name = "best within the budget" if limited else "best"
    if status.objective != "accuracy":
        name += f" by {_named(status)}"
    share = percent(best.accuracy)
    accuracy = Text(f"{name}: ", no_wrap=True).append(share, "bold green")
    accuracy.append(f"{_share(status, best).removeprefix(share)}, {short_words(status.classifier)}")
    costs = [Text(f"  {_cost_text(best, index, one)}", no_wrap=True) for index, one in enumerate(status.objectives)]
    return [accuracy, *costs]


def _cost_text(best: Best, index: int, objective: CostObjective) -> str:
    # The name after a figure: 0.3 ms on ort, 40,000 parameters.
    text = f"{cost_text(best.costs[index], objective)} {objective.name.removeprefix('latency ')}"
    upper = best.uppers[index]
    if upper is None or objective.limit is None:
        return text
    return f"{text}, at most {cost_text(upper, objective)}, budget {cost_text(objective.limit, objective)}"


def cost_text(value: float, objective: CostObjective) -> str:
    """Return a cost of ``objective`` as the front is printed: milliseconds, a count, or a figure with its unit."""
    if objective.unit == "M":
        return f"{round(1e6 * value):,}"
    return milliseconds(value) if objective.unit == "ms" else f"{figure(value)} {objective.unit}"


def _hypervolume(status: SearchStatus, width: int, letters: Letters) -> list[Text]:
    from rich.text import Text

    if not status.hypervolumes:
        return []
    last = f"hypervolume {status.hypervolumes[-1]:.4f}  "
    first = f"  from {status.hypervolumes[0]:.4f}" if len(status.hypervolumes) > 1 else ""
    drawn = sparkline(status.hypervolumes, max(1, width - len(last) - len(first)), letters)
    return [Text(last, no_wrap=True).append(drawn, "cyan").append(first, "dim")]


def _front(console: Console, status: SearchStatus, last: Snapshot, height: int, letters: Letters) -> Layout:
    """Return the front as a table of ``height`` lines, with a plot beside it where there is room."""
    from rich.layout import Layout
    from rich.measure import Measurement

    table = _table(last.front, status.objectives, height)
    beside = console.width - Measurement.get(console, console.options, table).maximum - 3
    if beside < PLOT_LEAST or height < 5:
        return Layout(table)
    front = Layout()
    front.split_row(Layout(table), Layout(_plot(status.objectives[0], last, beside, height, letters), size=beside))
    return front


def _table(front: Sequence[Dot], objectives: Sequence[CostObjective], height: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    rows, missing = _chosen(front, height - 1)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", caption_justify="left")
    for name in ("accuracy", *(one.name for one in objectives)):
        heading = printable(name if len(name) <= 18 else f"{name[:15]}...")
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for dot in rows:
        costs = (cost_text(cost, one) for cost, one in zip(dot.costs, objectives, strict=True))
        table.add_row(percent(dot.accuracy), *costs)
    if missing:
        table.caption = f"and {missing} between them"
    return table


def _chosen(front: Sequence[Dot], room: int) -> tuple[list[Dot], int]:
    """Return at most ``room`` of ``front``, evenly spread with both ends, and how many are left out."""
    if len(front) <= room:
        return list(front), 0
    # The last row tells how many are left out.
    count = max(1, room - 1)
    steps = [index * (len(front) - 1) / max(1, count - 1) for index in range(count)]
    return [front[round(step)] for step in steps], len(front) - count


def _plot(objective: CostObjective, last: Snapshot, width: int, height: int, letters: Letters) -> Text:
    """Return accuracy over the first cost: the front, the rest of the population, the budget."""
    from rich.text import Text

    front = [(dot.costs[0], dot.accuracy) for dot in last.front]
    population = [(dot.costs[0], dot.accuracy) for dot in last.population]
    (left, right), (low, high) = span(front, population, objective.limit)
    labels = {0: percent(high), height - 3: percent(low)}
    margin = max(map(len, labels.values())) + 1
    text = Text(no_wrap=True)
    for number, line in enumerate(plot(front, population, objective.limit, width - margin, height - 1, letters)):
        text.append(f"{labels.get(number, ''):>{margin - 1}} ", "dim").append(f"{line}\n")
    # The limit is at the right end: the upper bounds keep to it, and are above the predictions in the plot.
    ends = f"budget {cost_text(right, objective)}" if objective.limit == right else cost_text(right, objective)
    start = cost_text(left, objective)
    return text.append(f"{'':{margin}}{start}{ends:>{max(width - margin - len(start), len(ends) + 1)}}", "dim")
