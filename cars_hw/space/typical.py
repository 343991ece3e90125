"""The genotype that stands for others of its family where one network is measured."""

from __future__ import annotations

from typing import Final

import numpy as np

from cars_hw.space.families import DARTS
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.space_of import space_of
from cars_hw.space.zoo import zoo

TYPICAL: Final = "CARS_A"
"""The published genotype of DARTS cells. It has few multiply-adds and uses most operations."""


def typical_genotype(network: NetworkSpec) -> tuple[str, Genotype]:
    """Return a genotype of the family of ``network``, with its name; always the same one."""
    if network.base_family == DARTS:
        return TYPICAL, zoo()[TYPICAL].genotype
    return "a random genotype", space_of(network).sample(np.random.default_rng(0))
