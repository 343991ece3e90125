"""The command ``cars-hw``."""

from __future__ import annotations

import sys
from typing import Any

import click

from cars_hw.cli import (
    baselines,
    cost,
    devices,
    experiment,
    export,
    measure,
    predict,
    profile,
    rank,
    report,
    runner,
    search,
    table,
    train,
    validate,
    verify,
    zoo,
)
from cars_hw.cli import classify as run
from cars_hw.errors import CarsHwError


class Commands(click.Group):
    """A group that turns every error a user can cause into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's own type
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CarsHwError as error:
            _fail(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            _fail(f"{error.strerror or error}{where}")

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's own signature
        """Return the commands in the order in which they are used."""
        return list(self.commands)


def _fail(message: str) -> None:
    click.echo(f"Error: {' '.join(message.splitlines())}", err=True)
    sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cars-hw")
def main() -> None:
    """Search for the most accurate convolutional network that keeps to a latency on your device.

    \b
      cars-hw profile  --device ort --network quick --out table.json
      cars-hw search   --data fashion-mini --table table.json --latency 0.5ms --preset quick --out run
      cars-hw train    run
      cars-hw export   run
      cars-hw verify   run --device ort
      cars-hw report   run

    DEVICE is ort (ONNX Runtime) or litert, on this machine, or android, the phone on the cable; `cars-hw devices`
    lists what can be used now. GENOTYPE is a name that `cars-hw zoo` lists, a JSON file, or DARTS text. LATENCY has
    a unit: 20ms, 1.5ms, 0.02s.
    """


for module in (
    devices,
    profile,
    predict,
    measure,
    validate,
    search,
    train,
    export,
    run,
    verify,
    runner,
    rank,
    baselines,
    report,
    table,
    cost,
    zoo,
    experiment,
):
    main.add_command(module.command)
