"""``cars-hw train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cars_hw.cli.bars import Bars
from cars_hw.cli.common import (
    FOLDER,
    GENOTYPE,
    Named,
    data_of,
    data_options,
    json_option,
    on_option,
    percent,
    print_json,
    print_table,
    training_device,
)


@click.command("train")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many networks, spread over the front with both its ends.",
)
@click.option("--genotype", type=GENOTYPE, help="Train this one instead.")
@click.option("--data", help="Other data than the run's.")
@data_options
@click.option("--epochs", type=click.IntRange(1), help="Instead of the preset's.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), help="Networks side by side. [one a core]")
@click.option("--from-scratch", is_flag=True, help="Do not start from the shared weights.")
@on_option
@json_option
def command(
    run_path: Path,
    top: int,
    genotype: Named | None,
    data: str | None,
    data_root: Path | None,
    download: bool,
    epochs: int | None,
    seed: int,
    jobs: int | None,
    from_scratch: bool,
    on: str,
    as_json: bool,
) -> None:
    """Train chosen networks of a run to the end.

    They start from the SuperNet's shared weights where it has their very shapes. A network that was trained already
    with the same settings is not trained again.
    """
    from cars_hw.runs.folder import RunFolder
    from cars_hw.runs.train import train_run
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.settings import Recipe

    run = RunFolder.open(run_path)
    keep_freed_memory()
    recipe = Recipe(**run.configuration["recipe"])
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    with Bars() as bars:
        trained = train_run(
            run,
            data=data_of(run.configuration["data"], data, data_root, download),
            top=top,
            genotype=genotype.genotype if genotype else None,
            recipe=recipe,
            seed=seed,
            device=training_device(on),
            jobs=jobs,
            inherit=not from_scratch,
            heard=bars.update,
        )
    if as_json:
        print_json([network.to_dict() for network in trained])
        return
    rows = [(network.name, percent(network.accuracy), f"{network.loss:.3f}") for network in trained]
    print_table("Trained", ("network", "accuracy (test)", "loss"), rows)
    click.echo(f"Next: cars-hw export {run.path}")
