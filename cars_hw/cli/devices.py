"""``cars-hw devices``."""

from __future__ import annotations

import click

from cars_hw.cli.hints import with_hint
from cars_hw.cli.options import json_option, print_json, print_table


@click.command("devices")
@json_option
def command(as_json: bool) -> None:
    """List the devices that can be measured here.

    For a device that cannot be measured the list says what is missing. The command connects to each phone on a USB
    cable for a moment. Use the names of the list with --device. Linux boards (ssh:USER@HOST) are not in the list.
    """
    from cars_hw.devices import available

    found = [(one.name, one.usable, with_hint(one.detail, one.remedy)) for one in available()]
    if as_json:
        print_json([{"name": name, "usable": usable, "detail": detail} for name, usable, detail in found])
        return
    rows = [(name, "yes" if usable else "no", detail) for name, usable, detail in found]
    print_table("", ("device", "usable", "detail"), rows)
