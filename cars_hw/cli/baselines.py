"""``cars-hw baselines``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import (
    FOLDER,
    json_option,
    print_json,
    print_table,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import MOVED, run_of, settings_options
from cars_hw.studies.settings import BaselinesSettings

if TYPE_CHECKING:
    from cars_hw.config.training import EvaluatedClassifier
    from cars_hw.studies.strategy_comparison import StrategyComparison


@click.command("baselines")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@settings_options(
    BaselinesSettings,
    "against",
    "seeds",
    "top",
    "data.source",
    "data.root",
    "data.download",
    "recipe.epochs",
    "jobs",
    "execution.executor",
    "device",
    run=run_of,
    help={**MOVED, "recipe.epochs": "Epochs of the trainings of each front. [those of the run's recipe]"},
)
@json_option
def command(run_path: Path, settings: BaselinesSettings, as_json: bool) -> None:
    """Compare the search with other strategies at equal cost.

    Each strategy has the epochs, generations, numbers of architectures and latency budgets of the run; standalone
    evaluates fewer architectures. Networks of each front are trained from scratch, and the hypervolume of error and
    costs measures the front. Each strategy takes about as long as the search, for each seed. Finished searches and
    trainings are not repeated. The report shows the result.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.studies.baselines import compare_run
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    keep_freed_memory()
    with Bars() as bars:
        comparison = compare_run(run, settings, progress=bars.update, log=bars.log)
    if as_json:
        print_json(comparison)
    else:
        print_comparison(comparison, run.configuration.training.classifier)


def print_comparison(comparison: StrategyComparison, classifier: EvaluatedClassifier) -> None:
    """Print the hypervolume of each strategy's fronts, and the difference to the run's own strategy.

    ``classifier`` evaluated the populations of strategies that share weights; each row says what evaluated its own.
    """
    from statistics import mean

    from cars_hw.studies.strategy_comparison import population_evaluated, summary

    unit = comparison.unit
    rows = []
    for name in comparison.strategies:
        trials = comparison.of(name)
        gaps = [] if name == comparison.own else comparison.gaps(name)
        rows.append(
            (
                name,
                f"{mean(comparison.final(one) for one in trials):.4f}",
                f"{mean(one.generations[-1].hypervolume for one in trials):.4f} "
                f"({population_evaluated(name, classifier)})",
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
            "of the last population (by)",
            f"spread of {comparison.cost}",
            "own is above by",
            "in seeds",
        ),
        rows,
    )
    if comparison.precision:
        click.echo(comparison.precision)
    for name in comparison.strategies:
        click.echo(f"{name}: {summary(name, classifier)}")
