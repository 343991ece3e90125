"""The command ``cars-hw``: groups of commands, which are imported when they are used."""

from __future__ import annotations

import io
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click

from cars_hw.child_processes import launched
from cars_hw.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from cars_hw.cli.extras import missing_extra
from cars_hw.cli.hints import message_of
from cars_hw.cli.renamed import RENAMED_COMMANDS, renamed_option
from cars_hw.cli.verbosity import is_verbose, strict_violations, verbosity_options
from cars_hw.config.command_line import command_line
from cars_hw.errors import CarsHwError
from cars_hw.formatting import printable
from cars_hw.version import own_version

GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "Device": {
        "profile": "Measure a device and write a latency table.",
        "predict": "Predict latencies from a table.",
        "measure": "Measure whole networks on a device.",
        "validate": "Compare the predictions of a table with its device.",
        "energy": "Measure the energy of networks of a table.",
        "table": "Show and compare latency tables.",
        "devices": "List the devices that can be measured here.",
        "runner": "Choose the program that runs models on phones.",
    },
    "Images": {
        "data": "Check a folder of images.",
    },
    "Main job": {
        "search": "Search for a Pareto front of networks under a latency budget.",
        "train": "Train networks of a run's front.",
        "export": "Export the trained networks of a run, or a genotype.",
        "verify": "Measure the exported models of a run and check its budgets.",
        "report": "Write one HTML page about a run.",
    },
    "Use": {
        "classify": "Classify images with an exported model.",
    },
    "Evidence": {
        "rank": "Compare the order of networks in a search and after training.",
        "baselines": "Compare the search with other strategies at equal cost.",
        "experiment": "Repeat the experiments of the CARS paper.",
    },
    "Space": {
        "cost": "Count parameters and multiply-adds of genotypes.",
        "zoo": "List the published genotypes.",
    },
    "Extensions": {
        "plugins": "List what packages can add: devices, costs, formats and so on.",
    },
}
"""The commands by group, each with the first sentence of its help, so that an overview imports no command."""

SUMMARIES: Final = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}

SHARED_BY_PROCESSES: Final = ("search", "train")
"""The commands whose work several processes share that torchrun starts."""

COMPLETION: Final = 'eval "$(_CARS_HW_COMPLETE=bash_source cars-hw)"'

ARGUMENTS: Final = "cars_hw.arguments"
"""Where the context keeps the command line, in which an old option is looked for."""


class Commands(click.Group):
    """Imports a command when it is used, and turns what a user can cause into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's own signature
        """Return the commands in the order in which they are listed."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's
        """Import the command ``cmd_name``; None if there is none."""
        if cmd_name not in SUMMARIES:
            return None
        command: click.Command = import_module(f"cars_hw.cli.{cmd_name}").command
        _take_verbosity(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's
        """List the commands by group."""
        width = max(map(len, SUMMARIES))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's
        """List the exit codes, and say how completion is switched on."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])
        with formatter.section("Completion (bash; zsh_source and fish_source are for other shells)"):
            formatter.write_text(COMPLETION)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that ``args`` begin with; a name that has gone or is mistyped tells the right one."""
        name = args[0]
        if name in RENAMED_COMMANDS:
            ctx.fail(f"'{name}' is now '{RENAMED_COMMANDS[name]}'")
        if name not in SUMMARIES and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, SUMMARIES, cutoff=0.7)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean {' or '.join(near)}?" if near else ""))
        works = not ctx.resilient_parsing and "--help" not in args
        if works and name not in SHARED_BY_PROCESSES and launched() > 1:
            ctx.fail(
                f"{launched()} processes would each do all of the work of '{name}': start it without torchrun, "
                f"which is for {' and '.join(SHARED_BY_PROCESSES)}"
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's own type
        """Run the command."""
        _prepare_streams()
        try:
            with command_line(ctx.meta.get(ARGUMENTS, ())):
                result = super().invoke(ctx)
        except click.UsageError as error:
            _name_the_new_option(error)
            raise
        except CarsHwError as error:
            _fail(message_of(error), exit_code_of(error))
        except ModuleNotFoundError as error:
            if (line := missing_extra(error)) is None:
                raise
            _fail(line, ExitCode.ERROR)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            _fail(f"{error.strerror or error}{where}", ExitCode.ERROR)
        except KeyboardInterrupt:
            # From here on another Ctrl-C ends the process at once, without a traceback.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # CPython remembers that Ctrl-C ended an exec of text, such as those in imports of torch, and would end
            # this process by the signal; the next exec makes it forget.
            exec("")
            click.echo("Stopped.", err=True)
            sys.exit(ExitCode.INTERRUPTED)
        if violations := strict_violations():
            _fail(f"unreliable, and --strict is given: {'; '.join(violations)}", ExitCode.MISSED)
        return result


def _prepare_streams() -> None:
    """Let the streams take any name of a file, and keep warnings about image files out of them."""
    # A name may have bytes that are not UTF-8, and a terminal may have another encoding.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    # Such as those about very large images: what cannot be read is an error, and the others are read.
    warnings.filterwarnings("ignore", module="PIL")


def _take_verbosity(command: click.Command) -> None:
    """Add --verbose and --quiet to ``command``, or to all commands below it, unless it has them."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _take_verbosity(below)
    elif not any(parameter.name == "verbose" for parameter in command.params):
        command.params += verbosity_options()


def _name_the_new_option(error: click.UsageError) -> None:
    """Let ``error`` name the new option, if it is about an old one."""
    if error.ctx is None:
        return
    command = error.ctx.command_path.partition(" ")[2]
    if new := renamed_option(command, error.ctx.meta.get(ARGUMENTS, ())):
        raise click.UsageError(new, error.ctx) from error


def _fail(message: str, code: ExitCode) -> None:
    if is_verbose() and sys.exc_info()[0] is not None:
        traceback.print_exc()
    click.echo(f"Error: {printable(' '.join(message.splitlines()))}", err=True)
    sys.exit(code)


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"{context.info_name}, version {own_version()}")
        context.exit()


@click.group(
    cls=Commands,
    params=verbosity_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Search for the most accurate convolutional network under a latency limit on your device.

    profile measures the device and writes a latency table. search reads the table and writes a run folder. The
    commands after it add trained networks, models, measurements and a report to the run folder:

    \b
      cars-hw profile  --device ort --network quick --out table.json
      cars-hw search   --data fashion-mini --table table.json --latency 0.5ms --preset quick --out run
      cars-hw train    run
      cars-hw export   run
      cars-hw verify   run --device ort
      cars-hw report   run

    DEVICE is ort (ONNX Runtime) or litert on this machine, android (a phone on a USB cable), or ssh:USER@HOST (a
    Linux board); `cars-hw devices` lists the devices of this machine and the phones. GENOTYPE describes the cells
    of a network: a name that `cars-hw zoo` lists, a JSON file, or DARTS text. LATENCY has a unit: 20ms, 0.02s.
    """
