import itertools
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cars_hw.errors import GenotypeError
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import NODES, Edge, Genotype, Node
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import CELL_NAMES, SearchSpace, replace_node
from cars_hw.space.zoo import zoo

SPACES = {
    "all": SearchSpace(),
    "without none": SearchSpace(FAMILIES["darts"].operations[1:]),
    "three": SearchSpace(("none", "skip_connect", "sep_conv_3x3")),
}


def differences(one: Genotype, other: Genotype) -> int:
    flat = [
        [value for name in CELL_NAMES for node in getattr(genotype, name) for edge in node for value in edge]
        for genotype in (one, other)
    ]
    return sum(a != b for a, b in zip(*flat, strict=True))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_sample_is_of_the_space(space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        space.validate(space.sample(rng))


def test_the_same_seed_draws_the_same() -> None:
    space = SearchSpace()
    draws = [[space.sample(np.random.default_rng(seed)) for _ in range(2)] for seed in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("number", range(NODES))
def test_node_choices_are_all_distinct_and_counted_by_the_closed_form(space: SearchSpace, number: int) -> None:
    choices = space.node_choices(number)
    inputs = (number + 2) * (number + 1) // 2
    operations = len(space.operations) ** 2 - ("none" in space.operations)
    assert len(set(choices)) == len(choices) == inputs * operations
    base = zoo()["DARTS_V2"].genotype
    for node in choices[:: max(1, len(choices) // 50)]:
        assert node[0].source < node[1].source
        replace_node(base, "normal", number, node)


@pytest.mark.parametrize("number", range(NODES))
def test_nodes_are_drawn_uniformly(number: int) -> None:
    space = SearchSpace()
    rng = np.random.default_rng(2)
    choices = space.node_choices(number)
    drawn = Counter(space.sample_node(number, rng) for _ in range(20 * len(choices)))
    assert set(drawn) <= set(choices)
    assert stats.chisquare([drawn[choice] for choice in choices]).pvalue > 0.01


def test_the_nodes_of_a_sample_are_drawn_uniformly_and_independently() -> None:
    space = SPACES["three"]
    rng = np.random.default_rng(3)
    samples = [space.sample(rng) for _ in range(4000)]
    first = Counter((sample.normal[0], sample.reduce[0]) for sample in samples)
    pairs = [(a, b) for a in space.node_choices(0) for b in space.node_choices(0)]
    assert stats.chisquare([first[pair] for pair in pairs]).pvalue > 0.01
    last = Counter(sample.reduce[3] for sample in samples)
    assert stats.chisquare([last[choice] for choice in space.node_choices(3)]).pvalue > 0.01


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SPACES)))
def test_neighbours_are_distinct_legal_and_one_change_away(seed: int, name: str) -> None:
    space = SPACES[name]
    genotype = space.sample(np.random.default_rng(seed))
    found = list(space.neighbours(genotype))
    assert len(set(found)) == len(found)
    for neighbour in found:
        space.validate(neighbour)
        assert differences(genotype, neighbour) == 1
    expected = 0
    for cell in CELL_NAMES:
        for number, node in enumerate(getattr(genotype, cell)):
            for edge, other in (node, node[::-1]):
                expected += number
                forbidden = edge.operation == "none" or other.is_real or "none" not in space.operations
                expected += len(space.operations) - 1 - (not forbidden)
    assert len(found) == expected


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SPACES)))
def test_neighbourhood_is_symmetric(seed: int, name: str) -> None:
    space = SPACES[name]
    genotype = space.sample(np.random.default_rng(seed))
    for neighbour in islice(space.neighbours(genotype), seed % 7, None, 7):
        assert genotype in set(space.neighbours(neighbour))


def test_neighbours_of_a_stranger_are_refused() -> None:
    # It has an empty node, and a neighbour could come to look at it.
    with pytest.raises(GenotypeError, match="has no real edge"):
        next(SearchSpace().neighbours(zoo()["SNAS_aggressive"].genotype))


SPECS = [NetworkSpec(8, layers, (16, 16)) for layers in (3, 4, 5, 8, 20)]
READING = {
    # Every cell reads the one before; or every normal cell both, and reduction cells the one before the last.
    "last": (((Edge("skip_connect", 1), Edge("none", 0)),) * 4,) * 2,
    "both": (
        ((Edge("skip_connect", 0), Edge("max_pool_3x3", 1)),) * 4,
        ((Edge("skip_connect", 0), Edge("none", 1)),) * 4,
    ),
    "before": (((Edge("skip_connect", 0), Edge("none", 1)),) * 4,) * 2,
}


def test_which_cells_have_no_reader_by_hand() -> None:
    unread = {name: [unread_cells(spec, Genotype(*cells)) for spec in SPECS] for name, cells in READING.items()}
    assert unread["last"] == [()] * 5
    # Of three cells the last two reduce. The last reads the first, and nothing reads the second.
    assert unread["both"] == [(1,), (), (), (), ()]
    assert unread["before"] == [
        (1,),
        (0, 2),
        (1, 3),
        (0, 2, 4, 6),
        tuple(range(0, 20, 2)),
    ]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.layers))
