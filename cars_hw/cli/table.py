"""``cars-hw table``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.options import (
    FILE,
    describe_states,
    describe_sustained,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_table,
    warn_of_noise,
)
from cars_hw.cli.verbosity import strict_option
from cars_hw.formatting import millijoules, printable

SHOWN = 20


@click.group("table")
def command() -> None:
    """Show and compare latency tables."""


@command.command("show")
@strict_option
@json_option
@click.argument("path", metavar="TABLE", type=FILE)
def show(path: Path, as_json: bool) -> None:
    """Show what TABLE was measured on, the states of the machine, and whether the table is reliable."""
    from cars_hw.latency import LatencyTable

    table = LatencyTable.read(path)
    warn_of_noise(table, path)
    if as_json:
        from cars_hw.cli.outputs import TableOutput

        print_json(
            TableOutput(
                device=table.device,
                precision=table.precision,
                threads=table.threads,
                network=table.spec,
                sizes=table.sizes,
                created=table.created,
                operations=len(table.entries),
                calibration_networks=len(table.calibration),
                conditions=dict(table.conditions),
                noise=table.noise,
                standard_error=table.standard_error,
                states=table.machine,
                sustained=table.sustained,
                energy=table.energy,
                quality_warnings=tuple(table.quality_warnings()),
            )
        )
        return
    threads = f"{table.threads} thread{'s' if table.threads > 1 else ''}"
    click.echo(
        f"{table.describe()}, {table.precision}, on {table.device} with {threads}, {table.created}\n"
        f"{len(table.entries)} operations, {len(table.calibration)} networks; sessions differ by "
        f"{percent(table.noise)}, predicted networks have a standard error of {percent(table.standard_error)}\n"
        f"{describe_states(table.machine)}"
    )
    if (text := describe_sustained(table)) is not None:
        click.echo(text)
    if table.energy is not None:
        energies = sorted(network.energy.mj for network in table.energy.networks)
        click.echo(
            f"A run of a network takes {millijoules(energies[0])} to {millijoules(energies[-1])} beyond rest, by "
            f"{table.energy.meter}; {len(energies)} networks, each to {percent(table.energy.error)}"
        )
    for name, value in table.conditions.items():
        if value is not None:
            click.echo(printable(f"{name}: {value}"))


@command.command("diff")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also list the operations whose latency changed by less than the noise.",
)
@json_option
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
def diff(before: Path, after: Path, everything: bool, as_json: bool) -> None:
    """Compare the tables BEFORE and AFTER: list the operations whose latency changed by more than the noise.

    The noise of an operation is three standard errors of the difference between its two latencies.
    """
    from cars_hw.latency import LatencyTable, compare_tables

    found = compare_tables(LatencyTable.read(before), LatencyTable.read(after))
    if as_json:
        print_json(found)
        return
    for title, moved in (("operations", found.operations), ("calibration networks", found.networks)):
        beyond = [one for one in moved if one.beyond_noise]
        shown = sorted(moved if everything else beyond, key=lambda one: -abs(one.ratio - 1))
        click.echo(f"{len(beyond)} of {len(moved)} {title} in both tables moved by more than the noise.")
        if shown:
            rows = [
                (
                    one.name,
                    milliseconds(one.before_ms),
                    milliseconds(one.after_ms),
                    f"{100 * (one.ratio - 1):+.1f}%",
                    percent(one.noise),
                )
                for one in (shown if everything else shown[:SHOWN])
            ]
            print_table("", (title, str(before), str(after), "change", "noise"), rows)
        if len(shown) > SHOWN and not everything:
            click.echo(f"{len(shown) - SHOWN} more; --all lists them.")
    for path, machine in zip((before, after), found.machines, strict=True):
        click.echo(f"{path}: {describe_states(machine)}")
    for name, (old, new) in found.conditions.items():
        click.echo(printable(f"{name}: {old} -> {new}"))
    for names, path in ((found.only_before, before), (found.only_after, after)):
        if names:
            click.echo(printable(f"{len(names)} operations only in {path}, first {names[0]}"))
    click.echo(
        f"The median operation changed by {percent(found.median_change)} either way; "
        f"the second table's take {found.median_ratio:.3f} times what the first one's do."
    )
