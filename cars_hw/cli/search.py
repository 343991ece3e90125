"""``cars-hw search``."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.baselines import print_comparison
from cars_hw.cli.completion import complete_data
from cars_hw.cli.live_view import search_view
from cars_hw.cli.options import (
    COSTS,
    FILE,
    FOLDER,
    LATENCY,
    PROTECTIONS,
    data_options,
    json_option,
    milliseconds,
    network_options,
    on_option,
    percent,
    preset_option,
    print_json,
    print_table,
    spec_of,
    tensorboard_option,
    training_device,
    warn_of_noise,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.search_status import SearchStatus
from cars_hw.cli.verbosity import note, strict_option
from cars_hw.config.codec import unstructure
from cars_hw.config.units import format_seconds

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.config.presets import Preset
    from cars_hw.pipeline.estimate import Estimate
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.pipeline.run_folder import FrontNetwork, RunFolder
    from cars_hw.progress import Log
    from cars_hw.studies.strategy_comparison import StrategyComparison
    from cars_hw.training.process_group import ProcessGroup


@click.command("search")
@click.option(
    "--data",
    required=True,
    shell_complete=complete_data,
    help="fashion-mini (embedded), fashion-mnist, cifar10, or a folder of class folders.",
)
@data_options
@click.option(
    "--table",
    "tables",
    type=FILE,
    multiple=True,
    help="A latency table: its latency is minimised, and the network is the table's. Repeatable.",
)
@click.option(
    "--latency",
    "latencies",
    type=LATENCY,
    multiple=True,
    help="The budget, such as 20ms, on the device of the table at the same place. Repeatable.",
)
@click.option(
    "--cost",
    "costs",
    type=click.Choice(COSTS),
    multiple=True,
    help="Minimise this too. Repeatable.",
)
@preset_option("quick: minutes on a CPU; cifar: hours on a GPU; paper: the paper's settings.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="Of the models that are handed over, and of the tables. [the tables']",
)
@click.option("--out", type=FOLDER, help="The run folder to write; one that exists is only taken with --resume.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the search in --out after its last finished generation; the settings must be the same.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the weights at the start, the order of images, what is drawn and what is proposed.",
)
@click.option(
    "--population", type=click.IntRange(1), help="Architectures that survive a generation. [the preset's]"
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Passes over the training images in all, the warm-up included. [the preset's]",
)
@click.option(
    "--warmup-epochs",
    type=click.IntRange(1),
    help="Epochs at the start on architectures that are drawn uniformly. [the preset's]",
)
@click.option(
    "--epochs-per-generation", type=click.IntRange(1), help="Epochs between two selections. [the preset's]"
)
@click.option(
    "--protect",
    type=click.Choice(PROTECTIONS),
    help="What the selection protects: speed of learning (the paper), size (its code), both, or none (NSGA-III). "
    "[the preset's]",
)
@click.option(
    "--architectures", type=click.IntRange(1), help="Architectures a minibatch trains (B of Eq. 3). [the preset's]"
)
@click.option(
    "--batch-size",
    type=click.IntRange(2),
    help="Images in a minibatch. The learning rate does not follow. [the preset's]",
)
@click.option(
    "--random-share",
    type=click.FloatRange(0, 1),
    help="Share of offspring that are drawn afresh; mutation and crossover halve the rest. [the preset's]",
)
@click.option(
    "--uniform-share",
    type=click.FloatRange(0, 1),
    help="Share of the architectures in training that are drawn uniformly after the warm-up too, instead of from "
    "the population. [the preset's]",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Measure the front on the devices at hand, and replace what exceeds its budget.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Time a few steps, say how long the search will take and what it needs, and end.",
)
@click.option(
    "--baselines",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="SEEDS",
    help="Afterwards search with so many seeds by random search and by plain NSGA-III too, at the same cost, and "
    "compare the trained fronts: cars-hw baselines.",
)
@click.option("--proxy", is_flag=True, help="Search on other data than the network ships for, as the paper does.")
@tensorboard_option
@on_option
@strict_option
@json_option
@network_options
def command(
    data: str,
    data_root: Path | None,
    download: bool,
    tables: tuple[Path, ...],
    latencies: tuple[float, ...],
    costs: tuple[str, ...],
    preset_name: str,
    precision: Precision | None,
    out: Path | None,
    resume: bool,
    seed: int,
    measure: bool,
    dry_run: bool,
    baselines: int,
    proxy: bool,
    tensorboard: bool,
    on: str,
    as_json: bool,
    **options: Any,  # noqa: ANN401 -- the preset's and the network's settings
) -> None:
    """Search for a Pareto front of networks under a latency budget.

    The front holds the most accurate networks found for every latency up to the budget, which is held against the
    predictor's upper bound. In the end the front is measured on the device, if it is at hand, and the next best
    take the place of networks that exceed the budget. Killed at any time, the search goes on with --resume and ends
    with the same front. Without a table, the search minimises --cost for the network that the options describe.

    \b
    Several processes or GPUs, also on several machines, which go on by themselves if one of them dies:
      torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m cars_hw search --architectures 2 \\
          --data cifar10 --table cifar.json --latency 20ms --preset cifar --out run
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    if latencies and len(latencies) != len(tables):
        raise click.UsageError(f"{len(latencies)} --latency for {len(tables)} --table: give one to each, or none")
    from cars_hw.config.data import DataSource
    from cars_hw.latency import LatencyTable
    from cars_hw.pipeline.estimate import estimate
    from cars_hw.pipeline.latency_target import LatencyTarget
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.pipeline.search import run_search
    from cars_hw.pipeline.tensorboard import require_tensorboard
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.process_group import joined, restarted

    if tensorboard:
        require_tensorboard()
    read = [LatencyTable.read(path) for path in tables]
    for table, path in zip(read, tables, strict=True):
        warn_of_noise(table, path)
    limits = latencies or (None,) * len(read)
    network = {
        name: options.pop(name)
        for name in ("network", "channels", "layers", "resolution", "in_channels", "classes")
    }
    preset = _changed_preset(preset_name, options)
    plan = SearchPlan(
        data=DataSource(data, data_root, download),
        network=read[0].spec if read else spec_of(**network),
        preset=preset,
        targets=tuple(LatencyTarget(table, limit) for table, limit in zip(read, limits, strict=True)),
        costs=costs,
        seed=seed,
        proxy=proxy,
        precision=precision,
        device=training_device(on),
    )
    keep_freed_memory()
    if dry_run:
        _print_estimate(estimate(plan), as_json)
        return
    assert out is not None
    with joined(plan.device) as process_group:
        if not process_group.leads:
            run_search(plan, out, resume=resume, process_group=process_group)
            return
        run = _lead(
            plan,
            out,
            measure=measure,
            resume=resume or restarted(),
            process_group=process_group,
            tensorboard=tensorboard,
        )
    comparison = _compare(run, plan, baselines) if baselines else None
    front, rejected = run.front(), run.rejected()
    if as_json:
        print_json(unstructure(front))
        return
    print_front(front)
    if rejected:
        click.echo(f"Measured, {len(rejected)} more exceeded the budget; the next best took their place.")
    if comparison is not None:
        print_comparison(comparison)
    click.echo(f"{run.path / 'front.json'} holds {len(front)} networks. Next: cars-hw train {run.path}")


