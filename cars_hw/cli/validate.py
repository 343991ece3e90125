"""``cars-hw validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import (
    FILE,
    GENOTYPE,
    PICTURE,
    Named,
    count_warnings_of,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_table,
    warn_of_drift,
    warn_of_noise,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import settings_options
from cars_hw.cli.signals import ends_in_order
from cars_hw.cli.verbosity import strict_option
from cars_hw.config.codec import unstructure
from cars_hw.pipeline.device_settings import ValidateSettings

if TYPE_CHECKING:
    from numpy.random import Generator

    from cars_hw.latency import LatencyTable, Validation
    from cars_hw.space.architecture import Architecture
    from cars_hw.space.genotype import Genotype


@click.command("validate")
@settings_options(ValidateSettings, "table", "sample", "seed", "level", "zoo", "measurement.patience_seconds")
@click.option("--plot", type=PICTURE, help="Draw predicted against measured latency: a PNG, SVG or PDF file.")
@click.option("--out", type=FILE, help="Write all results to this JSON file.")
@strict_option
@json_option
@click.argument("genotypes", metavar="[GENOTYPE]...", type=GENOTYPE, nargs=-1)
@ends_in_order
def command(
    settings: ValidateSettings,
    plot: Path | None,
    out: Path | None,
    as_json: bool,
    genotypes: tuple[Named, ...],
) -> None:
    """Compare the predictions of a table with its device.

    The networks that are measured took no part in the calibration of the table.

    Every network is measured twice. The difference of the two is the noise floor: no prediction can be more
    accurate. The output compares the table's error with the noise floor and with the errors of simpler predictors
    on the same networks.
    """
    import numpy as np

    from cars_hw.config.files import require_writable
    from cars_hw.devices import open_device
    from cars_hw.latency import LatencyTable, validate_table
    from cars_hw.latency.validation import VALIDATION

    if out is not None:
        VALIDATION.require_replaceable(out)
    if plot is not None:
        # Where matplotlib is missing, this fails before the measurement.
        import matplotlib  # noqa: F401

        from cars_hw.report.plot_file import write_scatter

        require_writable(plot)
    table = LatencyTable.read(settings.table)
    warn_of_noise(table, settings.table)
    named: list[tuple[str, Genotype | Architecture]] = [
        (_name(table, one.name), one.genotype)
        for one in (*genotypes, *(_zoo(table, genotypes) if settings.zoo else ()))
    ]
    if settings.sample is not None or not named:
        named += _drawn(table, settings.sample or 30, np.random.default_rng(settings.seed))
    device = open_device(table.device, table.threads)
    with Bars() as bars:
        result = validate_table(
            table,
            device,
            [network for _, network in named],
            plan=settings.measurement,
            level=settings.level,
            progress=bars.update,
        )
    names = [name for name, _ in named]
    warn_of_drift(device.name, result.drift)
    count_warnings_of(device)
    record = {"table": str(settings.table), "names": names, **unstructure(result)}
    if out is not None:
        VALIDATION.write(out, record)
    if plot is not None:
        points = [(row.measured_ms, row.predicted_ms) for row in result.rows]
        title = f"{len(points)} networks on {device.name}"
        write_scatter(plot, points, "measured latency, ms", "predicted latency, ms", title)
    if as_json:
        print_json(record)
        return
    _print(names, result, device.name)


def _name(table: LatencyTable, name: str) -> str:
    """Return ``name``, with the size of the network where the table is for several."""
    return name if table.sizes is None else f"{name}, {table.sizes.describe_size(table.spec)}"


def _drawn(table: LatencyTable, count: int, rng: Generator) -> list[tuple[str, Genotype | Architecture]]:
    """Return random networks for the table, with names; those of a table over sizes tell their size."""
    from cars_hw.latency import fresh_architectures, fresh_genotypes

    if table.sizes is None:
        drawn = fresh_genotypes(table, count, rng)
        return [(f"random {number}", genotype) for number, genotype in enumerate(drawn, start=1)]
    sized = fresh_architectures(table, table.sizes, count, rng)
    return [
        (f"random {number}, {table.sizes.describe_size(one.network)}", one)
        for number, one in enumerate(sized, start=1)
    ]


def _zoo(table: LatencyTable, given: Sequence[Named]) -> list[Named]:
    """Return the published genotypes, each once, without those that are ``given`` or that calibrated ``table``."""
    from cars_hw.space.zoo import whole_zoo

    seen = {network.genotype.key() for network in table.calibration} | {one.genotype.key() for one in given}
    chosen = []
    family = table.spec.base_family
    for name, published in whole_zoo().items():
        genotype = published.genotype
        # Cells that join other states than their family need operations that the table does not have.
        joins = genotype.normal_joined is None and genotype.reduce_joined is None
        if genotype.family == family and joins and genotype.key() not in seen:
            seen.add(genotype.key())
            chosen.append(Named(name, genotype))
    return chosen


def _print(names: Sequence[str], result: Validation, device: str) -> None:
    rows = [
        (
            name,
            milliseconds(row.predicted_ms),
            milliseconds(row.bound_ms),
            milliseconds(row.measured_ms),
            milliseconds(row.again_ms),
            percent(row.error),
        )
        for name, row in zip(names, result.rows, strict=True)
    ]
    print_table("", ("network", "predicted", "upper bound", "measured", "again", "error"), rows)
    evaluated = {"this table's predictor": result.accuracy, **result.baselines}
    rows = [
        (
            name,
            percent(accuracy.mean_error),
            percent(accuracy.bias),
            percent(accuracy.within_5, 0),
            percent(accuracy.within_10, 0),
            "-" if accuracy.kendall_tau is None else f"{accuracy.kendall_tau:.3f}",
        )
        for name, accuracy in evaluated.items()
    ]
    columns = ("predicted by", "mean error", "bias", "within 5%", "within 10%", "Kendall's tau")
    print_table(f"{len(names)} networks on {device}", columns, rows)
    click.echo(
        f"The bound (level {percent(result.level, 0)}) held for {percent(result.coverage)}.\n"
        f"Noise floor: the same networks measured twice differ by {percent(result.noise_floor)}; networks of the "
        f"table, then and now, by {percent(result.then_and_now)}; sessions spread by {percent(result.noise)}.\n"
        f"The reference network takes {percent(result.drift)} more than when the table was made."
    )
