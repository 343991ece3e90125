"""Which space of genotypes a network has."""

from __future__ import annotations

from cars_hw.space.block_space import BlockSpace
from cars_hw.space.families import block_family
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace


def space_of(network: NetworkSpec, operations: tuple[str, ...] = ()) -> GenotypeSpace:
    """Return the genotypes of the family of ``network`` that are made of ``operations``, by default of all.

    Those of cells need not fit the network, since two cells fill any. Genotypes of blocks do.

    Raises:
        GenotypeError: operations that the family does not have, or not enough of them.
    """
    if block_family(network.family) is not None:
        return BlockSpace(operations, network, network.family)
    return SearchSpace(operations, family=network.family)
