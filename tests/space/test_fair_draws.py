"""Fair draws: how often each operation on each edge is drawn, which architectures are, and that they go on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.fair_draws import FairDraws
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(8, 5, (16, 16), 3)
SPACES = {
    "one size": ArchitectureSpace(SearchSpace(), NETWORK),
    "sizes": ArchitectureSpace(SearchSpace(), NetworkSpec(8, 6, (16, 16)), SizeGrid((4, 8), (4, 5, 6))),
    "few operations": ArchitectureSpace(SearchSpace(("none", "sep_conv_3x3", "skip_connect")), NETWORK),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_operation_on_every_edge_is_drawn_equally_often(name: str) -> None:
    space, rng = SPACES[name], np.random.default_rng(0)
    draws = FairDraws(space)
    drawn: Counter[tuple[bool, int, int, str]] = Counter()
    seen = set()
    for _ in range(400):
        architecture = draws.sample(rng)
        assert space.proposable(architecture)
        seen.add(architecture.key())
        for reduction in (False, True):
            for number, node in enumerate(architecture.genotype.cell(reduction)):
                for edge in node:
                    drawn[reduction, number, edge.source, edge.operation] += 1
    operations = space.cells.operations
    for reduction in (False, True):
        for number in range(4):
            counts = [drawn[reduction, number, source, one] for source in range(number + 2) for one in operations]
            # Independent draws would be apart by more than 40% of the mean.
            mean = 400 * 2 / len(counts)
            assert max(counts) - min(counts) <= 4
            assert sum(counts) / len(counts) == pytest.approx(mean)
    assert len(seen) > 395 or name == "few operations"
    if space.sizes is not None:
        assert len({network for _, network in (draws.sample(rng) for _ in range(40))}) > 5


def test_draws_go_on_where_they_were() -> None:
    space = SPACES["sizes"]
    rng, whole = np.random.default_rng(1), FairDraws(space)
    for _ in range(5):
        whole.sample(rng)
    resumed = FairDraws(space)
    resumed.restore(json.loads(json.dumps(whole.state())))
    again = np.random.default_rng(0)
    again.bit_generator.state = rng.bit_generator.state
    assert [resumed.sample(again).key() for _ in range(50)] == [whole.sample(rng).key() for _ in range(50)]
