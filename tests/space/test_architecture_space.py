"""The space of architectures over sizes: what is drawn, and how sizes vary."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

GRID = SizeGrid((8, 16, 32), (5, 6, 7))
LARGEST = replace(NETWORKS["cifar"], channels=32, layers=7)
SPACE = ArchitectureSpace(SearchSpace(), LARGEST, GRID)


def size(channels: int, *depths: int) -> NetworkSpec:
    first, second, third = depths
    return replace(LARGEST, channels=channels, layers=sum(depths), depths=(first, second, third))


def test_draws_of_one_size_are_those_of_its_cells() -> None:
    space = ArchitectureSpace(SearchSpace(), LARGEST)
    cells = SearchSpace(network=LARGEST)
    for seed in range(5):
        drawn = space.sample(np.random.default_rng(seed))
        assert drawn == Architecture(cells.sample(np.random.default_rng(seed)), LARGEST)


def test_draws_have_every_size_of_the_grid_and_no_unread_cell() -> None:
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(600)]
    assert all(SPACE.proposable(one) and not unread_cells(one.network, one.genotype) for one in drawn)
    sizes = Counter((one.network.channels, one.network.stages) for one in drawn)
    assert set(sizes) == {(c, s) for c in GRID.channels for s in GRID.stages}
    # 8, 16 and 32 are equally far apart by their logarithms: each has a third of the draws.
    channels = Counter(one.network.channels for one in drawn)
    assert all(abs(count - 200) < 50 for count in channels.values())
    # 6 cells are 1 + 2 + 3 or 2 + 2 + 2, and share what 6 cells have.
    assert abs(sizes[8, (1, 2, 3)] - sizes[8, (2, 2, 2)]) < 30


def test_uneven_grids_are_drawn_evenly_over_the_logarithm() -> None:
    # From 8 to 9 and from 9 to 64: halfway to the neighbours, 8 and 9 have few and 64 most.
    space = ArchitectureSpace(SearchSpace(), LARGEST, SizeGrid((8, 10, 64), (5,)))
    rng = np.random.default_rng(0)
    channels = Counter(space.sample_size(rng).channels for _ in range(2000))
    # log(10/8) = 0.22 and log(64/10) = 1.86: widths 0.446, 2.079 and 3.713 of 6.238 in all.
    assert channels[8] == pytest.approx(2000 * 0.0715, abs=40)
    assert channels[10] == pytest.approx(2000 * 0.3333, abs=70)
    assert channels[64] == pytest.approx(2000 * 0.5952, abs=70)


@pytest.mark.parametrize(
    ("network", "inside"),
    [
        (size(16, 1, 2, 3), True),
        (size(12, 1, 2, 3), False),
        (size(16, 3, 2, 2), False),
        (replace(size(16, 1, 2, 3), classes=7), False),
    ],
)
def test_only_sizes_of_the_grid_are_proposed(network: NetworkSpec, inside: bool) -> None:
    # A cell that reads both inputs leaves none without a reader.
    genotype = SearchSpace(network=network).sample(np.random.default_rng(0))
    assert SPACE.proposable(Architecture(genotype, network)) is inside


def test_a_mutation_is_one_step_along_the_grid() -> None:
    rng = np.random.default_rng(0)
    found = {SPACE.mutate_size(size(16, 1, 2, 2), 1.0, rng) for _ in range(200)}
    # Channels go to 8 or 32, the first stage to 2, the third to 3; the second has no other depth.
    assert found == {size(8, 2, 2, 3), size(32, 2, 2, 3)}
    assert SPACE.mutate_size(size(16, 1, 2, 2), 0.0, rng) == size(16, 1, 2, 2)
    ends = {SPACE.mutate_size(size(8, 2, 2, 3), 1.0, rng) for _ in range(50)}
    assert ends == {size(16, 1, 2, 2)}


def test_crossover_takes_channels_and_stages_apart_or_together() -> None:
    rng = np.random.default_rng(0)
    first, second = size(8, 1, 2, 2), size(32, 2, 2, 3)
    found = {SPACE.cross_sizes(first, second, 0.5, rng) for _ in range(100)}
    assert found == {first, second, size(8, 2, 2, 3), size(32, 1, 2, 2)}
    assert SPACE.cross_sizes(first, second, 1.0, rng) == second


def test_parts_of_a_size_are_replaced_one_by_one() -> None:
    assert SPACE.with_channels(size(8, 1, 2, 3), 32) == size(32, 1, 2, 3)
    assert SPACE.with_stages(size(8, 1, 2, 3), (2, 2, 2)) == size(8, 2, 2, 2)
    assert (SPACE.smallest, SPACE.largest) == (size(8, 1, 2, 2), LARGEST)


OVER_RESOLUTIONS = ArchitectureSpace(
    SearchSpace(), LARGEST, SizeGrid((8, 16, 32), (5, 6, 7), ((8, 8), (16, 16), (32, 32)))
)


def at(side: int, network: NetworkSpec) -> NetworkSpec:
    return replace(network, resolution=(side, side))


def test_resolutions_are_drawn_evenly_over_the_logarithm_of_their_pixels() -> None:
    rng = np.random.default_rng(0)
    sides = Counter(OVER_RESOLUTIONS.sample(rng).network.resolution[0] for _ in range(600))
    # Each has four times the pixels of the one before.
    assert set(sides) == {8, 16, 32}
    assert all(abs(count - 200) < 50 for count in sides.values())


def test_the_resolution_moves_one_step_and_is_crossed_by_itself() -> None:
    rng = np.random.default_rng(0)
    start = at(16, size(16, 1, 2, 2))
    found = {OVER_RESOLUTIONS.mutate_size(start, 1.0, rng).resolution for _ in range(50)}
    assert found == {(8, 8), (32, 32)}
    assert OVER_RESOLUTIONS.mutate_size(start, 0.0, rng) == start
    first, second = at(8, size(8, 1, 2, 2)), at(32, size(8, 1, 2, 2))
    crossed = {OVER_RESOLUTIONS.cross_sizes(first, second, 0.5, rng) for _ in range(50)}
    assert crossed == {first, second}
    assert OVER_RESOLUTIONS.with_resolution(first, (16, 16)) == at(16, size(8, 1, 2, 2))
    # The other parts of a size leave the resolution as it is.
    assert OVER_RESOLUTIONS.with_channels(first, 32).resolution == (8, 8)
    assert OVER_RESOLUTIONS.with_stages(first, (2, 2, 2)).resolution == (8, 8)


def test_only_resolutions_of_the_grid_are_proposed() -> None:
    genotype = SearchSpace(network=LARGEST).sample(np.random.default_rng(0))
    for side, inside in ((8, True), (16, True), (24, False)):
        assert OVER_RESOLUTIONS.proposable(Architecture(genotype, at(side, size(16, 1, 2, 3)))) is inside
    # A space of one resolution has that of its network.
    assert SPACE.proposable(Architecture(genotype, size(16, 1, 2, 3)))
    assert not SPACE.proposable(Architecture(genotype, at(16, size(16, 1, 2, 3))))
    assert OVER_RESOLUTIONS.smallest == at(8, size(8, 1, 2, 2))
    assert OVER_RESOLUTIONS.largest == LARGEST
