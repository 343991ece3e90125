"""``cars-hw profile``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cars_hw.cli.options import (
    FILE,
    RESOLUTIONS,
    SizesType,
    describe_states,
    describe_sustained,
    json_option,
    percent,
    print_json,
    track_option,
    warn_of_noise,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import NETWORK, NETWORK_PATHS, SIZE_PATHS, Converted, settings_options
from cars_hw.cli.signals import ends_in_order
from cars_hw.cli.verbosity import strict_option
from cars_hw.config.units import format_latency
from cars_hw.pipeline.device_settings import ProfileSettings

if TYPE_CHECKING:
    from cars_hw.callbacks import ProfileCallback
    from cars_hw.cli.outputs import ProfileOutput
    from cars_hw.latency import LatencyTable, SizeRange


MOST_KINDS: Final = 3
"""The largest number of kinds that are named."""


def _sized(name: str, numbers: tuple[int, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for the ``numbers`` of channels or layers: of the network, or of a range of sizes."""
    if values.get("wanted") is not None:
        return {"wanted": {name: list(numbers)}}
    if len(numbers) == 1 and "sizes" not in values:
        return {"network": {name: numbers[0]}}
    return {"sizes": {**_own_size(values), **values.get("sizes", {}), name: list(numbers)}}


def _at(resolutions: tuple[tuple[int, int], ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for ``resolutions``: of the network, or of a range of sizes."""
    several = [list(one) for one in resolutions] if len(resolutions) > 1 else []
    found: dict[str, Any] = {} if several else {"network": {"resolution": list(resolutions[0])}}
    if values.get("wanted") is not None:
        return {**found, "wanted": {"resolutions": several}}
    if several or "sizes" in values:
        found["sizes"] = {**_own_size(values), **values.get("sizes", {}), "resolutions": several}
    return found


def _own_size(values: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: [values["network"][name]] for name in ("channels", "layers")}


@click.command("profile")
@settings_options(
    ProfileSettings,
    "devices",
    "wanted.latencies_ms",
    *(path for path in NETWORK_PATHS if path not in SIZE_PATHS),
    "precision",
    "threads",
    "calibration",
    "seed",
    "measurement.patience_seconds",
    "sustained",
    "execution.executor",
    bases=(NETWORK,),
    converted=(
        Converted("channels", partial(_sized, "channels")),
        Converted("layers", partial(_sized, "layers")),
        Converted("resolution", _at),
    ),
    help={
        "execution.executor": "With dask:ADDRESS or ray:ADDRESS, each device is measured by the worker that has a "
        "resource with the name of the device: phones on several hosts. The folder of --out must be shared."
    },
)
@click.option(
    "--channels",
    type=SizesType(step=4),
    help="Channels of the first cell, an even number; they double at each of two reductions. A range such as 8..48 "
    "(every fourth number), 8..48:8 (every eighth) or a list such as 8,12,16 makes a table over sizes. "
    "[--network's]",
)
@click.option(
    "--layers",
    type=SizesType(step=1),
    help="Number of cells, 3 at least. A range such as 5..20 makes a table over sizes. [--network's]",
)
@click.option(
    "--resolution",
    type=RESOLUTIONS,
    help="Images are resized to this size in pixels: 32, or height x width such as 65x97. A range such as 16..32 "
    "(every fourth number), 128..224:32 (every 32nd) or a list such as 16,24,32 makes a table over sizes. "
    "[--network's]",
)
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="The table to write, a JSON file. With several devices, the name of each device is added to the file "
    "name of its table: phones.json becomes phones-android-SERIAL.json.",
)
@click.option(
    "--resume", is_flag=True, help="Resume a profile that was interrupted, after its last block of sessions."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing table.")
@track_option("figures, a picture and the table")
@strict_option
@json_option
@ends_in_order
def command(
    settings: ProfileSettings, out: Path, resume: bool, overwrite: bool, track: tuple[str, ...], as_json: bool
) -> None:
    """Measure a device and write a latency table.

    The command measures every operation of the search space as a model of its own, and then whole networks. It
    fits the predictor of a network's latency to these measurements. The table is for the network that the options
    describe. With a range of --channels, --layers or --resolution, it is for networks of all sizes in the range:
    operations are measured at a few numbers of channels and at three resolutions, and a regression predicts the
    operations of other sizes. Kinds of operations with a large error are measured at further numbers of channels,
    for at most half of --patience. With --latency, the command finds the range of channels and cells, and prints it
    before it measures the operations.
    """
    if settings.sizes is not None and settings.wanted is not None:
        raise click.UsageError("sizes are given by [sizes] or found for --latency, not both")
    from cars_hw.pipeline.profile_devices import profile_devices

    with Bars() as bars:
        written = profile_devices(
            settings,
            out,
            resume=resume,
            overwrite=overwrite,
            callback=_tracked(track),
            progress=bars.update,
            log=bars.log,
        )
    for one in written:
        warn_of_noise(one.table, one.path)
    summaries = [_summary(*one) for one in written]
    if as_json:
        print_json(summaries[0] if len(written) == 1 else summaries)
        return
    for (table, *_), summary in zip(written, summaries, strict=True):
        click.echo(
            f"{summary.table}: {summary.operations} operations and {summary.calibration_networks} "
            f"networks of {table.describe()} on {table.device}.\nThese networks take "
            f"{format_latency(summary.fastest_ms)} to {format_latency(summary.slowest_ms)}. The upper bound "
            f"is {percent(summary.margin)} above the prediction and holds for {percent(summary.level, 0)} of "
            f"networks; repeated sessions differ by {percent(table.noise)}.\n{describe_states(table.machine)}"
        )
        for text in (describe_sustained(table), further_text(table), estimates_hint(table)):
            if text is not None:
                click.echo(text)


def _tracked(track: tuple[str, ...]) -> Callable[[Path], ProfileCallback] | None:
    if not track:
        return None
    from cars_hw.tracking.follow import tracked_profile

    return partial(tracked_profile, track)


def further_text(table: LatencyTable) -> str | None:
    """Return a sentence on the operations that were measured at further numbers of channels; None for none."""
    from cars_hw.latency.further_widths import further_channels

    found = further_channels(table)
    if not found:
        return None
    numbers = sorted({number for channels in found.values() for number in channels})
    return (
        f"The estimates of {_kinds(list(found))} between the measured numbers of channels had a large error: "
        f"{'it was' if len(found) == 1 else 'they were'} measured at {', '.join(map(str, numbers))} channels, too."
    )


def estimates_hint(table: LatencyTable) -> str | None:
    """Return a sentence on kinds whose estimates have a large error; None if there are none."""
    from cars_hw.latency.further_widths import LARGE_ERROR, estimated_kinds

    errors = estimated_kinds(table)
    large = [f"{kind} {percent(error, 0)}" for kind, error in errors.items() if error > LARGE_ERROR]
    if not large:
        return None
    assert table.sizes is not None
    return (
        f"Between the measured numbers of channels, the estimates of {len(large)} of {len(errors)} kinds of "
        f"operations have a mean error above {percent(LARGE_ERROR, 0)}: {', '.join(large[:MOST_KINDS])}. With more "
        "--patience, they are measured at further numbers. For a table without such estimates, use --channels "
        f"{','.join(map(str, table.sizes.measured_channels))}"
    )


def _kinds(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_KINDS else f"{len(names)} kinds of operations"


def _summary(table: LatencyTable, path: Path, found: SizeRange | None) -> ProfileOutput:
    from cars_hw.cli.outputs import ProfileOutput
    from cars_hw.latency.further_widths import further_channels
    from cars_hw.pipeline.latency_target import LatencyTarget

    predictor = LatencyTarget(table).predictor
    latencies = sorted(network.measured.ms for network in table.calibration)
    return ProfileOutput(
        table=str(path),
        device=table.device,
        operations=len(table.entries),
        calibration_networks=len(latencies),
        fastest_ms=latencies[0],
        slowest_ms=latencies[-1],
        margin=predictor.margin,
        level=predictor.level,
        noise=table.noise,
        standard_error=table.standard_error,
        states=table.machine,
        sustained=table.sustained,
        quality_warnings=tuple(table.quality_warnings()),
        predictor=table.predictor.kind if table.predictor is not None else None,
        left_out_error=dict(table.predictor.left_out_error) if table.predictor is not None else {},
        estimated_from_others={} if table.sizes is None else table.operation_costs.left_out_errors(),
        further_channels=further_channels(table),
        sizes=table.sizes,
        range=found,
    )
