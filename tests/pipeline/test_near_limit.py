"""An architecture that uses most of a limit is found wherever the space has one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cars_hw.evolution.objectives import CostObjective
from cars_hw.pipeline.near_limit import limit_use, near_limit, uses_most
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

SPACE = ArchitectureSpace(
    SearchSpace(("skip_connect", "max_pool_3x3", "sep_conv_3x3")),
    NetworkSpec(8, 5, (8, 8), 1, classes=3),
    SizeGrid((4, 6, 8), (3, 4, 5)),
)


def convolutions(genotype: Genotype) -> int:
    return sum(
        edge.operation == "sep_conv_3x3"
        for cell in (genotype.normal, genotype.reduce)
        for node in cell
        for edge in node
    )


def cost(architecture: Architecture) -> float:
    """Return channels times cells, and twice of this for a network of convolutions alone."""
    network = architecture.network
    return network.channels * network.layers * (1 + convolutions(architecture.genotype) / 16)


def limited(limit: float, at_least: float | None = None) -> list[CostObjective]:
    return [CostObjective("cost", "ms", cost, limit=limit, at_least=at_least)]


def genotype_of(number: int) -> Genotype:
    """Return a genotype of the space with ``number`` convolutions."""
    rng = np.random.default_rng(number)
    return next(
        one
        for one in (SPACE.cells_for(SPACE.smallest).sample(rng) for _ in range(10_000))
        if convolutions(one) == number
    )


def near(objectives: list[CostObjective], *genotypes: Genotype, space: ArchitectureSpace = SPACE) -> Architecture:
    found = near_limit(space, objectives, genotypes, np.random.default_rng(0))
    assert found is not None
    assert uses_most(objectives, found)
    assert space.proposable(found)
    return found


def test_the_best_genotype_gets_the_size_at_which_it_uses_the_most() -> None:
    # With 8 convolutions of 16 edges: 1.5 times 24 = 6 x 4, 8 x 3; 20 = 4 x 5; 30, 32 and 40 are too much.
    best, other = genotype_of(8), genotype_of(4)
    found = near(limited(38.0), best, other)
    assert found.genotype == best
    assert found.network.channels * found.network.layers == 24
    assert limit_use(limited(38.0), found) == pytest.approx(36 / 38)


def test_another_genotype_where_the_best_has_no_such_size() -> None:
    # The largest sizes are 8 x 4 and 8 x 5: 48 and 60 are not between 0.85 x 58 = 49.3 and 58, and 1.25 x 40 is.
    found = near(limited(58.0), genotype_of(8), genotype_of(4))
    assert (found.genotype, cost(found)) == (genotype_of(4), 50)


def test_random_architectures_where_no_genotype_is_known() -> None:
    found = near(limited(38.0))
    assert 0.85 * 38 <= cost(found) <= 38


def test_a_descent_where_such_architectures_are_rare() -> None:
    # One in millions has 15 or 16 convolutions, and only those cost more than 0.85 x 91 = 77.35 of at most 80.
    rare = replace(
        SPACE, cells=SearchSpace(("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3"))
    )
    found = near(limited(91.0), space=rare)
    assert convolutions(found.genotype) >= 15


def test_one_size() -> None:
    found = near(limited(75.0), space=replace(SPACE, sizes=None))
    assert found.network == SPACE.network


def test_no_such_architecture() -> None:
    rng = np.random.default_rng(0)
    # The slowest costs 80.
    assert near_limit(SPACE, limited(95.0), [genotype_of(8)], rng) is None
    assert near_limit(SPACE, [CostObjective("cost", "ms", cost)], [genotype_of(8)], rng) is None
    # Another limit does not allow it.
    other = CostObjective("convolutions", "M", lambda one: convolutions(one.genotype), limit=0.5)
    assert near_limit(SPACE, [*limited(70.0), other], [genotype_of(8)], rng) is None
