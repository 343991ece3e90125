"""A search over sizes with weights that learn by a formula: how costs are compared, and what is proposed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.search import EvolutionSettings, VariationRates
from cars_hw.evolution.objectives import CostObjective, excess, feasible
from cars_hw.evolution.population import CostScale, Member, objective_rows
from cars_hw.evolution.search import Search
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

GRID = SizeGrid((4, 8, 16, 32), tuple(range(5, 12)))
BASE = NetworkSpec(4, 5, (16, 16), 1)
SPACE = ArchitectureSpace(SearchSpace(), GRID.largest(BASE), GRID)
NODE = (Edge("skip_connect", 1), Edge("none", 0))
SMALLEST = Architecture(Genotype((NODE,) * NODES, (NODE,) * NODES), GRID.smallest(BASE))


def megas(architecture: Architecture) -> float:
    return network_cost(architecture.network, architecture.genotype).multiply_adds / 1e6


class ToyWeights:
    """Accuracy grows with the logarithm of the cost."""

    trains = True

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:
        draw(2)
        return 1.0

    def remember(self) -> None:
        pass

    def counts(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[ClassCounts]:
        del before, full
        return [ClassCounts((10**6,), (round(1e5 * (4 + math.log(megas(one)))),)) for one in architectures]

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        assert state == {}


def make_search(seed: int = 0, *, limit: float | None = 20.0, at_least: float | None = None) -> Search:
    settings = EvolutionSettings(
        population=12,
        epochs=12,
        warmup_epochs=2,
        epochs_per_generation=1,
        protection="none",
        rates=VariationRates(0.45, 0.45, 0.1),
    )
    objective = CostObjective("multiply-adds", "M", megas, limit=limit, at_least=at_least)
    anchor = SMALLEST
    if at_least is not None:
        rng = np.random.default_rng(0)
        anchor = next(one for one in iter(lambda: SPACE.sample(rng), None) if objective.allows(one))
    return Search(SPACE, [objective], ToyWeights(), settings, seed=seed, anchor=anchor)


def test_costs_are_compared_by_their_logarithms_from_the_cheapest_to_the_limit() -> None:
    scale = CostScale(most=8.0, least=2.0)
    assert [scale.of(cost) for cost in (2.0, 4.0, 8.0, 32.0)] == pytest.approx([0, 0.5, 1, 2])
    assert scale.of(1.0) == pytest.approx(-0.5)
    members = [Member(*SMALLEST, (4.0, 3.0), 0.75)]
    assert objective_rows(members, [scale, CostScale(6.0)]).tolist() == [[0.25, pytest.approx(0.5), 0.5]]


def test_a_front_over_sizes_has_networks_everywhere_between_the_cheapest_and_the_limit() -> None:
    search = make_search()
    search.run()
    costs = [member.costs[0] for member in search.population]
    assert max(costs) <= 20.0
    assert search.scales[0].most == 20.0
    assert search.scales[0].least is not None
    # Of four equal parts of the logarithm none is empty.
    parts = {min(int(4 * search.scales[0].of(cost)), 3) for cost in costs}
    assert parts == {0, 1, 2, 3}
    assert len({member.spec for member in search.population}) > 4
    # The cheapest of all is among the first candidates, and nothing dominates it.
    assert SMALLEST in [member.architecture for member in search.population]
    assert search.scales[0].least == pytest.approx(megas(SMALLEST))


def test_what_is_cheaper_than_of_interest_is_not_proposed() -> None:
    objective = CostObjective("multiply-adds", "M", lambda _: 2.0, bound=lambda _: 3.0, limit=4.0, at_least=2.5)
    assert not feasible([objective], SMALLEST)
    assert excess([objective], SMALLEST) == pytest.approx(2.5 / 2.0)
    search = make_search(at_least=5.0)
    finalists = search.run()
    assert search.scales == [CostScale(20.0, 5.0)]
    assert all(5.0 <= one.costs[0] <= 20.0 for one in (*search.population, *finalists))


@pytest.mark.parametrize("stop_after", [0, 3, 8])
def test_a_search_over_sizes_that_is_restored_ends_as_it_would_have(stop_after: int) -> None:
    expected = make_search().run()

    class Killed(Exception):
        pass

    first = make_search()
    saved: list[str] = []

    def checkpoint() -> None:
        saved.append(json.dumps(first.state(), allow_nan=False))
        if len(saved) > stop_after:
            raise Killed

    with pytest.raises(Killed):
        first.run(checkpoint)
    second = make_search(seed=99)
    second.restore(json.loads(saved[-1]))
    assert second.run() == expected
