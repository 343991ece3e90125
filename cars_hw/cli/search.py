"""``cars-hw search``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from cars_hw.cli import search_options
from cars_hw.cli.baselines import print_comparison
from cars_hw.cli.changed_images import warn_of_changed_images
from cars_hw.cli.estimate_table import print_estimate
from cars_hw.cli.front_table import print_budget_use, print_front, warn_of_usual
from cars_hw.cli.lead_search import lead_search
from cars_hw.cli.options import (
    FILE,
    FOLDER,
    LATENCY,
    RESOLUTIONS,
    SPAN,
    STATE,
    SizesType,
    json_option,
    no_crop_option,
    print_json,
    tensorboard_option,
    track_option,
    warn_of_noise,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import (
    NETWORK,
    NETWORK_PATHS,
    PRESET,
    SIZE_PATHS,
    Converted,
    given_options,
    require_supernet,
    settings_options,
)
from cars_hw.cli.verbosity import note, strict_option, strict_violations
from cars_hw.cli.within import choose_length, chosen_before, shorten
from cars_hw.config.measurement import QUIET
from cars_hw.config.presets import OF_A_STEP
from cars_hw.config.setting import fields_of
from cars_hw.config.training import Recipe
from cars_hw.formatting import LOSSES_CHOSE
from cars_hw.pipeline.settings import SearchSettings, TargetSettings, TrainingDevice
from cars_hw.studies.settings import BaselinesSettings

if TYPE_CHECKING:
    from cars_hw.pipeline.estimate import Estimate
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.studies.strategy_comparison import StrategyComparison


@dataclass(frozen=True)
class Run:
    """What a search does besides searching."""

    out: Path | None
    resume: bool
    dry_run: bool
    within: float | None
    baselines: int
    tensorboard: bool
    track: tuple[str, ...]
    as_json: bool


@click.command("search")
@settings_options(
    SearchSettings,
    "data.source",
    "data.root",
    "data.download",
    "data.skip_unreadable",
    "data.image_cache",
    "data.memory",
    "costs",
    "precision",
    "seed",
    "evolution.population",
    "evolution.epochs",
    "evolution.warmup_epochs",
    "evolution.epochs_per_generation",
    "evolution.protection",
    "evolution.uniform_draws",
    "evolution.widening",
    "evolution.objective",
    "final.share",
    "jobs",
    "execution.executor",
    "replay",
    "training.share",
    "training.classifier",
    "training.deterministic",
    "training.class_weights",
    "training.architectures",
    "training.batch_size",
    "measure",
    "proxy",
    "from_run",
    "device",
    *(path for path in NETWORK_PATHS if path not in SIZE_PATHS),
    bases=(PRESET, NETWORK),
    help={
        "config": "Read settings from this TOML file, such as the RUN/config.toml of a search; options override it."
    },
    converted=(
        Converted(NETWORK.parameter, search_options.size_of),
        Converted("channels", lambda numbers, _: {"sizes": {"channels": list(numbers)}}),
        Converted("layers", lambda numbers, _: {"sizes": {"layers": list(numbers)}}),
        Converted("resolution", lambda found, _: {"sizes": {"resolutions": [list(one) for one in found]}}),
        Converted("tables", search_options.tables),
        Converted("latencies", search_options.limits),
        Converted("at_least", search_options.at_least),
        Converted("state", search_options.state),
        Converted("random_share", search_options.random_share),
        Converted("mirror", search_options.mirror),
        Converted("no_crop", search_options.no_crop),
        # Beside their own fields, they set those of the recipe that trains the front.
        Converted("evolution__objective", search_options.objective),
        Converted("training__class_weights", lambda weights, _: {"recipe": {"class_weights": weights}}),
    ),
    completed=search_options.with_room,
)
@click.option(
    "--table",
    "tables",
    type=FILE,
    multiple=True,
    help="A latency table. The search minimises the latency on its device. Repeatable: the networks keep to the "
    "budgets of all devices.",
)
@click.option(
    "--latency",
    "latencies",
    type=LATENCY,
    multiple=True,
    help="The latency budget, such as 20ms. The first --latency belongs to the first --table, the second to the "
    "second. Repeatable.",
)
@click.option(
    "--at-least",
    type=LATENCY,
    multiple=True,
    help="The smallest latency that is of interest, such as 5ms. The search proposes only networks that are "
    "predicted to take at least as long. One for each --table.",
)
@click.option(
    "--channels",
    type=SizesType(step=4),
    help="Channels of the first cell, even numbers; they double at each of two reductions. One number, a range "
    "such as 8..48, or several such as 8,12,16. [the table's; without a table, --network's]",
)
@click.option(
    "--layers",
    type=SizesType(step=1),
    help="Numbers of cells, 3 at least; the search divides them among the three stages. "
    "[the table's; without a table, --network's]",
)
@click.option(
    "--resolution",
    type=RESOLUTIONS,
    help="Images are resized to this size in pixels: 32, or height x width such as 65x97. With a range such as "
    "16..32 (every fourth number), 128..224:32 (every 32nd) or a list such as 16,24,32, the search chooses the "
    "resolution of each network. [the table's; without a table, --network's]",
)
@click.option(
    "--state",
    type=STATE,
    help=f"{fields_of(TargetSettings)['state'].setting.help} It applies to all tables.  [default: {QUIET}]",
)
@click.option("--out", type=FOLDER, help="The run folder to write. It may exist only with --resume.")
@click.option(
    "--resume",
    is_flag=True,
    help="Resume the search in --out after its last finished generation; the settings must be the same.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Time a few steps, print the time and memory that the search will take, and end. If the search itself "
    "would end with an error before it starts, so does this, with the same message and exit code.",
)
@click.option(
    "--within",
    type=SPAN,
    help="The time that the search and its final stage may take, such as 90min, 3h or 2h30m. A few steps are "
    "timed, and the epochs, the warm-up, the population, the generations and the final stage are chosen so that "
    "the estimate keeps to the time. Options that are given are not changed.",
)
@click.option(
    "--baselines",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="SEEDS",
    help="After the search, also run random search and plain NSGA-III at the same cost, each with this number of "
    "seeds, and compare the trained fronts (see cars-hw baselines).",
)
@click.option(
    "--random-share",
    type=click.FloatRange(0, 1),
    help="Share of offspring that are drawn at random; mutation and crossover each make half of the rest. "
    "[the preset's]",
)
@click.option(
    "--mirror/--no-mirror",
    default=True,
    help=fields_of(Recipe)["mirror"].setting.help + " It holds for the search and for cars-hw train.  "
    "[default: mirror]",
)
@no_crop_option("Do not crop training images, in the search and in cars-hw train.")
@tensorboard_option
@track_option("figures of each generation and the files of the run")
@strict_option
@json_option
def command(settings: SearchSettings, **run: Any) -> None:  # noqa: ANN401 -- the fields of Run
    """Search for a Pareto front of networks under a latency budget.

    The front has the most accurate network found for every latency up to the budget. The budget limits the upper
    bound of the predicted latency in one state of the machine, see --state. At the end, the command measures the
    front on the device, if it is available. The next best networks replace those that exceed the budget. An
    interrupted search continues with --resume and ends with the same front. Without a table, the search minimises
    --cost for the network that the options describe.

    With a table over sizes, the search chooses the size of each network as well as its genotype: the channels, the
    number of cells of each stage, and the resolution of its images if the table has several. --channels, --layers,
    --resolution or --network restrict the sizes. Without a table, the search chooses the sizes only if --channels,
    --layers or --resolution give several numbers.

    \b
    To search in several processes, each on a GPU if there is one (all processes restart if one dies):
      torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m cars_hw search --architectures 2 \\
          --data cifar10 --table cifar.json --latency 20ms --preset cifar --out run
    """
    _search(settings, Run(**run))


def _search(settings: SearchSettings, asked: Run) -> None:
    if asked.out is None and not asked.dry_run:
        raise click.UsageError("Missing option '--out'.")
    if asked.baselines and settings.from_run is not None:
        raise click.UsageError(
            "--baselines compares searches of equal cost from fresh weights: leave out --from-run"
        )
    from cars_hw.pipeline.budget_use import budget_uses
    from cars_hw.pipeline.larger_networks import stage_end
    from cars_hw.pipeline.networks import Front
    from cars_hw.pipeline.search import run_search
    from cars_hw.pipeline.search_place import require_place
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.process_group import joined, restarted

    keep_freed_memory()
    resume = asked.resume or restarted()
    plan = _plan(settings)
    if strict_violations():
        # Hours of a search would end with the same exit code.
        return
    plan, estimated = _with_length(plan, settings, asked, resume)
    if asked.dry_run:
        if asked.out is not None:
            require_place(plan, asked.out, resume=asked.resume)
        print_estimate(plan, estimated, settings.jobs, asked.as_json)
        return
    assert asked.out is not None
    with joined(plan.device) as process_group:
        if not process_group.leads:
            run_search(plan, asked.out, resume=asked.resume, process_group=process_group)
            return
        run = lead_search(
            plan,
            asked.out,
            measure=settings.measure,
            jobs=settings.jobs,
            execution=settings.execution,
            resume=resume,
            process_group=process_group,
            tensorboard=asked.tensorboard,
            track=asked.track,
        )
    if asked.resume:
        # A finished search is left as it is, whatever its images are now.
        warn_of_changed_images(run)
    comparison = _compare(run, plan, asked.baselines) if asked.baselines else None
    front, rejected = run.front(), run.rejected()
    warn_of_usual(front)
    if asked.as_json:
        print_json(Front(tuple(front), tuple(rejected), tuple(run.larger())))
        return
    print_front(front, run.configuration.sizes)
    if run.configuration.evolution.objective == "loss" and run.final_stage() is None:
        click.echo(LOSSES_CHOSE)
    if rejected:
        click.echo(f"Measured, {len(rejected)} more exceeded the budget; the next best took their place.")
    best = max(front, key=lambda network: network.accuracy)
    configuration = run.configuration
    end = stage_end(configuration, run.final_stage(), [one.architecture for one in rejected])
    print_budget_use(budget_uses(best, run.targets(), configuration.architectures, end))
    if comparison is not None:
        print_comparison(comparison, configuration.training.classifier)
    count = f"{len(front)} network{'s' if len(front) > 1 else ''}"
    click.echo(f"{run.path / 'front.json'} holds {count}. Next: cars-hw train {shlex.quote(str(run.path))}")


def _plan(settings: SearchSettings) -> SearchPlan:
    """Return the plan of the search; say what its tables are worth and what it is for."""
    from cars_hw.pipeline.plan import search_plan
    from cars_hw.training.precision import resolve_device

    _require_effect(settings)
    plan = search_plan(settings, resolve_device(settings.device))
    require_supernet(plan.network, settings.supernet_layers)
    for target, given in zip(plan.targets, settings.targets, strict=True):
        warn_of_noise(target.table, given.table)
    if plan.sizes is not None:
        options = "--channels, --layers and --resolution" if plan.sizes.resolutions else "--channels and --layers"
        sizes = plan.sizes.describe(plan.network.parts)
        note(f"The search is for networks of {sizes}: {options} restrict the sizes.")
    elif any(target.table.sizes is not None for target in plan.targets):
        note(f"The search is for networks of {plan.network.describe()} alone.")
    return plan


def _require_effect(settings: SearchSettings) -> None:
    """Refuse options of the training of shared weights, whatever they say, where none are trained."""
    if settings.training.trains:
        return
    idle = [
        option
        for path, option in given_options().items()
        if path.removeprefix("training.") in OF_A_STEP or path == "evolution.uniform_draws"
    ]
    if idle:
        has, it = ("have", "them") if idle[1:] else ("has", "it")
        raise click.UsageError(
            f"{' and '.join(idle)} {has} no effect: with --classifier {settings.training.classifier} no shared "
            f"weights are trained; leave {it} out"
        )


def _with_length(
    plan: SearchPlan, settings: SearchSettings, asked: Run, resume: bool
) -> tuple[SearchPlan, Estimate | None]:
    """Return ``plan`` with its length, and its estimate where the length was chosen by it."""
    from cars_hw.pipeline.search_place import require_place

    if asked.within is None and plan.from_run is None:
        return plan, None
    if resume and asked.out is not None and (asked.out / "run.json").is_file():
        return chosen_before(plan, asked.within, asked.out), None
    if asked.out is not None:
        # Before the steps are timed.
        require_place(plan, asked.out, resume=asked.resume)
    if plan.from_run is not None:
        plan = shorten(plan, keep_generations=asked.within is not None)
    if asked.within is None:
        return plan, None
    return choose_length(plan, asked.within, settings.jobs)


def _compare(run: RunFolder, plan: SearchPlan, seeds: int) -> StrategyComparison:
    from cars_hw.studies.baselines import compare_run

    with Bars() as bars:
        settings = BaselinesSettings(plan.data, seeds=seeds, device=cast("TrainingDevice", plan.device))
        return compare_run(run, settings, progress=bars.update, log=bars.log)
