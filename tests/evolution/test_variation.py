"""Offspring: what each way of variation does, and what none of them may do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cars_hw.config.search import VariationRates
from cars_hw.errors import InputError
from cars_hw.evolution.variation import crossover, mutate, offspring, repair
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import CELL_NAMES, SearchSpace
from cars_hw.space.size_grid import SizeGrid

SPACE = SearchSpace()
SPEC = NetworkSpec(8, 5, (28, 28), 1)
SEEDS = st.integers(0, 2**32 - 1)

NODE = (Edge("skip_connect", 0), Edge("none", 1))
LEAN = Architecture(Genotype((NODE,) * NODES, (NODE,) * NODES), SPEC)
OF_SPEC = ArchitectureSpace(SPACE, SPEC)


def multiply_adds(architecture: Architecture) -> int:
    return network_cost(architecture.network, architecture.genotype).multiply_adds


def nodes_of(genotype: Genotype) -> list[tuple[Edge, Edge]]:
    return [node for name in CELL_NAMES for node in getattr(genotype, name)]


@given(SEEDS)
def test_mutation_at_rate_zero_changes_nothing_and_at_rate_one_draws_anew(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parent = SPACE.sample(rng)
    assert mutate(parent, SPACE, 0.0, rng) == parent
    SPACE.validate(mutate(parent, SPACE, 1.0, rng))


def test_mutation_touches_about_half_of_the_nodes() -> None:
    rng = np.random.default_rng(5)
    parent = SPACE.sample(rng)
    changed = sum(
        before != after
        for _ in range(500)
        for before, after in zip(nodes_of(parent), nodes_of(mutate(parent, SPACE, 0.5, rng)), strict=True)
    )
    # A redrawn node is the old one again in at most 1 of 63 cases (node 0): 0.49 of 4,000, give or take 5 sigma.
    assert 0.45 * 4000 < changed < 0.54 * 4000


@given(SEEDS)
def test_crossover_takes_every_node_from_one_of_the_parents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = SPACE.sample(rng), SPACE.sample(rng)
    child = crossover(first, second, SPACE, 0.5, rng)
    for mine, one, other in zip(nodes_of(child), nodes_of(first), nodes_of(second), strict=True):
        assert mine in (one, other)
    assert crossover(first, second, SPACE, 0.0, rng) == first
    assert crossover(first, second, SPACE, 1.0, rng) == second


def test_the_two_cells_vary_independently() -> None:
    rng = np.random.default_rng(0)
    first, second = SPACE.sample(rng), SPACE.sample(rng)
    seen = Counter()
    for _ in range(400):
        child = crossover(first, second, SPACE, 0.5, rng)
        seen[(child.normal[0] == first.normal[0], child.reduce[0] == first.reduce[0])] += 1
    assert len(seen) == 4
    assert min(seen.values()) > 60


@given(SEEDS)
def test_repair_ends_within_the_limit_or_at_the_anchor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limit = multiply_adds(LEAN) * float(rng.uniform(1.0, 2.0))
    repaired = repair(OF_SPEC.sample(rng), LEAN, OF_SPEC, lambda one: multiply_adds(one) <= limit, rng)
    assert multiply_adds(repaired) <= limit


def test_repair_leaves_what_is_allowed_alone() -> None:
    rng = np.random.default_rng(1)
    architecture = OF_SPEC.sample(rng)
    assert repair(architecture, LEAN, OF_SPEC, lambda _: True, rng) == architecture


CHAIN = Architecture(Genotype(*(((Edge("skip_connect", 1), Edge("none", 0)),) * NODES,) * 2), SPEC)
CHAINS = ArchitectureSpace(SearchSpace(("none", "skip_connect", "max_pool_3x3")), SPEC)
GRID = SizeGrid((4, 6, 8), (5, 6, 7))
OVER_SIZES = ArchitectureSpace(SPACE, GRID.largest(SPEC), GRID)
SMALL_CHAIN = Architecture(CHAIN.genotype, GRID.smallest(SPEC))


@settings(max_examples=15, deadline=None)
@given(
    SEEDS,
    st.floats(1.0, 3.0),
    st.sampled_from([(OF_SPEC, CHAIN), (CHAINS, CHAIN), (OVER_SIZES, SMALL_CHAIN)]),
)
def test_offspring_are_allowed_new_and_never_twice_and_read_every_cell(
    seed: int, factor: float, where: tuple[ArchitectureSpace, Architecture]
) -> None:
    space, anchor = where
    rng = np.random.default_rng(seed)
    limit = multiply_adds(anchor) * factor

    def allowed(architecture: Architecture) -> bool:
        return multiply_adds(architecture) <= limit

    parents = offspring([], 6, space, VariationRates(), rng, allowed=allowed, anchor=anchor)
    children = offspring(parents, 12, space, VariationRates(), rng, allowed=allowed, anchor=anchor)
    everybody = [*parents, *children]
    assert parents
    assert all(map(allowed, everybody))
    assert len({architecture.key() for architecture in everybody}) == len(everybody)
    for genotype, network in everybody:
        space.cells.validate(genotype)
        assert not unread_cells(network, genotype)
        assert network == SPEC if space.sizes is None else GRID.has(network)


def test_two_parents_that_read_every_cell_can_have_a_child_that_does_not() -> None:
    # The one takes the cell before in its first node only, the other in its last.
    other = (Edge("skip_connect", 0), Edge("none", 1))
    reader = CHAIN.genotype.normal[0]
    first = Genotype((reader, other, other, other), CHAIN.genotype.reduce)
    last = Genotype((other, other, other, reader), CHAIN.genotype.reduce)
    assert not unread_cells(SPEC, first)
    assert not unread_cells(SPEC, last)
    crossed = [crossover(first, last, SPACE, 0.5, np.random.default_rng(seed)) for seed in range(20)]
    assert any(unread_cells(SPEC, child) for child in crossed)
    rates = VariationRates(mutation=0.0, crossover=1.0, random=0.0)
    parents = [Architecture(first, SPEC), Architecture(last, SPEC)]
    children = [
        child for seed in range(20) for child in offspring(parents, 1, OF_SPEC, rates, np.random.default_rng(seed))
    ]
    assert children
    assert not any(unread_cells(SPEC, child.genotype) for child in children)


def test_an_exhausted_space_gives_fewer_offspring_and_ends() -> None:
    tiny = ArchitectureSpace(SearchSpace(("none", "skip_connect")), SPEC)
    rng = np.random.default_rng(0)
    found = offspring(
        [], 5, tiny, VariationRates(), rng, allowed=lambda one: one.key() == CHAIN.key(), anchor=CHAIN
    )
    assert [one.key() for one in found] == [CHAIN.key()]


def test_the_ways_are_taken_at_their_rates() -> None:
    rng = np.random.default_rng(3)
    other = Genotype(((Edge("max_pool_3x3", 0), Edge("skip_connect", 1)),) * NODES, CHAIN.genotype.reduce)
    parents = [CHAIN, Architecture(other, SPEC)]
    only_crossover = VariationRates(mutation=0.0, crossover=1.0, random=0.0)
    known = {node for parent in parents for node in nodes_of(parent.genotype)}
    crossed = offspring(parents, 8, OF_SPEC, only_crossover, rng)
    assert crossed
    for child in crossed:
        assert set(nodes_of(child.genotype)) <= known
    only_random = VariationRates(mutation=0.0, crossover=0.0, random=1.0)
    fresh = offspring(parents, 50, OF_SPEC, only_random, rng)
    assert len({node for child in fresh for node in nodes_of(child.genotype)} - known) > 100


def test_children_vary_in_their_cells_in_their_size_or_in_both() -> None:
    rng = np.random.default_rng(1)
    parent = OVER_SIZES.sample(rng)
    parent = Architecture(parent.genotype, GRID.middle(SPEC))
    only_mutation = VariationRates(mutation=1.0, crossover=0.0, random=0.0)
    seen = Counter()
    for _ in range(300):
        (child,) = offspring([parent], 1, OVER_SIZES, only_mutation, rng)
        seen[child.genotype != parent.genotype, child.network != parent.network] += 1
    # A size that does not change is drawn again, as is a child that is its parent.
    assert seen[True, False] > 60
    assert seen[False, True] > 60
    assert seen[True, True] > 60
    assert seen[False, False] == 0


def test_repair_over_sizes_replaces_channels_and_stages_too() -> None:
    rng = np.random.default_rng(0)
    large = Architecture(CHAIN.genotype, GRID.largest(SPEC))
    limit = multiply_adds(SMALL_CHAIN)
    repaired = repair(large, SMALL_CHAIN, OVER_SIZES, lambda one: multiply_adds(one) <= limit, rng)
    assert repaired == SMALL_CHAIN


def test_repair_over_resolutions_replaces_the_resolution_too() -> None:
    grid = replace(GRID, resolutions=((8, 8), (16, 16)))
    space = ArchitectureSpace(SPACE, grid.largest(SPEC), grid)
    anchor = Architecture(CHAIN.genotype, grid.smallest(SPEC))
    large = Architecture(CHAIN.genotype, grid.largest(SPEC))
    limit = multiply_adds(anchor)
    rng = np.random.default_rng(0)
    assert repair(large, anchor, space, lambda one: multiply_adds(one) <= limit, rng) == anchor
    children = offspring([anchor, large], 20, space, VariationRates(), rng)
    assert {one.network.resolution for one in children} == {(8, 8), (16, 16)}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"mutation": 0.5}, "must sum to 1"),
        ({"random": -0.1, "mutation": 0.85}, "random must be at least 0, not -0.1"),
        ({"node": 1.5}, "node must be at most 1, not 1.5"),
    ],
)
def test_rates_that_are_no_probabilities_are_refused(rates: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VariationRates(**rates)
