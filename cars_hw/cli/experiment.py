"""``cars-hw experiment``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import (
    FILE,
    FOLDER,
    json_option,
    milliseconds,
    print_json,
    print_table,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import (
    MOVED,
    NETWORK,
    NETWORK_PATHS,
    PRESET,
    require_supernet,
    run_of_networks,
    settings_options,
)
from cars_hw.config.codec import unstructure
from cars_hw.config.units import format_seconds
from cars_hw.studies.settings import FrontSettings, PaperTablesSettings, TrapSettings

if TYPE_CHECKING:
    from cars_hw.studies.published_front import FrontEstimate


@click.group("experiment")
def command() -> None:
    """Repeat the experiments of the CARS paper."""


@command.command("tables")
@settings_options(PaperTablesSettings, "tables", "device", "threads", "measurement.sessions")
@click.option("--out", type=FILE, help="Write the JSON to this file too.")
@json_option
def tables(settings: PaperTablesSettings, out: Path | None, as_json: bool) -> None:
    """Tables 1 (CIFAR-10) and 2 (ImageNet) of the paper, with computed and measured values.

    Parameters and multiply-adds are computed for published genotypes and for networks of torchvision. With
    --device, latencies are measured: with fresh weights, for one image of 32x32 in Table 1 and 224x224 in Table 2.
    Accuracies and GPU days are the paper's.
    """
    from cars_hw.studies.paper_tables import COUNTING, TABLES, compute_table, paper_tables

    if out is not None:
        TABLES.require_replaceable(out)
    chosen = {name: table for name, table in paper_tables().items() if name in (settings.tables or (name,))}
    if settings.device is None:
        computed = {name: compute_table(table) for name, table in chosen.items()}
    else:
        from cars_hw.devices import open_device

        device, plan = open_device(settings.device, settings.threads), settings.measurement
        with Bars() as bars:
            computed = {name: compute_table(table, device, plan, bars.update) for name, table in chosen.items()}
    content = unstructure(computed)
    if out is not None:
        TABLES.write(out, content)
    if as_json:
        print_json(content)
        return
    for table in computed.values():
        print_table(table.title, table.columns, table.cells())
        for line in (table.verdict(), *table.notes(), ""):
            click.echo(line)
    click.echo(COUNTING)
    if out is not None:
        click.echo(f"{out}")


@command.command("small-model-trap")
@settings_options(
    TrapSettings,
    "data.source",
    "data.root",
    "data.download",
    "table",
    "cost",
    "generations",
    "evolution.population",
    "seeds",
    "protections",
    "recipe.epochs",
    "proxy",
    "jobs",
    "execution.executor",
    "device",
    *NETWORK_PATHS,
    bases=(
        replace(
            PRESET,
            help="Settings of the searches, and the recipe of the networks that are trained standalone.",
        ),
        replace(NETWORK, default="tiny"),
    ),
    help={"recipe.epochs": "Epochs of the networks that are trained standalone."},
)
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help="The folder for the results. To resume an interrupted command, repeat it with the same folder.",
)
@json_option
def trap(settings: TrapSettings, out: Path, as_json: bool) -> None:
    """Figures 2 and 3: without protection, the population loses its large networks.

    The same search runs under plain NSGA-III (none) and under each protection, and the sizes of each population are
    recorded. A small, a middle and a large architecture are trained from scratch, and their accuracy is recorded
    after every epoch. To resume an interrupted command, repeat it. The result is OUT/small-model-trap.json, and the
    plots are OUT/small-model-trap.html.
    """
    if settings.table is not None and settings.cost is not None:
        raise click.UsageError("with --table sizes are latencies: leave --cost out")
    from cars_hw.config.files import write_text
    from cars_hw.config.presets import Preset
    from cars_hw.latency import LatencyTable
    from cars_hw.pipeline.latency_target import LatencyTarget
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.report.experiments import trap_page
    from cars_hw.studies.small_model_trap import rows_of, small_model_trap
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.precision import resolve_device

    own = settings.evolution
    epochs = own.warmup_epochs + settings.generations * own.epochs_per_generation
    read = None if settings.table is None else LatencyTable.read(settings.table)
    plan = SearchPlan(
        data=settings.data,
        network=settings.network if read is None else read.spec,
        preset=Preset(
            summary="",
            recipe=settings.recipe,
            supernet_channels=settings.supernet_channels,
            supernet_layers=settings.supernet_layers,
            evolution=replace(own, epochs=epochs),
            training=settings.training,
        ),
        targets=() if read is None else (LatencyTarget(read),),
        costs=() if read is not None else (settings.cost or "parameters",),
        proxy=settings.proxy,
        device=resolve_device(settings.device),
    )
    require_supernet(plan.network, settings.supernet_layers)
    keep_freed_memory()
    with Bars() as bars:
        found = small_model_trap(
            plan,
            out,
            protections=settings.protections or tuple(dict.fromkeys((own.protection, "speed"))),
            seeds=settings.seeds,
            recipe=settings.recipe,
            jobs=settings.jobs,
            execution=settings.execution,
            progress=bars.update,
            log=bars.log,
        )
    page = out / "small-model-trap.html"
    write_text(page, trap_page(found, f"{plan.data.source}: networks of {plan.network.describe()}"))
    if as_json:
        print_json(found)
        return
    print_table(f"{found.cost} of the population, {found.unit}", *rows_of(found))
    for sentence in found.verdict:
        click.echo(sentence)
    click.echo(f"{page}")


@command.command("front")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@settings_options(
    FrontSettings,
    "measured_on",
    "references",
    "families",
    "random",
    "budgets",
    "data.source",
    "data.root",
    "data.download",
    "recipe.epochs",
    "recipe.hold_out",
    "from_scratch",
    "seed",
    "jobs",
    "execution.executor",
    "threads",
    "measurement.sessions",
    "device",
    run=run_of_networks,
    help={
        **MOVED,
        "recipe.epochs": "Epochs of the trainings. [those of the run's recipe]",
    },
)
@click.option("--out", type=FOLDER, help="The folder for the results. [RUN/comparison]")
@click.option("--dry-run", is_flag=True, help="Print what would be trained and how long that takes; train nothing.")
@json_option
def front(run_path: Path, settings: FrontSettings, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Figure 1: compare accuracy and measured latency of a run's networks with published networks.

    The trained networks of the run are compared with genotypes of the zoo and networks of torchvision. The
    published networks are trained from scratch with the run's recipe and data. In torchvision's networks, the first
    convolution and the classifier are adapted to the run's images and classes. All networks are measured together,
    in the same rounds of sessions; torchvision's networks are measured on ort only.

    After a search over sizes, a genotype is compared at the sizes that come nearest below the budgets. --random
    adds random architectures: as many as can be trained at the cost of the whole run. If images are held out
    (--hold-out), the command also lists the most accurate network of each origin within each budget: of the run, of
    the genotypes, of torchvision, and of the random architectures. The held-out images choose these networks, and
    their accuracies are those on the test images.

    To resume an interrupted command, repeat it. The result is front.json and front.html in --out; the report shows
    it, too.
    """
    from cars_hw.config.files import write_text
    from cars_hw.devices import open_device
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.report.experiments import front_page
    from cars_hw.studies import budget_choice
    from cars_hw.studies.front_membership import rows_of
    from cars_hw.studies.published_front import DEFAULT, compare_front, estimate_front
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    device = open_device(settings.measured_on, settings.threads)
    keep_freed_memory()
    if not settings.references and not settings.families:
        settings = replace(settings, references=DEFAULT)
    if dry_run:
        with Bars() as bars:
            planned = estimate_front(run, device, settings, out=out, progress=bars.update, log=bars.log)
        _print_estimate(planned, as_json)
        return
    with Bars() as bars:
        found = compare_front(run, device, settings, out=out, progress=bars.update, log=bars.log)
    page = (out or run.path / "comparison") / "front.html"
    write_text(page, front_page(found, f"{run.path.name}/: {run.configuration.describe_networks()}"))
    if as_json:
        print_json(found)
        return
    print_table(f"Accuracy against latency on {found.device}", *rows_of(found))
    if found.at_budgets:
        print_table("The most accurate networks within each budget", *budget_choice.rows_of(found.at_budgets))
    for sentence in found.remarks:
        click.echo(sentence)
    click.echo(f"{page}")


def _print_estimate(found: FrontEstimate, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (part.name, f"{part.times:,}", f"{1e3 * part.seconds:.3g} ms", format_seconds(part.total_seconds))
        for part in found.parts
    ]
    if found.out_of_range:
        names = ", ".join(f"{one.name} ({milliseconds(one.latency_ms)})" for one in found.out_of_range)
        click.echo(f"Not trained, since their latency is outside of the range of the run: {names}.")
    if found.equal_cost is not None:
        click.echo(f"{found.equal_cost.sentence}.")
    if not rows:
        click.echo("All networks are trained already; only measuring is left.")
        return
    print_table("", ("work", "steps", "each", "in all"), rows)
    click.echo(f"About {format_seconds(found.seconds)} of training; the evaluations and the measuring come on top.")
