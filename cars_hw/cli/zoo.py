"""``cars-hw zoo``."""

from __future__ import annotations

import click

from cars_hw.cli.options import json_option, print_json, print_table
from cars_hw.nn.cost import both_costs
from cars_hw.space.genotype import Cell
from cars_hw.space.zoo import whole_zoo


@click.command("zoo")
@json_option
def command(as_json: bool) -> None:
    """List the published genotypes.

    Their names can be given wherever a command takes a GENOTYPE. The list has their family of cells, their
    parameters in both networks of the paper, in the exported file and by the published rule (see cars-hw cost), and
    where they were published. Cells of other families than DARTS are counted in the networks that they were
    published in.
    """
    costs = {
        name: {network: both_costs(entry.network(network), entry.genotype) for network in ("cifar", "imagenet")}
        for name, entry in whole_zoo().items()
    }
    if as_json:
        from cars_hw.cli.outputs import CostCounts, ZooOutput

        print_json(
            {
                name: ZooOutput(
                    family=entry.genotype.family,
                    normal=_pairs(entry.genotype.normal),
                    normal_concat=entry.genotype.joined(reduction=False),
                    reduce=_pairs(entry.genotype.reduce),
                    reduce_concat=entry.genotype.joined(reduction=True),
                    source=entry.source,
                    costs={network: CostCounts(**counts) for network, counts in costs[name].items()},
                )
                for name, entry in whole_zoo().items()
            }
        )
        return
    rows = [
        (
            name,
            entry.genotype.family,
            *(
                f"{counts[rule]:,}"
                for counts in costs[name].values()
                for rule in ("parameters", "published_parameters")
            ),
            entry.source,
        )
        for name, entry in whole_zoo().items()
    ]
    columns = [
        f"parameters, {network}{rule}" for network in ("cifar", "imagenet") for rule in ("", " (published rule)")
    ]
    print_table("", ("name", "cells", *columns, "source"), rows)


def _pairs(cell: Cell) -> tuple[tuple[str, int], ...]:
    """Return the operation and the source of each edge."""
    return tuple((edge.operation, edge.source) for node in cell for edge in node)