def test_a_space_with_a_network_has_no_genotype_with_an_unread_cell(spec: NetworkSpec) -> None:
    operations = ("none", "skip_connect", "max_pool_3x3")
    whole, space = SearchSpace(operations), SearchSpace(operations, spec)
    rng = np.random.default_rng(5)
    free, kept = ([one.sample(rng) for _ in range(300)] for one in (whole, space))
    unread = [genotype for genotype in free if unread_cells(spec, genotype)]
    assert 3 < len(unread) < 100
    assert not any(unread_cells(spec, genotype) for genotype in kept)
    for genotype in unread[:3]:
        assert whole.reads_every_cell(genotype)
        assert not space.reads_every_cell(genotype)
        first = unread_cells(spec, genotype)[0] + 1
        with pytest.raises(GenotypeError, match=rf"of {spec.layers} cells have no reader, first cell {first}: "):
            space.validate(genotype)
    for genotype in kept[:20]:
        expected = [one for one in whole.neighbours(genotype) if not unread_cells(spec, one)]
        assert list(space.neighbours(genotype)) == expected


def takes(node: Node, source: int) -> bool:
    return any(edge.is_real and edge.source == source for edge in node)


def test_draws_stay_uniform_among_those_that_read_every_cell() -> None:
    space = SearchSpace(("none", "skip_connect"), SPECS[2])
    rng = np.random.default_rng(6)
    drawn = Counter(tuple(sample.normal[:2]) for sample in (space.sample(rng) for _ in range(4000)))
    # With five cells, the normal cell has to take the one before. Besides, the normal cell has to take the one
    # before that, or the reduction cell the one before. All genotypes that do are equally likely.
    choices = [space.node_choices(number) for number in range(NODES)]
    reduce_takes = 1 - np.prod([np.mean([not takes(node, 1) for node in nodes]) for nodes in choices])
    weights = {
        (first, second): sum(
            (1 if any(takes(node, 0) for node in cell) else reduce_takes)
            for cell in itertools.product([first], [second], *choices[2:])
            if any(takes(node, 1) for node in cell)
        )
        for first in choices[0]
        for second in choices[1]
    }
    total = sum(weights.values())
    possible = [pair for pair, weight in weights.items() if weight]
    expected = [4000 * weights[pair] / total for pair in possible]
    assert stats.chisquare([drawn[pair] for pair in possible], expected).pvalue > 0.01


def test_validate_names_what_is_outside() -> None:
    genotype = zoo()["CARS_A"].genotype
    with pytest.raises(GenotypeError, match="'sep_conv_5x5' is not in this search space"):
        SearchSpace(("none", "skip_connect", "max_pool_3x3")).validate(genotype)
    with pytest.raises(GenotypeError, match=r"node \d of the (normal|reduce) cell has no real edge"):
        SearchSpace().validate(zoo()["SNAS_aggressive"].genotype)
    SearchSpace().validate(genotype)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (("skip_connect", "conv_7x1"), "unknown operation 'conv_7x1'"),
        (
            ("skip_connect", "conv_1x1"),
            r"unknown operation 'conv_1x1'; darts cells have none, .*; the family darts\+NAME has one more",
        ),
        (("none",), "at least one operation besides none"),
        (("skip_connect", "skip_connect"), "the same operation twice"),
    ],
)
def test_useless_spaces_are_refused(operations: tuple[str, ...], message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        SearchSpace(operations)


def test_replace_node_changes_one_node_of_a_copy() -> None:
    genotype = zoo()["CARS_A"].genotype
    node = (Edge("dil_conv_3x3", 1), Edge("none", 3))
    changed = replace_node(genotype, "reduce", 2, node)
    assert changed.reduce == (*genotype.reduce[:2], node, genotype.reduce[3])
    assert changed.normal == genotype.normal
    assert genotype == zoo()["CARS_A"].genotype


def test_encoding_worked_out_by_hand() -> None:
    pairs = [["sep_conv_3x3", 0], ["none", 1], ["max_pool_3x3", 2], ["skip_connect", 0]]
    pairs += [["avg_pool_3x3", 3], ["dil_conv_3x3", 1], ["dil_conv_5x5", 4], ["sep_conv_5x5", 0]]
    other = [["skip_connect", 0], ["skip_connect", 1]] * NODES
    code = SearchSpace().encode(Genotype.from_dict({"normal": pairs, "reduce": other}))
    assert code.shape == (2, 14, 8)
    assert code.dtype == np.float32
    # Columns of the 14 edges: node 0 has 0 and 1, node 1 has 2 to 4, node 2 has 5 to 8, node 3 has 9 to 13.
    normal = [4, 0, 3, 0, 1, 0, 6, 0, 2, 5, 0, 0, 0, 7]
    reduce = [3, 3, 3, 3, 0, 3, 3, 0, 0, 3, 3, 0, 0, 0]
    np.testing.assert_array_equal(code.argmax(-1), [normal, reduce])
    np.testing.assert_array_equal(code.sum(-1), 1)
    assert set(np.unique(code)) == {0, 1}


def test_encoding_tells_networks_apart_and_only_those() -> None:
    space = SPACES["three"]
    rng = np.random.default_rng(5)
    samples = [space.sample(rng) for _ in range(40)]
    samples += [neighbour for sample in samples[:3] for neighbour in space.neighbours(sample)]
    for one in samples[::7]:
        for other in samples:
            assert np.array_equal(space.encode(one), space.encode(other)) == (one.key() == other.key())