def _compare(run: RunFolder, plan: SearchPlan, seeds: int) -> StrategyComparison:
    from cars_hw.studies.baselines import compare_run

    with Bars() as bars:
        return compare_run(run, data=plan.data, seeds=seeds, device=plan.device, progress=bars.update, log=bars.log)


def _print_estimate(found: Estimate, as_json: bool) -> None:
    if as_json:
        print_json(unstructure(found))
        return
    rows = [
        (part.name, f"{part.times:,}", f"{1e3 * part.seconds:.3g} ms", format_seconds(part.total_seconds))
        for part in found.parts
    ]
    print_table("", ("work", "times", "each", "in all"), rows)
    click.echo(
        f"About {format_seconds(found.seconds)} and {found.memory_mb:,.0f} MB of "
        f"{'GPU memory' if found.on_gpu else 'memory'}; training the front, exporting and measuring come on top."
    )


def _lead(
    plan: SearchPlan,
    out: Path,
    *,
    measure: bool,
    resume: bool,
    process_group: ProcessGroup,
    tensorboard: bool = False,
) -> RunFolder:
    """Search and show the progress; with ``measure`` the front is measured on the devices that are available."""
    from cars_hw.pipeline.search import cost_objectives, run_search
    from cars_hw.pipeline.tensorboard import FOLDER, SearchEvents

    objectives = cost_objectives(plan)
    title = f"{Path(plan.data.source).name} to {out}"
    status = SearchStatus(title, objectives, plan.preset.evolution, time.monotonic())
    try:
        with (
            search_view(status, standalone=process_group.world == 1) as view,
            closing(SearchEvents(out / FOLDER, objectives)) as events,
        ):
            if plan.preset.training.architectures < process_group.world:
                view.log(
                    f"{process_group.world} processes share the evaluation of architectures, but only "
                    f"{plan.preset.training.architectures} share the training: "
                    f"give --architectures {process_group.world} or more"
                )
            return run_search(
                _with_devices(plan, view.log) if measure else plan,
                out,
                resume=resume,
                progress=view.update,
                callbacks=[view, events] if tensorboard else [view],
                process_group=process_group,
            )
    except KeyboardInterrupt:
        note("The same command with --resume resumes the search.")
        raise


