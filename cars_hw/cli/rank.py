"""``cars-hw rank``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.front_table import short_sizes
from cars_hw.cli.options import (
    FOLDER,
    json_option,
    percent,
    print_json,
    print_table,
    share_of,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import MOVED, run_of, settings_options
from cars_hw.config.evaluated import shared_adjective, training_words
from cars_hw.studies.settings import RankSettings


@click.command("rank")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@settings_options(
    RankSettings,
    "sample",
    "data.source",
    "data.root",
    "data.download",
    "recipe.epochs",
    "seed",
    "twice",
    "jobs",
    "execution.executor",
    "device",
    run=run_of,
    help={**MOVED, "recipe.epochs": "Passes over the training images. [those of the run's recipe]"},
)
@json_option
def command(run_path: Path, settings: RankSettings, as_json: bool) -> None:
    """Compare the order of networks in a search and after training.

    A sample of architectures is trained from scratch on the search's data. After a search over sizes, each is
    trained at its own size; otherwise all have the SuperNet's channels and cells. Kendall's tau measures the
    agreement of the two orders: 1 for equal orders, 0 for unrelated ones. The order in the search is that of the
    figures that it compared: accuracies, balanced accuracies or losses (--objective). A network that was already
    trained with the same settings is not trained again. The report shows the result.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.studies.rank_correlation import rank_run
    from cars_hw.studies.ranking import spread
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    keep_freed_memory()
    with Bars() as bars:
        ranking = rank_run(run, settings, progress=bars.update, log=bars.log)
    if as_json:
        print_json(ranking)
        return
    if not ranking.networks:
        click.echo("The sample is empty, so nothing was compared. The report says so.")
        return
    specs = [one.spec for one in ranking.networks]
    sized, size = len(set(specs)) > 1, short_sizes(specs)
    losses = ["shared loss"] if ranking.by_loss else []
    evaluated = shared_adjective(ranking.classifier)
    columns = ["network", *(["size"] if sized else []), f"{evaluated} (validation)", *losses, "standalone (test)"]
    name, rows = ranking.accuracy.replace("-", " "), []
    # An interval of a balanced accuracy needs the images of each class.
    plain = ranking.accuracy == "accuracy"

    def cell(score: float, images: int | None) -> str:
        return share_of(score, images if plain else None)

    for one in sorted(ranking.networks, key=lambda one: -one.standalone):
        row = [
            one.name,
            *([size(one.spec)] if sized else []),
            cell(one.shared, one.validation_images),
            *([] if one.shared_loss is None else [f"{one.shared_loss:.4g}"]),
            cell(one.standalone, one.test_images),
        ]
        rows.append(row if one.again is None else [*row, cell(one.again, one.test_images)])
    if settings.twice:
        columns.append("again (test)")
    title = f"{evaluated.capitalize()} and standalone {name}"
    print_table(f"{title}, with 95% intervals" if plain else title, columns, rows)
    first = ranking.networks[0]
    click.echo(
        f"Accuracies are on {first.validation_images:,} validation images, "
        f"{training_words(0, ranking.classifier)}, and on {first.test_images:,} test images."
    )
    if len(ranking.networks) < settings.sample:
        click.echo(
            f"Only {len(ranking.networks)} of {settings.sample}: the others exceed the budgets or are on the front."
        )
    if ranking.tau is None:
        click.echo("All are equal in one of the two: there is no order to compare.")
    else:
        by = " by the shared loss, which the search compared," if ranking.by_loss else ""
        click.echo(
            f"Kendall's tau {ranking.tau:.2f}{by} over {len(ranking.networks)} networks, whose standalone "
            f"accuracies span {percent(spread(ranking.networks))}."
        )
    if ranking.agreement is not None:
        click.echo(f"A second training of the same networks agrees with the first by {ranking.agreement:.2f}.")
