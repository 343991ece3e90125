"""``cars-hw baselines``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import (
    FOLDER,
    STRATEGIES,
    data_of,
    data_options,
    json_option,
    on_option,
    print_json,
    print_table,
    training_device,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.config.codec import unstructure

if TYPE_CHECKING:
    from cars_hw.studies.strategy_comparison import StrategyComparison


@click.command("baselines")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--against",
    type=click.Choice(STRATEGIES),
    multiple=True,
    help="random: random search in the same SuperNet; none: plain NSGA-III; speed, size, both: other protections; "
    "fresh: half of the offspring fresh; mixed, uniform: half of the training, or all of it, on uniform draws; "
    "paper: the paper's protection and offspring; standalone: evolution without weight sharing, where the budget "
    "suffices. Repeatable. [random, none]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Searches by each, from the run's seed on.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Networks, spread over each front, that are trained alone.",
)
@data_options
@click.option("--epochs", type=click.IntRange(1), help="Of these trainings, instead of those of the run's recipe.")
@click.option("--jobs", type=click.IntRange(1), help="Searches side by side. [one a core, on a GPU one]")
@on_option
@json_option
def command(
    run_path: Path,
    against: tuple[str, ...],
    seeds: int,
    top: int,
    data_root: Path | None,
    download: bool,
    epochs: int | None,
    jobs: int | None,
    on: str,
    as_json: bool,
) -> None:
    """Compare the search with other strategies at equal cost.

    Each strategy has the run's epochs, generations, numbers of architectures and latency budgets, and each of its
    fronts is trained alone, from scratch: accuracies under shared weights decide nothing. The hypervolume, of error
    and costs, says how good a front is. It takes about as long as the search, times seeds, times strategies; what
    is done already is not done again. The report shows the result.
    """
    from cars_hw.pipeline.plan import recipe_of
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.studies.baselines import RIVALS, compare_run
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    recipe = recipe_of(run)
    device = training_device(on)
    keep_freed_memory()
    with Bars() as bars:
        comparison = compare_run(
            run,
            data=data_of(run.configuration["data"], None, data_root, download),
            against=against or RIVALS,
            seeds=seeds,
            top=top,
            recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
            device=device,
            jobs=jobs,
            progress=bars.update,
            log=bars.log,
        )
    if as_json:
        print_json(unstructure(comparison))
    else:
        print_comparison(comparison)


def print_comparison(comparison: StrategyComparison) -> None:
    """Print what each strategy's fronts came to, and by how much the run's own is above them."""
    from statistics import mean

    from cars_hw.studies.strategy_comparison import summary

    unit = comparison.unit
    rows = []
    for name in comparison.strategies:
        trials = comparison.of(name)
        gaps = [] if name == comparison.own else comparison.gaps(name)
        rows.append(
            (
                name,
                f"{mean(comparison.final(one) for one in trials):.4f}",
                f"{mean(one.generations[-1].hypervolume for one in trials):.4f}",
                f"{mean(one.generations[-1].spread for one in trials):.4g} {unit}",
                f"{mean(gaps):+.4f}" if gaps else "-",
                f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}" if gaps else "-",
            )
        )
    print_table(
        f"Means over {len(comparison.seeds)} seeds",
        (
            "strategy",
            "hypervolume (trained)",
            "(last population, shared)",
            f"spread of {comparison.cost}",
            "own is above by",
            "in seeds",
        ),
        rows,
    )
    for name in comparison.strategies:
        click.echo(f"{name}: {summary(name)}")
