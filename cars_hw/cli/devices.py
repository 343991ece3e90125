"""``cars-hw devices``."""

from __future__ import annotations

import click

from cars_hw.cli.options import json_option, print_json, print_table


@click.command("devices")
@json_option
def command(as_json: bool) -> None:
    """List the devices that can be measured here.

    For a device that cannot be measured the list says what is missing. The command connects to each phone on a USB
    cable for a moment. --device takes the names.
    """
    from cars_hw.devices import available

    found = available()
    if as_json:
        print_json([status._asdict() for status in found])
        return
    rows = [(status.name, "yes" if status.usable else "no", status.detail) for status in found]
    print_table("", ("device", "usable", "detail"), rows)
