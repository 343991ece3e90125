"""``cars-hw train``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.front_table import short_sizes
from cars_hw.cli.options import (
    FOLDER,
    json_option,
    no_crop_option,
    percent,
    print_json,
    print_table,
    tensorboard_option,
    track_option,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import MOVED, RECIPE, Converted, run_of_networks, settings_options
from cars_hw.config.execution import HERE
from cars_hw.formatting import accuracy_text, printable
from cars_hw.pipeline.settings import TrainSettings

if TYPE_CHECKING:
    from cars_hw.callbacks import TrainingCallback
    from cars_hw.pipeline.networks import TrainedNetwork
    from cars_hw.space.network_spec import NetworkSpec
    from cars_hw.space.size_grid import SizeGrid


@click.command("train")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@settings_options(
    TrainSettings,
    "top",
    "genotype",
    "channels",
    "layers",
    "resolution",
    "data.source",
    "data.root",
    "data.download",
    "data.skip_unreadable",
    "data.image_cache",
    "data.memory",
    "recipe.epochs",
    "recipe.batch_size",
    "recipe.learning_rate",
    "recipe.ema",
    "recipe.hold_out",
    "recipe.mirror",
    "recipe.randaugment",
    "recipe.magnitude",
    "recipe.mixup",
    "recipe.cutmix",
    "recipe.objective",
    "recipe.class_weights",
    "recipe.precision",
    "seed",
    "jobs",
    "execution.executor",
    "inherit",
    "init",
    "teacher.network",
    "teacher.weights",
    "teacher.share",
    "teacher.temperature",
    "teacher.resolution",
    "device",
    "deterministic",
    "replay",
    "compile",
    "threads",
    "accept_changes",
    bases=(RECIPE,),
    converted=(Converted("no_crop", lambda _given, _values: {"recipe": {"crop_padding": 0, "crop_scale": 0.0}}),),
    run=run_of_networks,
    help={
        "data.source": f"{MOVED['data.source']} After a search with --proxy, the first training takes the images "
        "of the exported network here."
    },
)
@no_crop_option("Do not crop training images.")
@tensorboard_option
@track_option("the figures and the files of each training")
@json_option
def command(
    run_path: Path, settings: TrainSettings, tensorboard: bool, track: tuple[str, ...], as_json: bool
) -> None:
    """Train networks of a run's front.

    The networks start from fresh weights. In measurements, training from fresh weights gave a higher accuracy
    than training from the SuperNet's weights. A network that was already trained with the same settings is not
    trained again. If a network was trained with other settings, those weights are kept, and the new training has a
    name of its own, such as net-01@2. To continue an interrupted training, repeat the command: it resumes after the
    last finished epoch and, on a CPU, ends with the same weights.

    \b
    To divide each batch among several processes, each on a GPU if there is one (all restart if one dies):
      torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m cars_hw train run
    """
    from cars_hw.child_processes import launched
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.train import train_run
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.precision import resolve_device
    from cars_hw.training.process_group import joined

    if launched() > 1 and (settings.jobs or 1) > 1:
        raise click.UsageError("several processes share one network at a time: leave --jobs out")
    if launched() > 1 and settings.execution != HERE:
        raise click.UsageError("torchrun and --executor divide the work in different ways: use one of them")
    run = RunFolder.open(run_path)
    keep_freed_memory()
    train = partial(train_run, run, settings, callback=_callback(run.path, settings, track, tensorboard))
    with joined(resolve_device(settings.device, elsewhere=settings.execution.elsewhere)) as process_group:
        if not process_group.leads:
            train(process_group=process_group)
            return
        with Bars() as bars:
            trained = train(progress=bars.update, log=bars.log, process_group=process_group)
    if as_json:
        print_json(trained)
        return
    _print(trained, run.configuration.sizes)
    click.echo(f"Next: cars-hw export {shlex.quote(str(run.path))}")


def _callback(
    run: Path, settings: TrainSettings, track: tuple[str, ...], tensorboard: bool
) -> Callable[[str], TrainingCallback] | None:
    """Return what makes the callback of a network, None without any: a function that can be sent to workers."""
    if track:
        from cars_hw.tracking.follow import tracked_training

        names = tuple(dict.fromkeys((*track, *(["tensorboard"] if tensorboard else []))))
        return partial(tracked_training, run, names, _tracked_settings(settings))
    if tensorboard:
        from cars_hw.pipeline.tensorboard import TrainingEvents

        return partial(TrainingEvents, run)
    return None


def _tracked_settings(settings: TrainSettings) -> dict[str, str | float | bool | None]:
    """Return what a tracker keeps: the seed, what the weights start from, the recipe, the teacher."""
    recipe = {} if settings.recipe is None else asdict(settings.recipe)
    start = {"inherit": settings.inherit, "init": None if settings.init is None else str(settings.init)}
    given = {} if settings.teacher.network is None else asdict(settings.teacher)
    teacher = {f"teacher/{name}": str(value) for name, value in given.items()}
    return {"seed": settings.seed, **start, **recipe, **teacher}


def _print(trained: list[TrainedNetwork], sizes: SizeGrid | None) -> None:
    from cars_hw.pipeline.standing import majority_sentence, standing

    recipe = trained[0].recipe
    held_out = trained[0].held_out is not None
    specs = [network.spec for network in trained]
    size = short_sizes(specs, sizes) if sizes is not None or len(set(specs)) > 1 else None
    columns = [
        "network",
        *(["size"] if size else []),
        "accuracy (test)",
        "95% interval",
        "balanced accuracy",
        "loss",
    ]
    if held_out:
        columns += ["accuracy (held out)", "best epoch"]
    print_table("Trained", columns, [_row(network, held_out, size) for network in trained])
    images = f"Accuracies are on {trained[0].test.total:,} test images"
    if trained[0].held_out is not None:
        images += f", and on {trained[0].held_out.total:,} held-out images, which chose the epoch"
    click.echo(f"{images}.")
    found = standing(trained)
    if found is not None and found.compared:
        click.echo(found.sentence)
    for network in trained:
        sentence = majority_sentence(network.name, network.test, network.class_names)
        if sentence is not None:
            click.echo(printable(sentence))
    by = "" if recipe.objective == "accuracy" else " by balanced accuracy"
    which = f"of the epoch that was best on held-out images{by}" if held_out else "of the last epoch"
    averaged = f", averaged with a decay of {recipe.ema:g} a step" if recipe.ema else ""
    click.echo(f"The weights are those {which}{averaged}.")


def _row(network: TrainedNetwork, held_out: bool, size: Callable[[NetworkSpec], str] | None) -> list[str]:
    test = network.test
    row = [
        network.name,
        *([size(network.spec)] if size else []),
        percent(test.accuracy),
        f"{percent(test.low)} to {percent(test.high)}",
        percent(test.balanced_accuracy),
        f"{network.loss:.3f}",
    ]
    if held_out and network.held_out is not None:
        row += [
            accuracy_text(network.held_out.accuracy, network.held_out.interval("accuracy")),
            str(network.best_epoch),
        ]
    return row