def _with_devices(plan: SearchPlan, log: Log) -> SearchPlan:
    """Return ``plan`` with the devices that are available; ``log`` gets the reason for each that is not."""
    targets = []
    for target in plan.targets:
        device, reason = target.available_device()
        if device is None:
            log(f"the front will not be measured on {target.device_name}: {reason}")
        targets.append(replace(target, device=device))
    return replace(plan, targets=tuple(targets))


def print_front(front: list[FrontNetwork]) -> None:
    """Print the front, a line a network."""
    devices = [estimate.device for estimate in front[0].latency_estimates] if front else []
    columns = ["network", "accuracy (shared)", "parameters", "multiply-adds"]
    for device in devices:
        columns += [f"latency on {device}", "upper bound", "measured"]
    rows = [
        [
            network.name,
            percent(network.accuracy),
            f"{network.parameters:,}",
            f"{network.multiply_adds:,}",
            *(
                text
                for estimate in network.latency_estimates
                for text in map(milliseconds, (estimate.predicted_ms, estimate.bound_ms, estimate.measured_ms))
            ),
        ]
        for network in front
    ]
    print_table("Pareto front", columns, rows)


def _changed_preset(name: str, options: dict[str, Any]) -> Preset:
    from cars_hw.config.presets import named_preset

    preset = named_preset(name)
    evolution = {
        field: options[field]
        for field in ("population", "epochs", "warmup_epochs", "epochs_per_generation")
        if options[field] is not None
    }
    if options["protect"] is not None:
        evolution["protection"] = options["protect"]
    if options["uniform_share"] is not None:
        evolution["uniform_draws"] = options["uniform_share"]
    share = options["random_share"]
    if share is not None:
        rest = (1 - share) / 2
        evolution["rates"] = replace(preset.evolution.rates, random=share, mutation=rest, crossover=rest)
    training = {field: options[field] for field in ("architectures", "batch_size") if options[field] is not None}
    return replace(
        preset,
        evolution=replace(preset.evolution, **evolution),
        training=replace(preset.training, **training),
    )
