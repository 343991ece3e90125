"""``cars-hw profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.bars import Bars
from cars_hw.cli.common import (
    FILE,
    json_option,
    network_options,
    percent,
    print_json,
    spec_of,
    threads_option,
    warn_of_noise,
)
from cars_hw.units import format_latency

if TYPE_CHECKING:
    from cars_hw.devices.protocol import Precision


@click.command("profile")
@click.option(
    "--device", "device_name", required=True, metavar="DEVICE", help="What to measure; see: cars-hw devices."
)
@network_options
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True)
@threads_option
@click.option(
    "--calibration",
    type=click.IntRange(4),
    default=40,
    show_default=True,
    help="Whole networks that the predictor is fitted on.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which networks these are.")
@click.option("--out", type=FILE, required=True, help="The table to write, a JSON file.")
@click.option("--resume", is_flag=True, help="Go on with a profile that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace a table that is there.")
@json_option
def command(
    device_name: str,
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
    from cars_hw.devices import open_device
    from cars_hw.latency import Predictor, profile

    device = open_device(device_name, threads)
    with Bars() as bars:
        table = profile(
            device,
            spec,
            precision=precision,
            calibration=calibration,
            seed=seed,
            out=out,
            resume=resume,
            overwrite=overwrite,
            progress=bars.update,
        )
    predictor = Predictor(table)
    latencies = sorted(network.measured.ms for network in table.calibration)
    summary = {
        "table": str(out),
        "device": table.device,
        "operations": len(table.entries),
        "calibration_networks": len(latencies),
        "fastest_ms": latencies[0],
        "slowest_ms": latencies[-1],
        "margin": predictor.margin,
        "level": predictor.level,
        "noise": table.noise,
        "unrest": table.unrest,
        "distrust": table.distrust(),
        "predictor": table.predictor.kind if table.predictor is not None else None,
        "left_out_error": dict(table.predictor.left_out_error) if table.predictor is not None else {},
    }
    warn_of_noise(table, out)
    if as_json:
        print_json(summary)
        return
    click.echo(
        f"{out}: {len(table.entries)} operations and {len(latencies)} networks of {spec.describe()} on "
        f"{table.device}.\nThese networks take {format_latency(latencies[0])} to {format_latency(latencies[-1])}. "
        f"The upper bound is {percent(predictor.margin)} above the prediction and holds for "
        f"{percent(predictor.level, 0)} of networks; repeated sessions differ by {percent(table.noise)}, and the "
        f"machine's speed wandered by {percent(table.unrest)}."
    )
