"""What several commands share: option types, the network's options, and printing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from cars_hw.cli.completion import complete_genotypes, complete_states
from cars_hw.cli.hints import message_of
from cars_hw.cli.verbosity import count_as_unreliable, warn_of_quality
from cars_hw.config.measurement import require_state
from cars_hw.config.units import in_milliseconds, parse_latency, parse_memory, parse_span
from cars_hw.errors import CarsHwError, TableError
from cars_hw.formatting import accuracy_text, printable
from cars_hw.significance import interval_of
from cars_hw.space.genotype import Genotype
from cars_hw.space.zoo import resolve_genotype

if TYPE_CHECKING:
    from rich.table import Table

    from cars_hw.devices import Device
    from cars_hw.latency import LatencyTable
    from cars_hw.measurement.states import Machine
    from cars_hw.measurement.sustained import Sustained
    from cars_hw.pipeline.run_folder import RunFolder

Command = TypeVar("Command", bound=Callable[..., Any])


MAX_DRIFT = 0.05
"""A reference network whose latency changed by more than this fraction shows another state of the machine."""


class Named(NamedTuple):
    """A genotype and what to call it in print."""

    name: str
    genotype: Genotype


if TYPE_CHECKING:
    ParamType = click.ParamType
else:
    # In click before 8.4 the class cannot be subscripted with the type of the values.
    class ParamType(click.ParamType):
        """A type of options."""

        def __class_getitem__(cls, _value: object) -> type[click.ParamType]:
            """Return the type itself."""
            return cls


class GenotypeType(ParamType[Named]):
    """A genotype by name, file or text."""

    name = "GENOTYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Named:  # noqa: ANN401 -- click's
        """Return the genotype that ``value`` says, called as the user called it."""
        if isinstance(value, Named):
            return value
        try:
            genotype = resolve_genotype(value)
        except CarsHwError as error:
            self.fail(message_of(error), param, ctx)
        is_text = value.lstrip().startswith(("{", "Genotype"))
        return Named("genotype" if is_text else Path(value).stem, genotype)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the published genotypes' names, and let the shell complete files."""
        return complete_genotypes(ctx, param, incomplete)


class LatencyType(ParamType[float]):
    """A latency with its unit, as milliseconds."""

    name = "LATENCY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's
        """Return the milliseconds that ``value`` says."""
        if isinstance(value, float):
            return value
        try:
            return parse_latency(value)
        except CarsHwError as error:
            self.fail(message_of(error), param, ctx)


class SpanType(ParamType[float]):
    """A span of time with its units, as seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's
        """Return the seconds that ``value`` says."""
        if isinstance(value, float):
            return value
        try:
            return parse_span(value)
        except CarsHwError as error:
            self.fail(message_of(error), param, ctx)


class MemoryType(ParamType[int]):
    """A size of memory with its unit, as bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 -- click's
        """Return the bytes that ``value`` says."""
        if isinstance(value, int):
            return value
        try:
            return parse_memory(value)
        except CarsHwError as error:
            self.fail(message_of(error), param, ctx)


