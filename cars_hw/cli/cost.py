"""``cars-hw cost``."""

from __future__ import annotations

import click

from cars_hw.cli.options import GENOTYPE, Named, json_option, print_json, print_table
from cars_hw.cli.settings import NETWORK, NETWORK_PATHS, settings_options
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.settings import CostSettings


@click.command("cost")
@settings_options(CostSettings, *NETWORK_PATHS, bases=(NETWORK,), file=False)
@json_option
@click.argument("genotypes", metavar="GENOTYPE...", type=GENOTYPE, nargs=-1, required=True)
def command(settings: CostSettings, as_json: bool, genotypes: tuple[Named, ...]) -> None:
    """Count parameters and multiply-adds of genotypes.

    The auxiliary head is left out. Multiply-adds are those of convolutions and linear layers; one multiply-add
    counts as one operation.
    """
    spec = settings.network
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
