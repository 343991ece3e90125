"""``cars-hw verify``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.completion import complete_devices
from cars_hw.cli.options import (
    FOLDER,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_table,
    threads_option,
    warn_of_drift,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.verbosity import strict_option
from cars_hw.config.codec import unstructure
from cars_hw.errors import BudgetError


@click.command("verify")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--device",
    "device_name",
    required=True,
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="What to measure on; see: cars-hw devices.",
)
@threads_option
@click.option(
    "--sessions",
    type=click.IntRange(1),
    default=7,
    show_default=True,
    help="How often a model is freshly loaded; the latency is the median over these sessions.",
)
@strict_option
@json_option
def command(run_path: Path, device_name: str, threads: int, sessions: int, as_json: bool) -> None:
    """Measure the exported models of a run against its budgets.

    The exit code is 3 if a model exceeds its budget.
    """
    from cars_hw.config.measurement import MeasurePlan
    from cars_hw.devices import open_device
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.verify import verify_run

    run = RunFolder.open(run_path)
    device = open_device(device_name, threads)
    plan = MeasurePlan(sessions=sessions)
    with Bars() as bars:
        rows = verify_run(run, device, plan=plan, progress=bars.update)
    if as_json:
        print_json(unstructure(rows))
    else:
        columns = (
            "network",
            "precision",
            "accuracy",
            "parameters",
            "predicted",
            "upper bound",
            "measured",
            "deviation",
            "budget",
        )
        print_table(
            f"Measured again on {device.name}",
            columns,
            [
                (
                    row.name,
                    row.precision,
                    percent(row.accuracy),
                    f"{row.parameters:,}",
                    milliseconds(row.predicted_ms),
                    milliseconds(row.bound_ms),
                    milliseconds(row.measured_ms),
                    percent(row.deviation),
                    "-"
                    if row.limit_ms is None
                    else f"{milliseconds(row.limit_ms)} {'kept' if row.within_budget else 'MISSED'}",
                )
                for row in rows
            ],
        )
    warn_of_drift(device.name, rows[0].drift, plan)
    over = [row for row in rows if row.within_budget is False]
    if over:
        raise BudgetError(
            f"{len(over)} of {len(rows)} models exceed the budget, first {over[0].name}; measure again when the "
            "machine is quiet, or search with a smaller --latency",
            tuple(row.measured_ms for row in over),
        )
