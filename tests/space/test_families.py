"""Families of cells: what they say of genotypes, and networks of cells that join loose ends."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from long_runs import amount
from torch import nn

from cars_hw.errors import GenotypeError, InputError, SpecError
from cars_hw.export.graph import AvgPool, Conv, Linear, MaxPool
from cars_hw.export.lower import lower_network
from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.keys import genotype_keys, spec_keys
from cars_hw.latency.sums import OperationSums
from cars_hw.nn.cost import both_costs, network_cost, published_cost
from cars_hw.nn.network import Network
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.families import FAMILIES, named_family
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.liveness import usages_of
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace, replace_node
from cars_hw.space.zoo import resolve_genotype, whole_zoo, zoo

OTHERS = [name for name in FAMILIES if name != "darts"]
PUBLISHED = {name: one for name, one in whole_zoo().items() if name not in zoo()}


def spec(family: str, stem: str = "cifar", size: tuple[int, int] = (9, 10)) -> NetworkSpec:
    # The first cell of a stem has a quarter of the channels, of which a strided skip needs two.
    channels = 8 if stem == "cells" else 4
    return NetworkSpec(channels, 4, size, 3, classes=5, stem=stem, family=family)  # type: ignore[arg-type]


def drawn(family: str, count: int, seed: int = 0) -> list[Genotype]:
    rng = np.random.default_rng(seed)
    space = SearchSpace(family=family)
    return [space.sample(rng) for _ in range(count)]


def pairs(*states: int) -> list[list[str | int]]:
    return [["sep_conv_3x3", state] for state in states]


def test_loose_ends_worked_out_by_hand() -> None:
    # Node 0 is read by node 2 and node 1 by node 3; nobody reads nodes 2 to 4.
    genotype = Genotype.from_dict(
        {"family": "enas", "normal": pairs(0, 0, 0, 1, 2, 1, 3, 0, 0, 1), "reduce": pairs(*[0, 1] * 5)}
    )
    assert genotype.joined(reduction=False) == (4, 5, 6)
    assert genotype.joined(reduction=True) == (2, 3, 4, 5, 6)
    assert genotype.parts == (3, 5)
    assert genotype.normal[0] == (Edge("sep_conv_3x3", 0), Edge("sep_conv_3x3", 0))
    layouts = spec("enas").cells(genotype.parts)
    # Cells 1 and 2 are reductions; the normal cells join three nodes of 4 and of 16 channels.
    assert [layout.concatenated.channels for layout in layouts] == [12, 40, 80, 48]
    assert [layout.inputs[1].channels for layout in layouts] == [12, 12, 40, 80]


def test_what_a_family_says_is_checked() -> None:
    five = {"normal": pairs(*[0, 1] * 5), "reduce": pairs(*[0, 1] * 5)}
    refused = {
        "the normal cell needs 8 pairs": five,
        "unknown family of cells 'mine'": {**five, "family": "mine"},
        "the normal cell needs 10 pairs": {"family": "nasnet", "normal": pairs(0, 1), "reduce": pairs(0, 1)},
        r"the reduce cell joins the states \[1, 2\]": {**five, "family": "nasnet", "reduce_concat": [1, 2]},
        r"the normal cell joins the states \[3, 2\]": {**five, "family": "nasnet", "normal_concat": [3, 2]},
        "the normal cell joins no node": {**five, "family": "nasnet", "normal_concat": [0, 1]},
        "which is no list of states": {**five, "family": "nasnet", "normal_concat": "23"},
    }
    for message, plain in refused.items():
        with pytest.raises(GenotypeError, match=message):
            Genotype.from_dict(plain)
    cars = zoo()["CARS_A"].genotype
    with pytest.raises(GenotypeError, match=r"normal cell joins the states \[2, 3\]; darts cells join all nodes$"):
        replace(cars, normal_joined=(2, 3))
    twice = {"normal": pairs(0, 0, *[0, 1] * 3), "reduce": pairs(*[0, 1] * 4)}
    with pytest.raises(GenotypeError, match="takes input 0 twice"):
        Genotype.from_dict(twice)
    with pytest.raises(InputError, match="unknown family of cells 'mine'; known: darts, nasnet"):
        spec("mine")
    with pytest.raises(SpecError, match="at least 8 channels"):
        replace(spec("nasnet", "cells", (33, 36)), channels=6)
    with pytest.raises(InputError, match="unknown operation 'size'"):
        spec("darts+size")
    with pytest.raises(InputError, match="have the operation 'none' already"):
        spec("darts+none")

    def total(network: NetworkSpec, genotype: Genotype) -> float:
        return OperationSums(network, defaultdict(float)).total(genotype)

    for use in (network_cost, Network, genotype_keys, total):
        with pytest.raises(SpecError, match="the genotype has nasnet cells and the network darts cells"):
            use(NETWORKS["quick"], PUBLISHED["NASNet_A"].genotype)


def test_further_operations_stand_behind_those_of_the_family() -> None:
    family = named_family("darts+conv_1x1+conv_3x3")
    assert (family.base, family.nodes) == ("darts", 4)
    assert family.operations == (*FAMILIES["darts"].operations, "conv_1x1", "conv_3x3")
    assert SearchSpace(family="darts+conv_1x1").encode(zoo()["CARS_A"].genotype).shape == (2, 14, 9)
    known = {key.kind for key in spec_keys(spec("darts"))}
    assert {key.kind for key in spec_keys(spec("darts+conv_1x1"))} == known | {"conv_1x1"}


@pytest.mark.parametrize("family", [*OTHERS, "darts+conv_1x1"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet", "cells"])
def test_costs_keys_and_files_count_what_the_network_has(family: str, stem: str) -> None:
    network = spec(family, stem, (9, 10) if stem == "cifar" else (33, 36))
    keys = {str(key) for key in spec_keys(network)}
    sums = OperationSums(network, {str(key): float(key_cost(key).multiply_adds) for key in spec_keys(network)})
    for genotype in drawn(family, amount(2, 50)):
        made = Network(network, genotype).eval()
        assert published_cost(network, genotype).parameters == sum(one.numel() for one in made.parameters())
        graph, cost = lower_network(made), network_cost(network, genotype)
        layers = [layer for layer in graph.layers if isinstance(layer, Conv | Linear)]
        weights = sum(one.weight.size + (0 if one.bias is None else one.bias.size) for one in layers)
        assert (weights, graph.multiply_adds) == (cost.parameters, cost.multiply_adds)
        placed = [item.key for item in genotype_keys(network, genotype)]
        assert {str(key) for key in placed} <= keys
        assert sum(key_cost(key).parameters for key in placed) == cost.parameters
        # What a search adds up, node by node, is what the network runs.
        assert sums.total(genotype) == pytest.approx(cost.multiply_adds)


@pytest.mark.parametrize("operation", FAMILIES["nasnet"].operations)
def test_an_operation_that_reads_one_state_twice_is_two_in_the_file(operation: str) -> None:
    network = spec("nasnet")
    cell = tuple((Edge(operation, 0), Edge(operation, 0)) for _ in range(5))
    genotype = Genotype(cell, cell, "nasnet")
    graph, cost = lower_network(Network(network, genotype).eval()), network_cost(network, genotype)
    layers = [layer for layer in graph.layers if isinstance(layer, Conv | Linear)]
    weights = sum(one.weight.size + (0 if one.bias is None else one.bias.size) for one in layers)
    assert (weights, graph.multiply_adds) == (cost.parameters, cost.multiply_adds)
    pools = sum(isinstance(layer, MaxPool | AvgPool) for layer in graph.layers)
    assert pools == sum(item.key.kind.endswith("pool_3x3") for item in genotype_keys(network, genotype))
    assert not operation.endswith("pool_3x3") or pools > 0


@pytest.mark.parametrize("share", ["edges", "nodes", "kernels"])
@pytest.mark.parametrize("family", OTHERS)
def test_the_supernet_computes_what_the_network_with_its_weights_does(family: str, share: str) -> None:
    torch.manual_seed(0)
    large = spec(family)
    supernet = SuperNet(large, share)  # type: ignore[arg-type]
    images = torch.randn(2, *large.input_shape).contiguous(memory_format=torch.channels_last)
    for network in (large, large.with_changes(channels=2, layers=3)):
        (genotype,) = drawn(family, 1, seed=network.channels)
        alone = Network(network, genotype)
        supernet.hand_over(alone)
        for module in alone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None
        with torch.no_grad():
            found = Slices(supernet).path(Architecture(genotype, network)).logits(images)
            torch.testing.assert_close(found, alone.eval()(images), rtol=1e-4, atol=1e-4)


def test_weights_are_not_shared_by_networks_whose_stem_has_cells() -> None:
    with pytest.raises(SpecError, match="weights cannot be shared by networks whose stem has cells"):
        SuperNet(spec("nasnet", "cells", (33, 36)))


@pytest.mark.parametrize("name", ["NASNet_A", "AmoebaNet_A", "CARS_A"])
def test_cells_that_join_other_states_share_no_weights(name: str) -> None:
    genotype = whole_zoo()[name].genotype
    network = spec("nasnet" if name == "CARS_A" else genotype.family)
    supernet = SuperNet(network)
    images = torch.zeros(2, *network.input_shape)
    message = "has darts cells and the network nasnet" if name == "CARS_A" else "joins other states than its family"
    for use in (
        lambda: supernet.forward(images, genotype),
        lambda: Slices(supernet).path(Architecture(genotype, network)),
        lambda: Slices(supernet).weights_of(Architecture(genotype, network)),
    ):
        with pytest.raises(SpecError, match=message):
            use()


def test_a_replaced_node_keeps_the_joined_states() -> None:
    genotype = PUBLISHED["NASNet_A"].genotype
    changed = replace_node(genotype, "normal", 0, (Edge("conv_1x1", 0), Edge("conv_1x1", 1)))
    assert changed.normal != genotype.normal
    assert [changed.joined(one) for one in (False, True)] == [genotype.joined(one) for one in (False, True)]


def test_draws_neighbours_and_encodings_of_loose_ends_are_of_the_space() -> None:
    space = SearchSpace(("skip_connect", "sep_conv_3x3"), family="enas")
    rng = np.random.default_rng(3)
    sources = Counter()
    for _ in range(200):
        genotype = space.sample(rng)
        space.validate(genotype)
        assert Genotype.parse(genotype.to_darts()) == Genotype.parse(json.dumps(genotype.to_dict())) == genotype
        sources[tuple(edge.source for edge in genotype.normal[0])] += 1
    # Both states are drawn one by one: (0, 1) is twice as frequent as each of the others.
    assert set(sources) == {(0, 0), (0, 1), (1, 1)}
    assert 70 < sources[0, 1] < 130
    assert len(space.node_choices(0)) == 3 * 4
    neighbours = list(space.neighbours(genotype))
    assert len({one.key() for one in neighbours} | {genotype.key()}) > 20
    for one in neighbours:
        space.validate(one)
    assert space.encode(genotype).shape == (2, 20, 6)


def test_a_search_proposes_no_published_cell_that_joins_other_states() -> None:
    nasnet = PUBLISHED["NASNet_A"].genotype
    assert nasnet.joined(reduction=False) == (0, 2, 3, 4, 5, 6)
    with pytest.raises(GenotypeError, match="joins other states than its family"):
        SearchSpace(family="nasnet").validate(nasnet)
    with pytest.raises(GenotypeError, match="has nasnet cells and this space darts cells"):
        SearchSpace().validate(nasnet)
    # It reads its first input, since it joins it.
    assert usages_of(nasnet)[0].first


@pytest.mark.parametrize(
    ("name", "network", "millions"),
    [
        # The figures that the papers of NASNet, PNASNet and AmoebaNet print, in millions.
        ("NASNet_A", "cifar", ("3.3", None)),
        ("NASNet_A", "imagenet", ("5.3", None)),
        ("PNASNet_5", "cifar", ("3.2", None)),
        ("PNASNet_5", "imagenet", ("5.1", "588")),
        ("AmoebaNet_A", "cifar", ("3.2", None)),
        ("AmoebaNet_A", "imagenet", ("5.1", None)),
    ],
)
def test_published_cells_have_the_printed_counts(name: str, network: str, millions: tuple[str, str | None]) -> None:
    published = PUBLISHED[name]
    counts = both_costs(published.network(network), published.genotype)
    assert f"{counts['published_parameters'] / 1e6:.1f}" == millions[0]
    if millions[1] is not None:
        assert f"{counts['published_multiply_adds'] / 1e6:.0f}" == millions[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_round_trip_and_say_their_source(name: str) -> None:
    genotype, source, networks = PUBLISHED[name]
    assert ":" in source
    assert networks["cifar"].family == genotype.family
    assert resolve_genotype(name) == genotype
    assert resolve_genotype(genotype.to_darts()) == resolve_genotype(json.dumps(genotype.to_dict())) == genotype
