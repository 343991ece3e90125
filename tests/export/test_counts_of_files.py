"""What a network is said to cost is what its files have, counted from the files."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from file_counts import Counts, count_onnx, count_tflite
from long_runs import amount

from cars_hw.export.write import build_network
from cars_hw.nn.cost import Cost, network_cost, published_cost
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

SIZES = {
    "grey": NetworkSpec(4, 5, (14, 14), 1),
    "odd": NetworkSpec(6, 8, (15, 13)),
    "imagenet": NetworkSpec(4, 4, (65, 70), classes=7, stem="imagenet"),
}
COUNTERS = {"onnx": count_onnx, "tflite": count_tflite}


def counted(spec: NetworkSpec, genotype: Genotype, folder: Path) -> dict[str, Counts]:
    """Return what each format's file has."""
    found = {}
    for name, count in COUNTERS.items():
        build_network(spec, genotype, folder / name, name)
        found[name] = count(folder / name)
    return found


def assert_counted(spec: NetworkSpec, genotype: Genotype, folder: Path) -> None:
    cost = network_cost(spec, genotype)
    expected = Counts(cost.parameters, cost.multiply_adds)
    assert counted(spec, genotype, folder) == dict.fromkeys(COUNTERS, expected), genotype.to_dict()


def random_genotypes(size: str) -> list[Genotype]:
    """Return random genotypes, every third of them one that leaves cells without a reader."""
    rng = np.random.default_rng(list(SIZES).index(size))
    whole, light = SearchSpace(), SearchSpace(("none", "skip_connect", "dil_conv_5x5"))
    drawn = [whole.sample(rng) for _ in range(amount(6, 140))]
    while len(drawn) < amount(9, 200):
        genotype = light.sample(rng)
        if unread_cells(SIZES[size], genotype):
            drawn.append(genotype)
    return drawn


@pytest.mark.parametrize("size", SIZES)
def test_costs_of_random_architectures_are_those_of_their_files(size: str, tmp_path: Path) -> None:
    genotypes = random_genotypes(size)
    for genotype in genotypes:
        assert_counted(SIZES[size], genotype, tmp_path)
    unread = [genotype for genotype in genotypes if unread_cells(SIZES[size], genotype)]
    assert 0 < len(unread) < len(genotypes)
    for genotype in unread:
        published, ships = published_cost(SIZES[size], genotype), network_cost(SIZES[size], genotype)
        assert published.parameters > ships.trained_parameters
        assert published.multiply_adds > ships.multiply_adds


CASES = [
    *product(zoo(), SIZES.values()),
    *product(("CARS_A", "SNAS_aggressive"), (NETWORKS["cifar"],)),
    *product(zoo(), (NETWORKS["cifar"], NETWORKS["imagenet"])),
]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        pytest.param(name, spec, id=f"{name}-{spec.layers}")
        for name, spec in CASES[: amount(3 * len(zoo()) + 2, 1000)]
    ],
)
def test_costs_of_the_zoo_are_those_of_its_files(name: str, spec: NetworkSpec, tmp_path: Path) -> None:
    assert_counted(spec, zoo()[name].genotype, tmp_path)


def one_edge(operation: str, source: int) -> Genotype:
    """Both cells alike: each node has the operation on one of the cell's inputs, and nothing on the other."""
    node = (Edge(operation, source), Edge("none", 1 - source))
    return Genotype((node,) * 4, (node,) * 4)


