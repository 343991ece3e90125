"""``cars-hw plugins``."""

from __future__ import annotations

import click

from cars_hw.cli.options import json_option, print_json, print_table


@click.command("plugins")
@json_option
def command(as_json: bool) -> None:
    """List what packages can add: devices, costs, formats and so on.

    The list has every name of devices, data sets, costs, recipes, formats, operations, trackers and executors.
    Installed packages add names by entry points; the list says which package each name comes from, and imports all
    of them. For a name that cannot be used the list says why.
    """
    from cars_hw.cli.extensions import extensions

    found = extensions()
    if as_json:
        from cars_hw.cli.outputs import PluginOutput

        print_json([PluginOutput(*one) for one in found])
        return
    rows = [(one.kind, one.name, one.package, "yes" if one.usable else "no", one.detail) for one in found]
    print_table("", ("kind", "name", "from", "usable", "detail"), rows)
