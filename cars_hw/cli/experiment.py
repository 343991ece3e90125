"""``cars-hw experiment``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.bars import Bars
from cars_hw.cli.common import FILE, json_option, print_json, print_table, threads_option


@click.group("experiment")
def command() -> None:
    """Repeat what the CARS paper claims: its tables, the small-model trap, accuracy against measured latency."""


@command.command("tables")
@click.option(
    "--table",
    "names",
    type=click.Choice(["cifar10", "imagenet", "figure1"]),
    multiple=True,
    help="Table 1, Table 2, or the networks that Figure 1 has besides. Repeatable. [all]",
)
@click.option(
    "--device", "device_name", metavar="DEVICE", help="Measure latencies there too; see: cars-hw devices."
)
@threads_option
@click.option("--sessions", type=click.IntRange(1), default=3, show_default=True, help="Fresh sessions a network.")
@click.option("--out", type=FILE, help="Write the JSON to this file too.")
@json_option
def tables(
    names: tuple[str, ...], device_name: str | None, threads: int, sessions: int, out: Path | None, as_json: bool
) -> None:
    """Tables 1 (CIFAR-10) and 2 (ImageNet) of the paper, beside what is computed and measured here.

    Parameters and multiply-adds are computed where the genotype was published or torchvision has the network, and
    with --device they are measured with fresh weights: for one image, of 32x32 in Table 1 and 224x224 in Table 2.
    Accuracies and GPU days are the paper's.
    """
    from cars_hw.experiments.tables import COUNTING, compute_table, paper_tables
    from cars_hw.files import write_json

    chosen = {name: table for name, table in paper_tables().items() if name in (names or (name,))}
    if device_name is None:
        computed = {name: compute_table(table) for name, table in chosen.items()}
    else:
        from cars_hw.devices import MeasurePlan, open_device

        device, plan = open_device(device_name, threads), MeasurePlan(sessions=sessions)
        with Bars() as bars:
            computed = {name: compute_table(table, device, plan, bars.update) for name, table in chosen.items()}
    content = {name: table.to_dict() for name, table in computed.items()}
    if out is not None:
        write_json(out, content)
    if as_json:
        print_json(content)
        return
    for table in computed.values():
        print_table(table.table.title, table.columns, table.cells())
        for line in (table.verdict(), *table.notes(), ""):
            click.echo(line)
    click.echo(COUNTING)
    if out is not None:
        click.echo(f"{out}")