def test_a_cell_without_a_reader_by_hand(tmp_path: Path) -> None:
    # Cells 1 and 2 reduce. Cell 2 reads cell 0, cell 0 the stem: cell 1 has no reader, nor has any preprocessing 1.
    spec = NetworkSpec(channels=2, layers=3, resolution=(8, 8), in_channels=1, classes=2)
    genotype = one_edge("max_pool_3x3", 0)
    assert unread_cells(spec, genotype) == (1,)
    stem = Cost(1 * 6 * 9 + 6, 54 * 64)
    first = Cost(6 * 2 + 2, 12 * 64)
    # A factorized reduction to 4 + 4 channels at 4x4.
    last = Cost(8 * 8 + 8, 64 * 16)
    head = Cost(32 * 2 + 2, 64)
    parameters = sum(part.parameters for part in (stem, first, last, head))
    multiply_adds = sum(part.multiply_adds for part in (stem, first, last, head))
    assert network_cost(spec, genotype) == (212, 5312, 6 + 2 + 8) == (parameters, multiply_adds, 16)
    # With what nothing reads: cell 0's 6 to 2, cell 1's 6 to 4 and 8 to 4, cell 2's 16 to 8; scale and shift.
    unread = (12 + 4) + (24 + 8) + (32 + 8) + (128 + 16)
    assert published_cost(spec, genotype) == (212 + 16 + unread, 5312 + 64 * (12 + 24 + 32) + 16 * 128, 0)
    assert published_cost(spec, genotype) == (460, 11_712, 0)
    assert counted(spec, genotype, tmp_path) == dict.fromkeys(COUNTERS, (212, 5312))


def test_a_stem_of_which_half_is_read_by_hand(tmp_path: Path) -> None:
    # Cell 2 reads cell 0, which reads the stem at a quarter: nothing reads the stem's convolution to an eighth.
    spec = NetworkSpec(channels=2, layers=3, resolution=(32, 32), classes=3, stem="imagenet")
    rest = ((Edge("skip_connect", 2), Edge("none", 0)),) * 3
    normal = ((Edge("sep_conv_3x3", 0), Edge("none", 1)), *rest)
    reduce = ((Edge("skip_connect", 0), Edge("none", 1)), *rest)
    genotype = Genotype(normal, reduce)
    parts = [
        Cost(3 * 1 * 9 + 1, 27 * 16 * 16),
        Cost(1 * 2 * 9 + 2, 18 * 8 * 8),
        # Cell 0: a factorized reduction, and twice 9 weights of 2 channels and 2 x 2, with one bias of 2.
        Cost(2 * 2 + 2, 4 * 4 * 4),
        Cost(2 * (2 * 9 + 2 * 2 + 2), 2 * 22 * 4 * 4),
        # Cell 2: a factorized reduction to 2x2, and the skip is another to 1x1.
        Cost(8 * 8 + 8, 64 * 2 * 2),
        Cost(8 * 8 + 8, 64),
        Cost(32 * 3 + 3, 96),
    ]
    expected = (sum(part.parameters for part in parts), sum(part.multiply_adds for part in parts))
    assert expected == (345, 9248)
    assert network_cost(spec, genotype)[:2] == expected
    assert counted(spec, genotype, tmp_path) == dict.fromkeys(COUNTERS, expected)


def test_preprocessing_that_nothing_reads_by_hand(tmp_path: Path) -> None:
    # Every cell reads the one before: all of them are read, and no cell has a first preprocessing.
    spec = NetworkSpec(channels=2, layers=3, resolution=(8, 8), in_channels=1, classes=2)
    genotype = one_edge("skip_connect", 1)
    assert unread_cells(spec, genotype) == ()
    parts = [
        Cost(54 + 6, 54 * 64),
        Cost(6 * 2 + 2, 12 * 64),
        # Cell 1: 8 to 4 channels, and four factorized reductions of 4 channels to 4x4.
        Cost(8 * 4 + 4, 32 * 64),
        Cost(4 * (4 * 4 + 4), 4 * 16 * 16),
        # Cell 2: 16 to 8 channels, and four factorized reductions of 8 channels to 2x2.
        Cost(16 * 8 + 8, 128 * 16),
        Cost(4 * (8 * 8 + 8), 4 * 64 * 4),
        Cost(32 * 2 + 2, 64),
    ]
    expected = (sum(part.parameters for part in parts), sum(part.multiply_adds for part in parts))
    assert expected == (680, 10_432)
    assert network_cost(spec, genotype)[:2] == expected
    assert counted(spec, genotype, tmp_path) == dict.fromkeys(COUNTERS, expected)
