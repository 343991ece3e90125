"""``cars-hw zoo``."""

from __future__ import annotations

import click

from cars_hw.cli.options import json_option, print_json, print_table
from cars_hw.nn.cost import both_costs
from cars_hw.space.genotype import Cell
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import zoo


@click.command("zoo")
@json_option
def command(as_json: bool) -> None:
    """List the published genotypes.

    Their names can be given wherever a command takes a GENOTYPE. The list has their parameters in both networks of
    the paper, in the exported file and by the published rule (see cars-hw cost), and where they were published.
    """
    costs = {
        name: {network: both_costs(NETWORKS[network], entry.genotype) for network in ("cifar", "imagenet")}
        for name, entry in zoo().items()
    }
    if as_json:
        from cars_hw.cli.outputs import CostCounts, ZooOutput

        print_json(
            {
                name: ZooOutput(
                    normal=_pairs(entry.genotype.normal),
                    reduce=_pairs(entry.genotype.reduce),
                    source=entry.source,
                    costs={network: CostCounts(**counts) for network, counts in costs[name].items()},
                )
                for name, entry in zoo().items()
            }
        )
        return
    rows = [
        (
            name,
            *(
                f"{counts[rule]:,}"
                for counts in costs[name].values()
                for rule in ("parameters", "published_parameters")
            ),
            entry.source,
        )
        for name, entry in zoo().items()
    ]
    columns = [
        f"parameters, {network}{rule}" for network in ("cifar", "imagenet") for rule in ("", " (published rule)")
    ]
    print_table("", ("name", *columns, "source"), rows)


def _pairs(cell: Cell) -> tuple[tuple[str, int], ...]:
    """Return the operation and the source of each edge."""
    return tuple((edge.operation, edge.source) for node in cell for edge in node)
