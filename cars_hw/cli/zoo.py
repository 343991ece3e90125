"""``cars-hw zoo``."""

from __future__ import annotations

import click

from cars_hw.cli.options import json_option, print_json, print_table
from cars_hw.nn.cost import network_cost
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import zoo


@click.command("zoo")
@json_option
def command(as_json: bool) -> None:
    """List the published genotypes.

    Their names can be given wherever a command takes a GENOTYPE. The list has their parameters in both networks of
    the paper, and where they were published.
    """
    if as_json:
        print_json({name: {**entry.genotype.to_dict(), "source": entry.source} for name, entry in zoo().items()})
        return
    rows = [
        (
            name,
            *(
                f"{network_cost(NETWORKS[network], entry.genotype).parameters:,}"
                for network in ("cifar", "imagenet")
            ),
            entry.source,
        )
        for name, entry in zoo().items()
    ]
    print_table("", ("name", "parameters, cifar", "parameters, imagenet", "source"), rows)
