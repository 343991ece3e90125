"""``cars-hw rank``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cars_hw.cli.options import (
    FOLDER,
    data_of,
    data_options,
    jobs_option,
    json_option,
    on_option,
    percent,
    print_json,
    print_table,
    training_device,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.config.codec import unstructure


@click.command("rank")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--sample",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="How many architectures, at least 4: half spread over the front, half at random within the budgets. "
    "0: none, and the report says so.",
)
@data_options
@click.option(
    "--epochs", type=click.IntRange(1), help="Passes over the training images. [those of the run's recipe]"
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides which random architectures these are, and their training.",
)
@click.option(
    "--twice",
    is_flag=True,
    help="Train each a second time, with the seed that follows: what the two trainings' orders have in common is "
    "what an order as good as a training would reach.",
)
@jobs_option
@on_option
@json_option
def command(
    run_path: Path,
    sample: int,
    data_root: Path | None,
    download: bool,
    epochs: int | None,
    seed: int,
    twice: bool,
    jobs: int | None,
    on: str,
    as_json: bool,
) -> None:
    """Compare the SuperNet's order with that of standalone trainings.

    A sample of architectures is trained from scratch, with the SuperNet's channels and cells and the search's data.
    Kendall's tau says how much the two orders have in common: 1 all, 0 nothing. What was trained already with the
    same settings is not trained again. The report shows the result.
    """
    from cars_hw.pipeline.plan import recipe_of
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.studies.rank_correlation import rank_run
    from cars_hw.studies.ranking import spread
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    recipe = recipe_of(run)
    device = training_device(on)
    keep_freed_memory()
    with Bars() as bars:
        ranking = rank_run(
            run,
            data=data_of(run.configuration["data"], None, data_root, download),
            sample=sample,
            twice=twice,
            recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
            seed=seed,
            device=device,
            jobs=jobs,
            progress=bars.update,
            log=bars.log,
        )
    if as_json:
        print_json(unstructure(ranking))
        return
    if not ranking.networks:
        click.echo("A sample of none: nothing was checked, and the report says so.")
        return
    columns = ["network", "shared (validation)", "alone (test)"]
    rows = []
    for one in sorted(ranking.networks, key=lambda one: -one.standalone):
        row = [one.name, percent(one.shared), percent(one.standalone)]
        rows.append(row if one.again is None else [*row, percent(one.again)])
    if twice:
        columns.append("again (test)")
    print_table("Under shared weights and alone", columns, rows)
    if len(ranking.networks) < sample:
        click.echo(
            f"Only {len(ranking.networks)} of {sample}: more do not keep to the budgets, or are on the front."
        )
    if ranking.tau is None:
        click.echo("All are equal in one of the two: there is no order to compare.")
    else:
        click.echo(
            f"Kendall's tau {ranking.tau:.2f} over {len(ranking.networks)} networks, whose accuracies alone span "
            f"{percent(spread(ranking.networks))}."
        )
    if ranking.agreement is not None:
        click.echo(f"A second training of the same networks agrees with the first by {ranking.agreement:.2f}.")
