"""``cars-hw profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.completion import complete_devices
from cars_hw.cli.options import (
    FILE,
    json_option,
    network_options,
    percent,
    print_json,
    spec_of,
    threads_option,
    warn_of_noise,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.verbosity import strict_option
from cars_hw.config.units import format_latency

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.latency import LatencyTable


@click.command("profile")
@click.option(
    "--device",
    "device_names",
    required=True,
    multiple=True,
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="What to measure; see: cars-hw devices. Several are measured side by side, one table each; android:* is "
    "every phone on the cable.",
)
@network_options
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the models that are measured. A search with an int8 table is held to int8 latency.",
)
@threads_option
@click.option(
    "--calibration",
    type=click.IntRange(4),
    default=40,
    show_default=True,
    help="Whole networks that the predictor is fitted on: more take longer; with few, the bound holds less often.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Decides which networks these are, and the order of sessions.",
)
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="The table to write, a JSON file. With several devices each table has its device's name in its own: "
    "phones.json becomes phones-android-SERIAL.json.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with a profile that was interrupted, after its last block of sessions."
)
@click.option("--overwrite", is_flag=True, help="Replace a table that is there.")
@strict_option
@json_option
def command(
    device_names: tuple[str, ...],
    precision: Precision,
    threads: int,
    calibration: int,
    seed: int,
    out: Path,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **network: Any,  # noqa: ANN401 -- the options of network_options
) -> None:
    """Measure a device into a latency table.

    Every operation that a network of the search space can have is measured by itself, and then whole networks, on
    which the predictor of a network's latency is fitted. The table is for the network that the options describe.
    """
    spec = spec_of(**network)
    from cars_hw.devices import named_devices, open_device
    from cars_hw.latency.side_by_side import profile_all, table_paths

    names = named_devices(device_names)
    devices = [open_device(name, threads) for name in names]
    paths = table_paths(out, devices)
    with Bars() as bars:
        tables = profile_all(
            devices,
            spec,
            paths,
            precision=precision,
            calibration=calibration,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            progress=bars.update,
        )
    for table, path in zip(tables, paths, strict=True):
        warn_of_noise(table, path)
    summaries = [_summary(table, path) for table, path in zip(tables, paths, strict=True)]
    if as_json:
        print_json(summaries[0] if len(names) == 1 else summaries)
        return
    for table, summary in zip(tables, summaries, strict=True):
        click.echo(
            f"{summary['table']}: {summary['operations']} operations and {summary['calibration_networks']} "
            f"networks of {spec.describe()} on {table.device}.\nThese networks take "
            f"{format_latency(summary['fastest_ms'])} to {format_latency(summary['slowest_ms'])}. The upper bound "
            f"is {percent(summary['margin'])} above the prediction and holds for {percent(summary['level'], 0)} of "
            f"networks; repeated sessions differ by {percent(table.noise)}, and the machine's speed wandered by "
            f"{percent(table.speed_variation)}."
        )


def _summary(table: LatencyTable, path: Path) -> dict[str, Any]:
    from cars_hw.pipeline.latency_target import LatencyTarget

    predictor = LatencyTarget(table).predictor
    latencies = sorted(network.measured.ms for network in table.calibration)
    return {
        "table": str(path),
        "device": table.device,
        "operations": len(table.entries),
        "calibration_networks": len(latencies),
        "fastest_ms": latencies[0],
        "slowest_ms": latencies[-1],
        "margin": predictor.margin,
        "level": predictor.level,
        "noise": table.noise,
        "unrest": table.speed_variation,
        "distrust": table.quality_warnings(),
        "predictor": table.predictor.kind if table.predictor is not None else None,
        "left_out_error": dict(table.predictor.left_out_error) if table.predictor is not None else {},
    }
