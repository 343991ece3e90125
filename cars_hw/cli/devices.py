"""``cars-hw devices``."""

from __future__ import annotations

import click

from cars_hw.cli.hints import with_hint
from cars_hw.cli.options import json_option, print_json, print_table
from cars_hw.cli.verbosity import note


@click.command("devices")
@click.option(
    "--pair",
    metavar="HOST:PORT",
    help="First pair with the phone whose dialog (Wireless debugging, Pair device with pairing code) shows this "
    "address. This needs the program adb, version 30 or newer.",
)
@click.option("--code", metavar="CODE", help="The code that the dialog shows, six digits. [asked for]")
@json_option
def command(pair: str | None, code: str | None, as_json: bool) -> None:
    """List the devices that can be measured here.

    For a device that cannot be measured the list says what is missing. The command connects to each phone on a USB
    cable for a moment, and runs a small model on each execution provider of the installed ONNX Runtime (such as
    ort:cuda). Use the names of the list with --device. Linux boards (ssh:USER@HOST) are not in the list.
    """
    from cars_hw.devices import available

    if code is not None and pair is None:
        raise click.UsageError("--code is that of a pairing dialog: give its address with --pair")
    if pair is not None:
        from cars_hw.devices.android.pairing import pair as pair_with

        note(pair_with(pair, code or click.prompt("Pairing code", err=True)))
        note("The page Wireless debugging of the phone shows another address: adb connect HOST:PORT")
    found = [(one.name, one.usable, with_hint(one.detail, one.remedy)) for one in available()]
    if as_json:
        from cars_hw.cli.outputs import DeviceOutput

        print_json([DeviceOutput(*one) for one in found])
        return
    rows = [(name, "yes" if usable else "no", detail) for name, usable, detail in found]
    print_table("", ("device", "usable", "detail"), rows)
