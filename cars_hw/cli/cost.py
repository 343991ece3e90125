"""``cars-hw cost``."""

from __future__ import annotations

from typing import Any

import click

from cars_hw.cli.options import GENOTYPE, Named, json_option, network_options, print_json, print_table, spec_of
from cars_hw.nn.cost import network_cost


@click.command("cost")
@network_options
@json_option
@click.argument("genotypes", metavar="GENOTYPE...", type=GENOTYPE, nargs=-1, required=True)
def command(
    as_json: bool,
    genotypes: tuple[Named, ...],
    **network: Any,  # noqa: ANN401 -- the options of network_options
) -> None:
    """Count parameters and multiply-adds of genotypes.

    The auxiliary head is left out. Multiply-adds are those of convolutions and linear layers; one multiply-add
    counts as one.
    """
    spec = spec_of(**network)
    costs = [network_cost(spec, named.genotype) for named in genotypes]
    if as_json:
        print_json(
            [
                {"name": named.name, "genotype": named.genotype.to_dict(), **found._asdict()}
                for named, found in zip(genotypes, costs, strict=True)
            ]
        )
        return
    rows = [
        (named.name, f"{found.parameters:,}", f"{found.multiply_adds:,}")
        for named, found in zip(genotypes, costs, strict=True)
    ]
    print_table(spec.describe(), ("genotype", "parameters", "multiply-adds"), rows)
