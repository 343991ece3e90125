"""``cars-hw measure``."""

from __future__ import annotations

from typing import Any

import click

from cars_hw.cli.completion import complete_devices
from cars_hw.cli.options import (
    GENOTYPE,
    Named,
    json_option,
    milliseconds,
    network_options,
    percent,
    print_json,
    print_table,
    spec_of,
    threads_option,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.verbosity import strict_option, warn_of_quality


@click.command("measure")
@click.option(
    "--device",
    "device_name",
    required=True,
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="What to measure on; see: cars-hw devices.",
)
@network_options
@threads_option
@click.option(
    "--sessions",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Freshly loaded models a network; the latency is the median over them.",
)
@strict_option
@json_option
@click.argument("genotypes", metavar="GENOTYPE...", type=GENOTYPE, nargs=-1, required=True)
def command(
    device_name: str,
    threads: int,
    sessions: int,
    as_json: bool,
    genotypes: tuple[Named, ...],
    **network: Any,  # noqa: ANN401 -- the options of network_options
) -> None:
    """Measure whole networks on a device.

    Each network has fresh weights: latency does not depend on them.
    """
    spec = spec_of(**network)
    from cars_hw.config.measurement import MeasurePlan
    from cars_hw.devices import open_device
    from cars_hw.latency import measure_genotypes
    from cars_hw.studies.measurement_noise import UNSTEADY

    device = open_device(device_name, threads)
    plan = MeasurePlan(sessions=sessions)
    with Bars() as bars:
        measured = measure_genotypes(
            device,
            spec,
            [named.genotype for named in genotypes],
            plan,
            bars.update,
        ).models
    for named, found in zip(genotypes, measured, strict=True):
        if found.spread > UNSTEADY:
            warn_of_quality(
                f"{named.name}: repeated sessions differ by {percent(found.spread)}, more than "
                f"{percent(UNSTEADY, 0)}; measure again when no other process uses the device"
            )
    if as_json:
        print_json(
            [
                {
                    "name": named.name,
                    "genotype": named.genotype.to_dict(),
                    "ms": found.ms,
                    "spread": found.spread,
                    "samples": [sample.ms for sample in found.samples],
                }
                for named, found in zip(genotypes, measured, strict=True)
            ]
        )
        return
    rows = [
        (named.name, milliseconds(found.ms), percent(found.spread), str(found.sessions))
        for named, found in zip(genotypes, measured, strict=True)
    ]
    print_table(f"{spec.describe()} on {device.name}", ("genotype", "latency", "spread", "sessions"), rows)
