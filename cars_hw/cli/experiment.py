"""``cars-hw experiment``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.completion import complete_data, complete_devices, complete_references
from cars_hw.cli.options import (
    COSTS,
    FILE,
    FOLDER,
    PROTECTIONS,
    data_of,
    data_options,
    jobs_option,
    json_option,
    network_options_with,
    on_option,
    preset_option,
    print_json,
    print_table,
    spec_of,
    threads_option,
    training_device,
)
from cars_hw.cli.progress_bars import Bars

if TYPE_CHECKING:
    from cars_hw.config.search import Protection


@click.group("experiment")
def command() -> None:
    """Repeat the experiments of the CARS paper."""


@command.command("tables")
@click.option(
    "--paper-table",
    "names",
    type=click.Choice(["cifar10", "imagenet", "figure1"]),
    multiple=True,
    help="Table 1, Table 2, or the networks that Figure 1 has besides. Repeatable. [all]",
)
@click.option(
    "--device",
    "device_name",
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="Measure latencies there too; see: cars-hw devices.",
)
@threads_option
@click.option("--sessions", type=click.IntRange(1), default=3, show_default=True, help="Fresh sessions a network.")
@click.option("--out", type=FILE, help="Write the JSON to this file too.")
@json_option
def tables(
    names: tuple[str, ...], device_name: str | None, threads: int, sessions: int, out: Path | None, as_json: bool
) -> None:
    """Tables 1 (CIFAR-10) and 2 (ImageNet) of the paper, with computed and measured values.

    Parameters and multiply-adds are computed for published genotypes and for networks of torchvision. With
    --device, latencies are measured: with fresh weights, for one image of 32x32 in Table 1 and 224x224 in Table 2.
    Accuracies and GPU days are the paper's.
    """
    from cars_hw.config.files import write_json
    from cars_hw.studies.paper_tables import COUNTING, compute_table, paper_tables

    chosen = {name: table for name, table in paper_tables().items() if name in (names or (name,))}
    if device_name is None:
        computed = {name: compute_table(table) for name, table in chosen.items()}
    else:
        from cars_hw.config.measurement import MeasurePlan
        from cars_hw.devices import open_device

        device, plan = open_device(device_name, threads), MeasurePlan(sessions=sessions)
        with Bars() as bars:
            computed = {name: compute_table(table, device, plan, bars.update) for name, table in chosen.items()}
    content = {name: table.to_dict() for name, table in computed.items()}
    if out is not None:
        write_json(out, content)
    if as_json:
        print_json(content)
        return
    for table in computed.values():
        print_table(table.table.title, table.columns, table.cells())
        for line in (table.verdict(), *table.notes(), ""):
            click.echo(line)
    click.echo(COUNTING)
    if out is not None:
        click.echo(f"{out}")


@command.command("small-model-trap")
@click.option(
    "--data", shell_complete=complete_data, default="fashion-mini", show_default=True, help="As for cars-hw search."
)
@data_options
@click.option("--table", "table_path", type=FILE, help="Sizes are latencies by this table; the network is its own.")
@click.option(
    "--cost",
    type=click.Choice(COSTS),
    help="What sizes are without a table. [parameters]",
)
@preset_option("Settings of the searches, and the recipe of the networks that are trained alone.")
@click.option(
    "--generations",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Of each search, after the preset's epochs of warm-up.",
)
@click.option("--population", type=click.IntRange(2), help="Instead of the preset's.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Searches a protection.")
@click.option(
    "--protect",
    "protections",
    type=click.Choice([name for name in PROTECTIONS if name != "none"]),
    multiple=True,
    help="Beside none. Repeatable. [the preset's own, and speed]",
)
@click.option("--epochs", type=click.IntRange(1), help="Of the networks that are trained alone. [the recipe's]")
@click.option("--proxy", is_flag=True, help="Search on other data than the network ships for, as the paper does.")
@click.option("--out", type=FOLDER, required=True, help="Where everything goes. The same command goes on there.")
@click.option(
    "--jobs", type=click.IntRange(1), help="Searches and trainings side by side. [one a core; one on a GPU]"
)
@on_option
@json_option
@network_options_with("tiny")
def trap(
    data: str,
    data_root: Path | None,
    download: bool,
    table_path: Path | None,
    cost: str | None,
    preset_name: str,
    generations: int,
    population: int | None,
    seeds: int,
    protections: tuple[Protection, ...],
    epochs: int | None,
    proxy: bool,
    out: Path,
    jobs: int | None,
    on: str,
    as_json: bool,
    **network: Any,  # noqa: ANN401 -- those of network_options_with
) -> None:
    """Figures 2 and 3: the loss of large networks without protection.

    The same search runs under plain NSGA-III (none) and under each protection, and the sizes of each population are
    recorded. A small, a middle and a large architecture are trained from scratch, and their accuracy is recorded
    after every epoch. To resume an interrupted command, repeat it. The result is OUT/small-model-trap.json, and the
    plots are OUT/small-model-trap.html.
    """
    if table_path is not None and cost is not None:
        raise click.UsageError("with --table sizes are latencies: leave --cost out")
    from cars_hw.config.data import DataSource
    from cars_hw.config.files import write_text
    from cars_hw.config.presets import named_preset
    from cars_hw.latency import LatencyTable
    from cars_hw.pipeline.latency_target import LatencyTarget
    from cars_hw.pipeline.plan import SearchPlan
    from cars_hw.report.experiments import trap_page
    from cars_hw.studies.small_model_trap import rows_of, small_model_trap
    from cars_hw.training.memory import keep_freed_memory

    preset = named_preset(preset_name)
    recipe = preset.recipe if epochs is None else replace(preset.recipe, epochs=epochs)
    evolution = replace(
        preset.evolution,
        epochs=preset.evolution.warmup_epochs + generations * preset.evolution.epochs_per_generation,
        population=population or preset.evolution.population,
    )
    read = None if table_path is None else LatencyTable.read(table_path)
    plan = SearchPlan(
        data=DataSource(data, data_root, download),
        network=spec_of(**network) if read is None else read.spec,
        preset=replace(preset, evolution=evolution),
        targets=() if read is None else (LatencyTarget(read),),
        costs=() if read is not None else (cost or "parameters",),
        proxy=proxy,
        device=training_device(on),
    )
    keep_freed_memory()
    with Bars() as bars:
        found = small_model_trap(
            plan,
            out,
            protections=protections or tuple(dict.fromkeys((preset.evolution.protection, "speed"))),
            seeds=seeds,
            recipe=recipe,
            jobs=jobs,
            progress=bars.update,
            log=bars.log,
        )
    page = out / "small-model-trap.html"
    write_text(page, trap_page(found, f"{plan.data.source}: networks of {plan.network.describe()}"))
    if as_json:
        print_json(found.to_dict())
        return
    print_table(f"{found.cost} of the population, {found.unit}", *rows_of(found))
    for sentence in found.verdict():
        click.echo(sentence)
    click.echo(f"{page}")


@command.command("front")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@click.option(
    "--device",
    "device_name",
    required=True,
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="See: cars-hw devices.",
)
@click.option(
    "--reference",
    "references",
    metavar="NAME",
    shell_complete=complete_references,
    multiple=True,
    help="Of cars-hw zoo, or of torchvision: MobileNetV2, MNASNet, ShuffleNetV2, ResNet-18, or as torchvision "
    "calls it. Repeatable. [CARS_A, CARS_I, DARTS_V2 and these four]",
)
@click.option("--data", shell_complete=complete_data, help="Other data than the run's.")
@data_options
@click.option("--epochs", type=click.IntRange(1), help="Instead of those of the run's recipe.")
@click.option("--from-scratch", is_flag=True, help="Train the run's networks anew too, without the shared weights.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the first weights of what is trained, and the order of images.",
)
@jobs_option
@threads_option
@click.option("--sessions", type=click.IntRange(1), default=5, show_default=True, help="Fresh sessions a network.")
@click.option("--out", type=FOLDER, help="Where everything goes. [RUN/comparison]")
@on_option
@json_option
def front(
    run_path: Path,
    device_name: str,
    references: tuple[str, ...],
    data: str | None,
    data_root: Path | None,
    download: bool,
    epochs: int | None,
    from_scratch: bool,
    seed: int,
    jobs: int | None,
    threads: int,
    sessions: int,
    out: Path | None,
    on: str,
    as_json: bool,
) -> None:
    """Figure 1: accuracy against latency measured on the device, beside published networks.

    The trained networks of the run are compared with genotypes of the zoo and networks of torchvision. The first
    convolution and the classifier of these are adapted to the run's images and classes. They are trained from
    scratch by the run's recipe on its data, and measured in the same rounds of sessions. torchvision's networks are
    measured on ort only. To resume an interrupted command, repeat it. The result is front.json and front.html in
    --out.
    """
    from cars_hw.config.files import write_text
    from cars_hw.config.measurement import MeasurePlan
    from cars_hw.devices import open_device
    from cars_hw.pipeline.plan import recipe_of
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.report.experiments import front_page
    from cars_hw.studies.front_membership import rows_of
    from cars_hw.studies.published_front import DEFAULT, compare_front
    from cars_hw.training.memory import keep_freed_memory

    run = RunFolder.open(run_path)
    recipe = recipe_of(run)
    device = open_device(device_name, threads)
    keep_freed_memory()
    with Bars() as bars:
        found = compare_front(
            run,
            device,
            data=data_of(run.configuration["data"], data, data_root, download),
            references=references or DEFAULT,
            recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
            from_scratch=from_scratch,
            out=out,
            plan=MeasurePlan(sessions=sessions),
            seed=seed,
            train_on=training_device(on),
            jobs=jobs,
            progress=bars.update,
            log=bars.log,
        )
    page = (out or run.path / "comparison") / "front.html"
    write_text(page, front_page(found, f"{run.path.name}/: {run.network.describe()}"))
    if as_json:
        print_json(found.to_dict())
        return
    print_table(f"Accuracy against latency on {found.device}", *rows_of(found))
    for sentence in found.remarks():
        click.echo(sentence)
    click.echo(f"{page}")
