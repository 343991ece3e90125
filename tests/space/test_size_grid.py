from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cars_hw.errors import SpecError
from cars_hw.space.network_spec import NETWORKS, NetworkSpec, size_words
from cars_hw.space.size_grid import SizeGrid

CIFAR = NETWORKS["cifar"]
GRID = SizeGrid((8, 12, 16, 24, 32, 48), (5, 8, 11, 20))


def sizes(networks: list[NetworkSpec]) -> list[tuple[int, int]]:
    return [(network.channels, network.layers) for network in networks]


def test_a_grid_is_every_width_with_every_depth() -> None:
    small = SizeGrid((8, 12), (5, 6))
    networks = list(small.networks(CIFAR))
    assert len(small) == 4
    assert sizes(networks) == [(8, 5), (8, 6), (12, 5), (12, 6)]
    assert all(replace(network, channels=36, layers=20) == CIFAR for network in networks)


def test_a_grid_is_made_of_any_sequence_of_whole_numbers() -> None:
    made = SizeGrid([8, 12], range(5, 7))  # type: ignore[arg-type]
    assert made == SizeGrid((8, 12), (5, 6))
    assert made.stages == ((1, 2, 2), (2, 2, 2))


@pytest.mark.parametrize("channels", ["48", 8, 8.0, (8.0,), ("8",), (True, 2), None])
def test_numbers_of_another_kind_are_refused(channels: object) -> None:
    with pytest.raises(SpecError, match="channels of a range of sizes must be several whole numbers"):
        SizeGrid(channels, (5,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("channels", "layers", "inside"), [(8, 5, True), (10, 19, True), (50, 8, False), (8, 4, False)]
)
def test_a_size_between_two_of_the_grid_is_covered(channels: int, layers: int, inside: bool) -> None:
    assert GRID.covers(replace(CIFAR, channels=channels, layers=layers)) is inside


def test_operations_are_measured_at_ends_and_middle_of_each_class_of_channels_and_at_the_outer_depths() -> None:
    # Multiples of 16 are 16, 32 and 48; of 8 alone 8, 24 and 40; of 4 alone 12, 20, 28, 36 and 44, whose middle is
    # the one next to sqrt(12 * 44) = 23.
    grid = SizeGrid(tuple(range(8, 49, 4)), (5, 8, 20))
    assert sizes(list(grid.measured_networks(CIFAR))) == [
        (width, depth) for width in (8, 12, 16, 20, 24, 32, 40, 44, 48) for depth in (5, 20)
    ]
    assert sizes(list(SizeGrid((8,), (5,)).measured_networks(CIFAR))) == [(8, 5)]


def test_the_middle_is_that_of_the_ratios() -> None:
    # sqrt(8 * 48) is 19.6, and sqrt(5 * 20) is 10; 16 and 24 are 0.20 away from the former by logarithm.
    assert sizes([GRID.middle(CIFAR)]) == [(16, 11)]


def test_draws_are_on_the_grid_and_reach_all_of_it() -> None:
    rng = np.random.default_rng(0)
    drawn = set(sizes([GRID.sample(CIFAR, rng) for _ in range(400)]))
    assert drawn == set(sizes(list(GRID.networks(CIFAR))))


@pytest.mark.parametrize(
    ("channels", "layers", "message"),
    [
        ((), (5,), "a range of sizes needs at least one number of channels"),
        ((8,), (), "a range of sizes needs at least one number of layers"),
        ((8, 8), (5,), "the channels of a range of sizes must ascend, not 8, 8"),
        ((8,), (6, 5), "the layers of a range of sizes must ascend, not 6, 5"),
        ((8, 9), (5,), "channels must be even, not 9: a strided skip is made of two halves"),
        ((8,), (2, 5), "layers must be at least 3, not 2"),
        ((8, 5000), (5,), "channels must be at most 4096, not 5000"),
    ],
)
def test_a_range_that_no_network_has_is_refused(
    channels: tuple[int, ...], layers: tuple[int, ...], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        SizeGrid(channels, layers)
    assert str(error.value) == message


def test_a_grid_says_what_it_is() -> None:
    assert GRID.describe() == "8 to 48 channels and 5 to 20 cells"
    assert SizeGrid((8,), (5, 6)).describe() == "8 channels and 5 to 6 cells"
    blocks = NetworkSpec(8, 5, (28, 28), 1, family="mobile")
    assert SizeGrid((8, 12), (5,)).describe_networks(blocks) == (
        "8 to 12 channels and 5 blocks, 28x28x1, 10 classes, cifar stem, mobile blocks"
    )


def test_stages_lie_between_those_of_fewest_and_of_most_cells() -> None:
    # 5 cells are 1 + 2 + 2, 7 cells 2 + 2 + 3.
    assert SizeGrid((8,), (5, 6, 7)).stages == ((1, 2, 2), (1, 2, 3), (2, 2, 2), (2, 2, 3))
    # 6 cells are not on this grid.
    assert SizeGrid((8,), (5, 7)).stages == ((1, 2, 2), (2, 2, 3))
    assert SizeGrid((8,), (8,)).stages == ((2, 3, 3),)
    # (6 - 1 + 1) * (7 - 2 + 1) * (7 - 2 + 1)
    assert len(SizeGrid((8,), tuple(range(5, 21))).stages) == 216


@pytest.mark.parametrize(
    ("channels", "depths", "covered", "on_grid"),
    [
        (8, (1, 2, 2), True, True),
        (12, (6, 2, 2), True, False),
        (10, (6, 7, 7), True, False),
        (8, (2, 3, 3), True, True),
        (8, (7, 2, 2), False, False),
        (8, (1, 1, 6), False, False),
    ],
)
def test_uneven_stages_are_covered_between_the_outer_depths(
    channels: int, depths: tuple[int, int, int], covered: bool, on_grid: bool
) -> None:
    network = replace(CIFAR, channels=channels, layers=sum(depths), depths=depths)
    assert GRID.covers(network) is covered
    assert GRID.has(network) is on_grid


def test_smallest_and_largest_are_the_corners_of_the_grid() -> None:
    assert sizes([GRID.smallest(CIFAR), GRID.largest(CIFAR)]) == [(8, 5), (48, 20)]


RESOLUTIONS = SizeGrid((8, 12, 16, 24, 32, 48), (5, 20), ((16, 16), (20, 20), (24, 24), (32, 32)))


def test_a_grid_may_have_resolutions() -> None:
    small = SizeGrid((8,), (5, 6), ((16, 16), (32, 32)))
    networks = [(one.layers, one.resolution) for one in small.networks(CIFAR)]
    assert networks == [(5, (16, 16)), (5, (32, 32)), (6, (16, 16)), (6, (32, 32))]
    assert len(small) == 4
    assert small.smallest(CIFAR) == replace(CIFAR, channels=8, layers=5, resolution=(16, 16))
    assert small.largest(CIFAR) == replace(CIFAR, channels=8, layers=6, resolution=(32, 32))
    # Eight corners: the ends of channels, cells and resolutions.
    corners = {(one.channels, one.layers, one.resolution[0]) for one in RESOLUTIONS.corners(CIFAR)}
    assert corners == {(c, n, r) for c in (8, 48) for n in (5, 20) for r in (16, 32)}
    # sqrt(16^2 * 32^2) is 22.6^2, next to 24^2.
    assert RESOLUTIONS.middle(CIFAR).resolution == (24, 24)
    assert GRID.middle(CIFAR).resolution == CIFAR.resolution


def test_all_numbers_of_channels_are_measured_at_the_largest_resolution_and_three_at_the_others() -> None:
    measured = {(one.channels, one.resolution[0]) for one in RESOLUTIONS.measured_networks(CIFAR)}
    at_largest = {channels for channels, resolution in measured if resolution == 32}
    assert at_largest == set(RESOLUTIONS.measured_channels)
    for resolution in (16, 24):
        assert {channels for channels, other in measured if other == resolution} == {8, 16, 48}
    assert {resolution for _, resolution in measured} == {16, 24, 32}
    two = SizeGrid((8,), (5,), ((16, 16), (32, 32)))
    assert [one.resolution[0] for one in two.measured_networks(CIFAR)] == [16, 32]


@pytest.mark.parametrize(
    ("resolution", "covered", "on_grid"),
    [((20, 20), True, True), ((18, 22), True, False), ((15, 20), False, False), ((20, 33), False, False)],
)
def test_a_resolution_between_two_of_the_grid_is_covered(
    resolution: tuple[int, int], covered: bool, on_grid: bool
) -> None:
    network = replace(CIFAR, channels=8, layers=5, resolution=resolution)
    assert RESOLUTIONS.covers(network) is covered
    assert RESOLUTIONS.has(network) is on_grid
    # A grid without resolutions leaves them to the network.
    assert GRID.covers(network)
    assert GRID.has(network)


def test_draws_reach_all_resolutions_and_one_resolution_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    drawn = {RESOLUTIONS.sample(CIFAR, rng).resolution for _ in range(100)}
    assert drawn == set(RESOLUTIONS.resolutions)
    single = replace(GRID, resolutions=((16, 16),))
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(5):
        assert single.sample(CIFAR, one) == replace(GRID.sample(CIFAR, other), resolution=(16, 16))


@pytest.mark.parametrize(
    ("resolutions", "message"),
    [
        (((32, 32), (16, 16)), "the resolutions of a range of sizes must ascend, not 32x32, 16x16"),
        (((16, 32), (32, 16)), "the resolutions of a range of sizes must ascend, not 16x32, 32x16"),
        (((16, 16), (16, 16)), "the resolutions of a range of sizes must ascend, not 16x16, 16x16"),
        ((16, 32), "resolutions must be pairs of height and width such as (32, 32), not (16, 32)"),
        (((16, 0),), "resolutions must be pairs of height and width such as (32, 32), not ((16, 0),)"),
        ("16", "resolutions must be pairs of height and width such as (32, 32), not '16'"),
    ],
)
def test_resolutions_that_are_none_are_refused(resolutions: object, message: str) -> None:
    with pytest.raises(SpecError) as error:
        SizeGrid((8,), (5,), resolutions)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_grid_of_resolutions_says_what_it_is() -> None:
    assert RESOLUTIONS.describe() == "8 to 48 channels, 5 to 20 cells and 16x16 to 32x32 pixels"
    assert RESOLUTIONS.describe_networks(CIFAR) == (
        "8 to 48 channels and 5 to 20 cells, 16x16x3 to 32x32x3, 10 classes, cifar stem"
    )
    assert GRID.describe_networks(CIFAR) == ("8 to 48 channels and 5 to 20 cells, 32x32x3, 10 classes, cifar stem")
    small = replace(CIFAR, channels=8, layers=5, resolution=(16, 20))
    assert RESOLUTIONS.describe_size(small) == "8 channels, 5 cells, 16x20 pixels"
    assert GRID.describe_size(small) == "8 channels, 5 cells"
    assert size_words([small, CIFAR])(small) == "8 channels, 5 cells, 16x20 pixels"
    assert size_words([small])(small) == "8 channels, 5 cells"
