"""``cars-hw energy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import json_option, percent, print_json, print_table
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import settings_options
from cars_hw.cli.signals import ends_in_order
from cars_hw.formatting import milliseconds
from cars_hw.pipeline.device_settings import EnergySettings

if TYPE_CHECKING:
    from cars_hw.devices import Device


@click.command("energy")
@settings_options(
    EnergySettings,
    "table",
    "device",
    "meter",
    "plan.networks",
    "plan.seconds",
    "plan.max_seconds",
    "plan.max_error",
)
@json_option
@ends_in_order
def command(settings: EnergySettings, as_json: bool) -> None:
    """Measure the energy of networks of a table.

    The energy of a network is what the device takes for one run beyond what it takes at rest. Some networks of the
    table run without a pause, with rests between them. A predictor is fitted to them, and added to the file of the
    table: search and verify use it with --cost energy and --energy. A phone must be unplugged. The energy of a
    processor must be readable. To continue an interrupted measurement, repeat the command.
    """
    from cars_hw.config.files import require_writable
    from cars_hw.latency import LatencyTable
    from cars_hw.latency.measure_energy import measure_table_energy, require_energy

    table = LatencyTable.read(settings.table)
    # Before the hour whose result it is.
    require_writable(settings.table)
    device = opened(settings.device or table.device, table.threads, settings.meter)
    with Bars() as bars:
        table = measure_table_energy(
            table, device, settings.plan, out=settings.table, progress=bars.update, log=bars.log
        )
    state = require_energy(table)
    if as_json:
        print_json(state)
        return
    print_table(
        f"Energy on {table.device}, by {state.meter}",
        ("network", "a run", "error", "power", "at rest", "time of a run"),
        [
            (
                f"{one.channels}x{one.layers}",
                f"{one.energy.mj:.4g} mJ",
                percent(one.energy.error),
                f"{one.energy.watts:.3g} W",
                f"{one.energy.idle_watts:.3g} W",
                milliseconds(one.energy.run_ms),
            )
            for one in sorted(state.networks, key=lambda one: one.energy.mj)
        ],
    )
    margin, level = state.margin(0.95)
    click.echo(
        f"{settings.table} has the energy now. A network that is left out is predicted to "
        f"{percent(state.left_out_error)}; the upper bound is {percent(margin)} above the prediction, for "
        f"{percent(level, 0)} of networks."
    )


def opened(name: str, threads: int, meter: str) -> Device:
    """Return the device ``name``, whose energy ``meter`` tells if it is a phone."""
    from cars_hw.devices import open_device
    from cars_hw.errors import InputError

    device = open_device(name, threads)
    if meter != "auto":
        if not hasattr(device, "meter"):
            raise InputError(f"{device.name} has no choice of a meter; only phones have")
        device.meter = meter
    return device
