"""``cars-hw measure``."""

from __future__ import annotations

import click

from cars_hw.cli.options import (
    GENOTYPE,
    Named,
    count_warnings_of,
    describe_states,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_sustained,
    print_table,
    warn_not_quiet,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import NETWORK, NETWORK_PATHS, settings_options
from cars_hw.cli.signals import ends_in_order
from cars_hw.cli.verbosity import strict_option, warn_of_quality
from cars_hw.pipeline.device_settings import MeasureSettings
from cars_hw.space.architecture import Architecture


@click.command("measure")
@settings_options(
    MeasureSettings,
    "device",
    *NETWORK_PATHS,
    "threads",
    "measurement.sessions",
    "measurement.patience_seconds",
    "sustained",
    bases=(NETWORK,),
)
@strict_option
@json_option
@click.argument("genotypes", metavar="GENOTYPE...", type=GENOTYPE, nargs=-1, required=True)
@ends_in_order
def command(settings: MeasureSettings, as_json: bool, genotypes: tuple[Named, ...]) -> None:
    """Measure whole networks on a device.

    Each network has fresh weights: latency does not depend on them. With --sustained, the networks then run one
    after the other for minutes, and the command prints the 50th and the 90th percentile of all runs of the last
    minute.
    """
    from cars_hw.devices import open_device
    from cars_hw.latency.measure import measure_genotypes, sustained_architectures
    from cars_hw.measurement.sustained import Sustained, require_load_device
    from cars_hw.studies.measurement_noise import UNSTEADY

    device = open_device(settings.device, settings.threads)
    if settings.sustained:
        require_load_device(device)
    loads: list[Sustained] = []
    with Bars() as bars:
        found_all = measure_genotypes(
            device,
            settings.network,
            [named.genotype for named in genotypes],
            settings.measurement,
            bars.update,
        )
        if settings.sustained:
            networks = [Architecture(named.genotype, settings.network) for named in genotypes]
            loads = sustained_architectures(device, networks, settings.load, bars.update)
    by_name = {named.name: load for named, load in zip(genotypes, loads, strict=False)}
    measured, machine = found_all.models, found_all.machine
    warnings = [*count_warnings_of(device), *machine.warnings()]
    for text in machine.warnings():
        warn_of_quality(f"{device.name}: {text}")
    for named, found in zip(genotypes, measured, strict=True):
        if found.spread > UNSTEADY:
            warn_of_quality(
                f"{named.name}: repeated sessions differ by {percent(found.spread)}, more than "
                f"{percent(UNSTEADY, 0)}; measure again when no other process uses the device"
            )
    warn_not_quiet(
        device.name,
        [named.name for named, found in zip(genotypes, measured, strict=True) if found.quiet_sessions == 0],
    )
    if as_json:
        from cars_hw.cli.outputs import MeasureOutput

        print_json(
            [
                MeasureOutput(
                    name=named.name,
                    genotype=named.genotype,
                    ms=found.ms,
                    usual_ms=found.in_state(machine.usual_factor),
                    standard_error=found.standard_error,
                    spread=found.spread,
                    quiet_sessions=found.quiet_sessions,
                    states=machine.states,
                    samples=tuple(sample.ms for sample in found.samples),
                    warnings=tuple(warnings),
                    sustained=by_name.get(named.name),
                )
                for named, found in zip(genotypes, measured, strict=True)
            ]
        )
        print_sustained(device.name, by_name, as_json=True)
        return
    rows = [
        (
            named.name,
            milliseconds(found.ms),
            percent(found.standard_error),
            milliseconds(found.in_state(machine.usual_factor)),
            percent(found.spread),
            f"{found.quiet_sessions} of {found.sessions}",
        )
        for named, found in zip(genotypes, measured, strict=True)
    ]
    columns = ("genotype", "latency", "standard error", "usual state", "spread", "quiet sessions")
    print_table(f"{settings.network.describe()} on {device.name}", columns, rows)
    click.echo(describe_states(machine))
    print_sustained(device.name, by_name)
