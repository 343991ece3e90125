from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cars_hw.latency import LatencyTable, Predictor, fastest_genotype
from cars_hw.nn.cost import network_cost
from cars_hw.space.genotype import NODES, Cell, Edge, Genotype, Node
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import CELL_NAMES, SearchSpace

MakeTable = Callable[..., LatencyTable]


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_of_a_sum_over_nodes_is_found(seed: int) -> None:
    space = SearchSpace()
    rng = np.random.default_rng(seed)
    costs: dict[tuple[str, int], dict[Node, float]] = {
        (name, number): {node: float(rng.uniform(1, 2)) for node in space.node_choices(number)}
        for name in CELL_NAMES
        for number in range(NODES)
    }

    def bound(genotype: Genotype) -> float:
        cells: list[tuple[str, Cell]] = [("normal", genotype.normal), ("reduce", genotype.reduce)]
        return sum(costs[name, number][node] for name, cell in cells for number, node in enumerate(cell))

    found = fastest_genotype(space, bound, np.random.default_rng(9), starts=1)
    assert bound(found) == pytest.approx(sum(min(nodes.values()) for nodes in costs.values()))
    for name, cell in (("normal", found.normal), ("reduce", found.reduce)):
        for number, node in enumerate(cell):
            assert node == min(costs[name, number], key=costs[name, number].__getitem__)


def test_nothing_that_is_drawn_is_smaller_under_a_real_predictor(make_table: MakeTable) -> None:
    predictor = Predictor(make_table(seed=4))
    space = SearchSpace()
    found = fastest_genotype(space, predictor.bound, np.random.default_rng(0), starts=1)
    space.validate(found)
    rng = np.random.default_rng(1)
    light = SearchSpace(("none", "skip_connect", "max_pool_3x3"))
    least = predictor.bound(found)
    assert all(predictor.bound(part.sample(rng)) > least for part in (space, light) for _ in range(300))
    assert all(predictor.bound(neighbour) >= least for neighbour in space.neighbours(found))


def test_the_valley_behind_a_hill_is_found() -> None:
    # An input is paid for as long as one edge takes it, so that no single node's change is worth it.
    def bound(genotype: Genotype) -> float:
        total = 0.0
        for cell in (genotype.normal, genotype.reduce):
            sources = [edge.source for node in cell for edge in node if edge.is_real]
            total += 10 * len({0, 1} & set(sources)) + sum(source != 0 for source in sources) * 0.1
            total += sum(edge.source == 1 and edge.is_real for edge in cell[0]) * -1.0
        return total

    few = SearchSpace(("none", "skip_connect", "sep_conv_3x3"))
    found = fastest_genotype(few, bound, np.random.default_rng(0))
    for cell in (found.normal, found.reduce):
        assert len({edge.source for node in cell for edge in node if edge.is_real} & {0, 1}) == 1


def test_a_space_without_none_has_a_smallest_too() -> None:
    found = fastest_genotype(SearchSpace(("sep_conv_3x3", "skip_connect")), lambda _: 1.0, np.random.default_rng(0))
    assert all(edge.is_real for node in (*found.normal, *found.reduce) for edge in node)


@pytest.mark.parametrize("layers", [3, 4, 5, 8])
def test_the_smallest_of_a_space_with_a_network_leaves_no_cell_unread(layers: int) -> None:
    spec = NetworkSpec(8, layers, (16, 16))
    few = ("none", "skip_connect", "max_pool_3x3")

    def bound(genotype: Genotype) -> float:
        return network_cost(spec, genotype).multiply_adds

    free = fastest_genotype(SearchSpace(few), bound, np.random.default_rng(0), starts=1)
    found = fastest_genotype(SearchSpace(few, spec), bound, np.random.default_rng(0), starts=1)
    assert unread_cells(spec, free)
    assert not unread_cells(spec, found)
    # Each cell reads the one before it and pools: one small network that leaves no cell unread.
    node = (Edge("max_pool_3x3", 1), Edge("none", 0))
    chain = Genotype((node,) * NODES, (node,) * NODES)
    assert bound(found) <= bound(chain)
    rng = np.random.default_rng(1)
    space = SearchSpace(few, spec)
    assert all(bound(space.sample(rng)) >= bound(found) for _ in range(300))
