"""``cars-hw train``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.completion import complete_data, complete_recipes
from cars_hw.cli.options import (
    FOLDER,
    GENOTYPE,
    Named,
    data_of,
    data_options,
    jobs_option,
    json_option,
    on_option,
    percent,
    print_json,
    print_table,
    tensorboard_option,
    training_device,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.config.codec import unstructure

if TYPE_CHECKING:
    from cars_hw.config.training import Recipe
    from cars_hw.pipeline.run_folder import RunFolder, TrainedNetwork

CHANGES = ("epochs", "batch_size", "learning_rate", "ema", "hold_out", "precision")
"""The options that change a recipe, by the names that they have there."""


@click.command("train")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many networks, spread over the front with both its ends.",
)
@click.option(
    "--genotype",
    type=GENOTYPE,
    help="Train this one instead: a name of the zoo, a JSON file, or DARTS text.",
)
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Other images than the run's; the names are those of cars-hw search.",
)
@data_options
@click.option(
    "--recipe",
    "recipe_name",
    metavar="NAME",
    shell_complete=complete_recipes,
    help="cifar10-darts or imagenet-cars. [that of the run's preset]",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training images. [the recipe's]")
@click.option(
    "--batch-size",
    type=click.IntRange(2),
    help="Images in a step. The learning rate does not follow. [the recipe's]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="The largest of the schedule. [the recipe's]",
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    help="Ship a moving average of the weights with this decay a step, such as 0.9999. [0: none]",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 0.5),
    help="Share of the training images that chooses the best epoch. [0: the last epoch is taken]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bf16", "fp16"]),
    help="Of activations in training. [auto: bf16 or else fp16 on a GPU, float32 on a CPU]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the order and variation of images, drop-path, and the weights that are not inherited.",
)
@jobs_option
@click.option(
    "--from-shared",
    is_flag=True,
    help="Start from the SuperNet's weights where it has the network's very shapes, and not from fresh ones.",
)
@tensorboard_option
@on_option
@json_option
def command(
    run_path: Path,
    top: int,
    genotype: Named | None,
    data: str | None,
    data_root: Path | None,
    download: bool,
    recipe_name: str | None,
    seed: int,
    jobs: int | None,
    from_shared: bool,
    tensorboard: bool,
    on: str,
    as_json: bool,
    **changes: Any,  # noqa: ANN401 -- the recipe's settings
) -> None:
    """Train networks of a run's front.

    They start from fresh weights, which came out better than the SuperNet's where that was measured. A network that
    was trained already with the same settings is not trained again. Killed at any time, the same command goes on
    after the last epoch that was finished, to the same weights.

    \b
    Several processes or GPUs share each batch, and go on by themselves if one of them dies:
      torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m cars_hw train run
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.tensorboard import TrainingEvents, require_tensorboard
    from cars_hw.pipeline.train import train_run
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.process_group import joined, launched

    if launched() > 1 and (jobs or 1) > 1:
        raise click.UsageError("several processes share one network at a time: leave --jobs out")
    if tensorboard:
        require_tensorboard()
    run = RunFolder.open(run_path)
    recipe = _recipe(run, recipe_name, changes)
    device = training_device(on)
    keep_freed_memory()
    train = partial(
        train_run,
        run,
        data=data_of(run.configuration["data"], data, data_root, download),
        top=top,
        genotype=genotype.genotype if genotype else None,
        recipe=recipe,
        seed=seed,
        device=device,
        jobs=jobs,
        inherit=from_shared,
        callback=partial(TrainingEvents, run.path) if tensorboard else None,
    )
    with joined(device) as process_group:
        if not process_group.leads:
            train(process_group=process_group)
            return
        with Bars() as bars:
            trained = train(progress=bars.update, log=bars.log, process_group=process_group)
    if as_json:
        print_json(unstructure(trained))
        return
    _print(trained, recipe)
    click.echo(f"Next: cars-hw export {run.path}")


def _recipe(run: RunFolder, name: str | None, changes: dict[str, Any]) -> Recipe:
    """Return the recipe called ``name``, or else the run's, with what the options change."""
    from cars_hw.config.recipes import named_recipe
    from cars_hw.pipeline.plan import recipe_of

    recipe = recipe_of(run) if name is None else named_recipe(name)
    return replace(recipe, **{field: changes[field] for field in CHANGES if changes[field] is not None})


def _print(trained: list[TrainedNetwork], recipe: Recipe) -> None:
    columns = ["network", "accuracy (test)", "loss"]
    if recipe.hold_out:
        columns += ["accuracy (held out)", "best epoch"]
    rows = [
        [
            network.name,
            percent(network.accuracy),
            f"{network.loss:.3f}",
            *([percent(network.held_out_accuracy), str(network.best_epoch)] if recipe.hold_out else []),
        ]
        for network in trained
    ]
    print_table("Trained", columns, rows)
    which = "of the epoch that was best on held-out images" if recipe.hold_out else "of the last epoch"
    averaged = f", averaged with a decay of {recipe.ema:g} a step" if recipe.ema else ""
    click.echo(f"The weights are those {which}{averaged}.")