class StateType(ParamType[str]):
    """A state of a machine: quiet, usual, sustained, or a quantile over the time."""

    name = "STATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 -- click's
        """Return ``value`` if it names a state."""
        try:
            require_state(value)
        except CarsHwError as error:
            self.fail(message_of(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the states that have names."""
        return complete_states(ctx, param, incomplete)


class ResolutionType(ParamType[tuple[int, int]]):
    """Height and width in pixels: 32 or 65x97."""

    name = "HxW"

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- click's own type
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Return the height and the width that ``value`` says."""
        if isinstance(value, tuple):
            return value
        sizes = value.lower().split("x")
        if len(sizes) > 2 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            self.fail(
                f"'{value}' is not a resolution; write one number, or height x width such as 65x97", param, ctx
            )
        return int(sizes[0]), int(sizes[-1])


class SizesType(ParamType[tuple[int, ...]]):
    """One number, a range such as 8..48, or several such as 8,12,16.

    A range has every ``step``-th number from its first on, and its last; 8..48:8 has a step of its own.
    """

    name = "SIZES"

    def __init__(self, step: int) -> None:
        self._step = step

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- click's own type
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        """Return the numbers that ``value`` says, in ascending order."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})\.\.(\d{1,5})(?::(\d{1,5}))?", value)
        if found is not None:
            first, last, step = int(found[1]), int(found[2]), int(found[3] or self._step)
            if step > 0 and first < last:
                return tuple(sorted({*range(first, last + 1, step), last}))
        elif re.fullmatch(r"\d{1,5}(,\d{1,5})*", value):
            return tuple(sorted(set(map(int, value.split(",")))))
        return self.fail(
            f"'{value}' says no sizes; write one number, a range such as 8..48, or several such as 8,12,16",
            param,
            ctx,
        )


class ResolutionsType(ParamType[tuple[tuple[int, int], ...]]):
    """One resolution, a range such as 16..32:4 of square ones, or several such as 16,24,32 or 48x64,96x128.

    A range has every fourth number from its first on, or those of its own step, and its last.
    """

    name = "RESOLUTIONS"

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- click's own type
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[tuple[int, int], ...]:
        """Return the heights and widths that ``value`` says, in ascending order."""
        if isinstance(value, tuple):
            return value
        if ".." in value:
            return tuple((side, side) for side in SizesType(step=4).convert(value, param, ctx))
        return tuple(sorted({RESOLUTION.convert(one, param, ctx) for one in value.split(",")}))


GENOTYPE = GenotypeType()
LATENCY = LatencyType()
MEMORY = MemoryType()
SPAN = SpanType()
STATE = StateType()
RESOLUTION = ResolutionType()
RESOLUTIONS = ResolutionsType()


class PictureType(ParamType[Path]):
    """A file that a picture is written to; its suffix decides the format."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ANN401 -- click's
        """Return the path, if its suffix is one of those that can be written."""
        from cars_hw.report.plot_file import FORMATS

        path = Path(value)
        if path.suffix.lower() not in FORMATS:
            self.fail(f"'{path}' must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", param, ctx)
        return path


FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
PICTURE = PictureType()

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output instead of a table."
)


def no_crop_option(help: str) -> Callable[[Command], Command]:
    """Return the option ``--no-crop``; what it changes are several settings."""
    return click.option("--no-crop", is_flag=True, help=help)


def _check_tensorboard(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> bool:
    if wanted:
        from cars_hw.pipeline.tensorboard import require_tensorboard

        require_tensorboard()
    return wanted


# Eager: a missing package is reported before the run or the data are opened.
tensorboard_option = click.option(
    "--tensorboard",
    is_flag=True,
    is_eager=True,
    callback=_check_tensorboard,
    help="Write figures for TensorBoard into RUN/tensorboard as well.",
)


def _check_trackers(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    if texts:
        from cars_hw.tracking.trackers import require_trackers

        require_trackers(texts)
    return tuple(dict.fromkeys(texts))


def track_option(what: str) -> Callable[[Command], Command]:
    """Return the option ``--track``; ``what`` says what is tracked."""
    return click.option(
        "--track",
        multiple=True,
        is_eager=True,
        callback=_check_trackers,
        metavar="TRACKER[:WHERE]",
        help=f"Also keep {what} with tensorboard, mlflow or wandb (offline), in files of this machine; "
        "WHERE is another folder, or for mlflow the address of a server. Repeatable.",
    )


def warn_of_noise(table: LatencyTable, path: Path) -> None:
    """Warn that ``table`` or its sustained state is unreliable, if it is."""
    told = table.device_warnings
    noise = [reason for reason in table.quality_warnings() if reason not in told]
    parts = []
    if noise:
        parts.append(
            f"the machine was too noisy when it was made: {'; '.join(noise)}. "
            "Stop other processes, and profile again."
        )
    if told:
        parts.append(
            f"{table.device} reported when it was made: {'; '.join(told)}. Change that, and profile again."
        )
    if parts:
        warn_of_quality(f"{path} is unreliable: {' '.join(parts)}")
    for text in table.sustained_warnings():
        warn_of_quality(f"{path}: {text}")


def warn_of_tables(run: RunFolder, device: str | None = None) -> None:
    """Warn of the tables of ``run`` that are unreliable or cannot be read; with ``device`` only of those of it."""
    for index, record in enumerate(run.configuration.targets):
        if device not in (None, record.device):
            continue
        try:
            warn_of_noise(run.target(index).table, run.table_path(index))
        except TableError as error:
            warn_of_quality(message_of(error))


def count_warnings_of(device: Device) -> tuple[str, ...]:
    """Return what ``device`` has warned of while it measured; with ``--strict`` it makes the command fail.

    The device has printed it already.
    """
    from cars_hw.devices import warnings_of

    found = warnings_of(device)
    for text in found:
        count_as_unreliable(f"{device.name}: {text}")
    return found


def print_sustained(device: str, loads: Mapping[str, Sustained], *, as_json: bool = False) -> None:
    """Print what networks take after minutes of load, by name, and warn of what is not settled."""
    for name, load in loads.items():
        for text in load.warnings():
            warn_of_quality(f"{name}: {text}")
    if as_json or not loads:
        return
    columns = ("network", "at first", "sustained, median run", "90% of runs", "slower by", "runs")
    rows = [
        (
            name,
            milliseconds(load.fresh_ms),
            milliseconds(load.p50_ms),
            milliseconds(load.p90_ms),
            percent(load.slowdown - 1),
            f"{load.runs:,}",
        )
        for name, load in loads.items()
    ]
    one = next(iter(loads.values()))
    print_table(f"After {one.load_s:.0f} s of load on {device}, over {one.window_s:.0f} s", columns, rows)
    if not all(load.exact for load in loads.values()):
        click.echo(
            "The tool on the device reports no percentiles: those of the sustained state are of the averages of "
            "sessions. A newer build of it reports them."
        )


def describe_states(machine: Machine) -> str:
    """Return a sentence on the states of a machine: their shares of the time and their factors."""
    slower = [f"{percent(one.share, 0)} at {one.factor:.2f} times the latency" for one in machine.states[1:]]
    states = ", ".join([f"{percent(machine.quiet_share, 0)} of the time in the quiet state", *slower])
    return (
        f"The machine was {states}. At the median moment a network takes {machine.usual_factor:.2f} times as long."
    )


def describe_sustained(table: LatencyTable) -> str | None:
    """Return a sentence on the sustained state of a table; None if it was not measured."""
    state = table.sustained
    if state is None:
        return None
    load = state.networks[0].sustained
    facts = f" ({state.facts()})" if state.facts() else ""
    return (
        f"After {load.load_s:.0f} s of load{facts}, the median run takes {state.p50_factor:.2f} times the quiet "
        f"latency, and 90% of runs take at most {state.p90_factor:.2f} times; {len(state.networks)} networks over "
        f"{load.window_s:.0f} s each. The sustained state is that of the 90%."
    )


def is_drift(drift: float | None) -> bool:
    """Return whether ``drift``, a fraction, is more than a machine in the same state has."""
    return drift is not None and abs(drift) > MAX_DRIFT


def warn_of_drift(device: str, drift: float | None) -> None:
    """Warn if the reference network takes longer or shorter than when the table was made: ``drift``, a fraction."""
    if drift is not None and is_drift(drift):
        changed = f"{percent(abs(drift))} {'slower' if drift > 0 else 'faster'}"
        first = "Stop other processes, and measure again with a longer --patience; if it stays slower, profile"
        warn_of_quality(
            f"the quiet state of {device} is {changed} than when the table was made: the reference network shows "
            f"it. {first if drift > 0 else 'Profile'} the device again."
        )


def warn_not_quiet(device: str, names: Sequence[str]) -> None:
    """Warn that the networks or models ``names``, if any, had no session in the quiet state of ``device``."""
    if names:
        were = "was" if len(names) == 1 else "were"
        warn_of_quality(
            f"{', '.join(names)} {were} never measured in the quiet state of {device}: the figures are derived "
            "from slower states. Stop other processes, and measure again with a longer --patience."
        )


def print_json(value: Any) -> None:  # noqa: ANN401 -- any record, or what json can hold
    """Print ``value`` as JSON on standard output: records, lists and objects of them.

    ``docs/reference/schemas`` has a schema of what each command prints.
    """
    from cars_hw.config.codec import unstructure

    click.echo(json_text(unstructure(value)))


def json_text(plain: Any) -> str:  # noqa: ANN401 -- whatever json can hold
    """Return the text of ``plain`` that :func:`print_json` prints."""
    return json.dumps(plain, indent=1, allow_nan=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    from rich.console import Console

    console = Console()
    # Into a file or a pipe a table is as wide as it is.
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table_of(title, columns, rows))


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return the table: where it is too wide for a terminal, titles are broken into lines, and cells are whole."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    shown = [[printable(cell) for cell in row] for row in rows]
    table = Table(
        title=Text(printable(title), style="bold") if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    for index, column in enumerate(columns):
        widest = max((cell_len(row[index]) for row in shown), default=0)
        table.add_column(Text(printable(column)), justify="right" if index else "left", min_width=widest)
    # As texts: rich would take [red] in a cell for markup.
    for row in shown:
        table.add_row(*map(Text, row))
    return table


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return ``fraction`` as a percentage, or a dash where it is not known."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f}%"


def share_of(fraction: float | None, images: int | None) -> str:
    """Return ``fraction`` of ``images`` as a percentage with its 95% interval, or a dash where it is not known."""
    return "-" if fraction is None else accuracy_text(fraction, interval_of(fraction, images))


def milliseconds(value: float | None) -> str:
    """Return ``value`` in milliseconds with four significant digits, or a dash where it is not known."""
    return "-" if value is None else in_milliseconds(value)
