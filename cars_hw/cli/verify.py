"""``cars-hw verify``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cars_hw.cli.changed_images import warn_of_changed_images
from cars_hw.cli.energy import opened
from cars_hw.cli.options import (
    FOLDER,
    count_warnings_of,
    is_drift,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_sustained,
    print_table,
    share_of,
    warn_not_quiet,
    warn_of_drift,
    warn_of_tables,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import settings_options
from cars_hw.cli.signals import ends_in_order
from cars_hw.cli.verbosity import strict_option
from cars_hw.errors import BudgetError
from cars_hw.formatting import millijoules, state_name
from cars_hw.pipeline.settings import VerifySettings

if TYPE_CHECKING:
    from cars_hw.pipeline.records import Verified


@click.command("verify")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@settings_options(
    VerifySettings,
    "device",
    "threads",
    "measurement.sessions",
    "measurement.patience_seconds",
    "sustained",
    "energy",
    "meter",
    "metering.seconds",
    "metering.max_seconds",
    "metering.max_error",
)
@strict_option
@json_option
@ends_in_order
def command(run_path: Path, settings: VerifySettings, as_json: bool) -> None:
    """Measure the exported models of a run and check its budgets.

    The exit code is 3 if a model exceeds its budget.
    """
    from cars_hw.pipeline.records import names_by_state
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.verify import verify_run

    run = RunFolder.open(run_path)
    warn_of_changed_images(run)
    device = opened(settings.device, settings.threads, settings.meter)
    with Bars() as bars:
        rows = verify_run(
            run,
            device,
            plan=settings.measurement,
            sustained=settings.load if settings.sustained else None,
            energy=settings.metering if settings.energy else None,
            progress=bars.update,
        )
    if as_json:
        print_json(rows)
    else:
        columns = (
            "network",
            "precision",
            "accuracy (95% interval)",
            "test images",
            "parameters",
            "predicted",
            "upper bound",
            "measured",
            "usual state",
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
                    share_of(row.accuracy, row.test_images),
                    "-" if row.test_images is None else f"{row.test_images:,}",
                    f"{row.parameters:,}",
                    milliseconds(row.predicted_ms),
                    milliseconds(row.bound_ms),
                    milliseconds(row.measured_ms),
                    milliseconds(row.usual_ms),
                    percent(row.deviation),
                    "-"
                    if row.limit_ms is None
                    else f"{milliseconds(row.limit_ms)} {'kept' if row.within_budget else 'MISSED'}",
                )
                for row in rows
            ],
        )
        for state, models in names_by_state(rows).items():
            of = "" if len(models) == len(rows) else f" of {', '.join(models)}"
            click.echo(f"Measured and predicted latencies{of} are those of {state_name(state)} of {device.name}.")
        if rows[0].drift is not None:
            click.echo(
                f"The reference network takes {percent(abs(rows[0].drift))} "
                f"{'more' if rows[0].drift >= 0 else 'less'} than when the table was made; the deviations "
                "include this change."
            )
    loads = {row.name: row.sustained for row in rows if row.sustained is not None}
    print_sustained(device.name, loads, as_json=as_json)
    if not as_json:
        if loads and not settings.sustained:
            click.echo(f"{_EARLIER} minutes of load (--sustained).")
        metered = [row for row in rows if row.energy is not None]
        _print_energy(device.name, metered)
        if metered and not settings.energy:
            click.echo(f"{_EARLIER} the energy (--energy).")
    # A phone may have another address than in its table.
    warn_of_tables(run, rows[0].device)
    warn_of_drift(device.name, rows[0].drift)
    count_warnings_of(device)
    if not is_drift(rows[0].drift):
        warn_not_quiet(device.name, [row.name for row in rows if not row.quiet])
    hungry = [row for row in rows if row.within_energy is False]
    if hungry:
        raise BudgetError(
            f"{len(hungry)} of {len(rows)} models take more energy than the budget, first {hungry[0].name}; search "
            "with a smaller limit of the cost energy",
            tuple(row.energy.mj for row in hungry if row.energy is not None),
        )
    over = [row for row in rows if row.within_budget is False]
    if over:
        raise BudgetError(
            f"{len(over)} of {len(rows)} models exceed the budget, first {over[0].name}; measure again when the "
            "machine is quiet, or search with a smaller --latency",
            tuple(row.measured_ms for row in over),
        )
    if not as_json:
        click.echo(f"Next: cars-hw report {shlex.quote(str(run_path))}")


_EARLIER: Final = "These figures are of an earlier verification: this one did not measure"


def _print_energy(device: str, rows: Sequence[Verified]) -> None:
    """Print the energy of the models that have one."""
    if not rows:
        return
    print_table(
        f"Energy of a run on {device}, beyond rest",
        ("network", "predicted", "upper bound", "measured", "error", "at rest", "budget"),
        [
            (
                row.name,
                millijoules(row.predicted_mj),
                millijoules(row.bound_mj),
                millijoules(row.energy.mj),
                percent(row.energy.error),
                f"{row.energy.idle_watts:.3g} W",
                "-"
                if row.limit_mj is None
                else f"{millijoules(row.limit_mj)} {'kept' if row.within_energy else 'MISSED'}",
            )
            for row in rows
            if row.energy is not None
        ],
    )
