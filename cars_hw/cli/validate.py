"""``cars-hw validate``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.bars import Bars
from cars_hw.cli.common import FILE, GENOTYPE, Named, json_option, milliseconds, percent, print_json, print_table


@click.command("validate")
@click.option("--table", "table_path", type=FILE, required=True, help="A latency table.")
@click.option("--random", "count", type=click.IntRange(1), help="How many random networks to hold it against. [30]")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides which networks these are.")
@click.option(
    "--level", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="How often the bound holds."
)
@json_option
@click.argument("genotypes", type=GENOTYPE, nargs=-1)
def command(
    table_path: Path, count: int | None, seed: int, level: float, as_json: bool, genotypes: tuple[Named, ...]
) -> None:
    """Hold a table against its device: predicted against measured, on networks that took no part in it."""
    import numpy as np

    from cars_hw.devices import MeasurePlan, open_device
    from cars_hw.latency import LatencyTable, fresh_genotypes, validate

    table = LatencyTable.read(table_path)
    chosen = [named.genotype for named in genotypes]
    names = [named.name for named in genotypes]
    if count is not None or not chosen:
        chosen += fresh_genotypes(table, count or 30, np.random.default_rng(seed))
        names += [f"random {number}" for number in range(1, len(chosen) - len(names) + 1)]
    device = open_device(table.device, table.threads)
    plan = MeasurePlan()
    total = len(chosen) * plan.sessions
    with Bars() as bars:
        result = validate(
            table,
            device,
            chosen,
            plan=plan,
            level=level,
            progress=lambda done: bars.update("sessions", done, total),
        )
    if as_json:
        print_json(result.to_dict())
        return
    rows = [
        (
            name,
            milliseconds(row.predicted_ms),
            milliseconds(row.bound_ms),
            milliseconds(row.measured_ms),
            percent(row.error),
        )
        for name, row in zip(names, result.rows, strict=True)
    ]
    print_table("", ("network", "predicted", "upper bound", "measured", "error"), rows)
    tau = "-" if result.kendall_tau is None else f"{result.kendall_tau:.2f}"
    summary = (
        f"mean error {percent(result.mean_error)}",
        f"bias {percent(result.bias)}",
        f"within 5% {percent(result.within_5, 0)}",
        f"within 10% {percent(result.within_10, 0)}",
        f"Kendall's tau {tau}",
        f"bound held by {percent(result.coverage, 0)} (level {percent(result.level, 0)})",
        f"noise of the measurements {percent(result.noise)}",
        f"the machine has drifted by {percent(result.drift)} since the table was made",
    )
    click.echo(f"{len(rows)} networks on {device.name}: {', '.join(summary)}")
