"""``cars-hw cost``."""

from __future__ import annotations

from dataclasses import dataclass

import click

from cars_hw.cli.options import GENOTYPE, Named, json_option, print_json, print_table
from cars_hw.cli.settings import NETWORK, NETWORK_PATHS, settings_options
from cars_hw.config import shared_help
from cars_hw.config.setting import Settings, setting
from cars_hw.nn.cost import both_costs
from cars_hw.space.network_spec import NETWORKS, NetworkSpec


@dataclass(frozen=True)
class CostSettings(Settings):
    """Settings of ``cars-hw cost``."""

    network: NetworkSpec = setting(NETWORKS["quick"], help=shared_help.NETWORK)


@click.command("cost")
@settings_options(CostSettings, *NETWORK_PATHS, bases=(NETWORK,), file=False)
@json_option
@click.argument("genotypes", metavar="GENOTYPE...", type=GENOTYPE, nargs=-1, required=True)
def command(settings: CostSettings, as_json: bool, genotypes: tuple[Named, ...]) -> None:
    """Count parameters and multiply-adds of genotypes.

    The counts are those of the exported file: what its output does not depend on is left out, and normalisations
    are folded. Multiply-adds are those of convolutions and linear layers; one multiply-add counts as one operation.
    The published rule also counts cells and preprocessing that nothing reads, and the scales of normalisations.
    The auxiliary head is left out of both.
    """
    spec = settings.network
    costs = [both_costs(spec, named.genotype) for named in genotypes]
    if as_json:
        from cars_hw.cli.outputs import CostOutput

        print_json(
            [
                CostOutput(named.name, named.genotype, **counts)
                for named, counts in zip(genotypes, costs, strict=True)
            ]
        )
        return
    rows = [
        (named.name, *(f"{count:,}" for count in counts.values()))
        for named, counts in zip(genotypes, costs, strict=True)
    ]
    columns = ("parameters", "multiply-adds", "parameters (published rule)", "multiply-adds (published rule)")
    print_table(spec.describe(), ("genotype", *columns), rows)
