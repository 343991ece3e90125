"""Spaces that widen: what they have in each epoch, and that they end as the whole space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from cars_hw.config.search import Widening
from cars_hw.errors import InputError
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.widening import require_widening, widened, widening_draws

GRID = SizeGrid((4, 6, 8, 10, 12), (5, 6, 7))
SIZED = ArchitectureSpace(SearchSpace(), NetworkSpec(12, 7, (16, 16)), GRID)
ONE_SIZE = ArchitectureSpace(SearchSpace(), NetworkSpec(8, 5, (16, 16)))
SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
CONVOLUTIONS = (*SEPARABLE, "dil_conv_3x3", "dil_conv_5x5")


def test_sizes_widen_from_the_largest_to_all() -> None:
    grids = [widened(SIZED, "sizes", epoch, 8).sizes for epoch in range(8)]
    # Four of the eight epochs widen: 1 + (5 - 1) * epoch / 4 numbers of channels, 1 + (3 - 1) * epoch / 4 of cells.
    assert grids[:4] == [
        SizeGrid((12,), (7,)),
        SizeGrid((10, 12), (7,)),
        SizeGrid((8, 10, 12), (6, 7)),
        SizeGrid((6, 8, 10, 12), (6, 7)),
    ]
    assert grids[4:] == [GRID] * 4
    # All operations from the start.
    assert {widened(SIZED, "sizes", epoch, 8).cells for epoch in range(8)} == {SIZED.cells}


def test_resolutions_widen_from_the_largest_to_all() -> None:
    sizes = SizeGrid((8,), (5,), ((8, 8), (12, 12), (16, 16)))
    space = ArchitectureSpace(SearchSpace(), NetworkSpec(8, 5, (16, 16)), sizes)
    found = [widened(space, "sizes", epoch, 4).sizes for epoch in range(3)]
    assert [one.resolutions for one in found if one is not None] == [
        ((16, 16),),
        ((12, 12), (16, 16)),
        sizes.resolutions,
    ]


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        # Two times 25 (or 9) weights of each channel, channels^2 of the pointwise convolution and 2 numbers of the
        # normalisation of each channel, or once if dilated: with 8 channels 560, 304, 280, 152, and with 4
        # 248, 124, 120, 60.
        (8, ("sep_conv_5x5", "sep_conv_3x3", "dil_conv_5x5", "dil_conv_3x3")),
        (4, ("sep_conv_5x5", "dil_conv_5x5", "sep_conv_3x3", "dil_conv_3x3")),
    ],
)
def test_operations_come_by_their_weights_and_none_comes_last(channels: int, order: Sequence[str]) -> None:
    space = ArchitectureSpace(SearchSpace(), NetworkSpec(channels, 5, (16, 16)))
    whole = space.cells.operations
    expected = [*order, "max_pool_3x3", "avg_pool_3x3", "skip_connect", "none"]
    # 14 epochs, of which seven widen: one operation more in each.
    for epoch in range(14):
        found = widened(space, "operations", epoch, 14)
        assert set(found.cells.operations) == set(expected[: epoch + 1])
        assert list(found.cells.operations) == [one for one in whole if one in found.cells.operations]
    # Two epochs widen: the second one has 1 + 7 / 2 operations.
    assert [len(widened(space, "operations", epoch, 4).cells.operations) for epoch in range(4)] == [1, 4, 8, 8]


@pytest.mark.parametrize(
    ("epochs", "whole"), [(0, [True]), (1, [True]), (2, [False, True]), (3, [False, True, True]), (5, [False] * 2)]
)
@pytest.mark.parametrize("widening", ["sizes", "operations", "both"])
def test_half_of_the_epochs_rounded_down_widens(widening: Widening, epochs: int, whole: Sequence[bool]) -> None:
    for epoch, expected in enumerate(whole):
        assert (widened(SIZED, widening, epoch, epochs) is SIZED) == expected
    assert widened(SIZED, widening, epochs, epochs) is SIZED
    assert widened(SIZED, "none", 0, epochs) is SIZED


def test_draws_of_an_epoch_are_those_of_the_space_written_by_hand() -> None:
    by_hand = {
        "sizes": [
            ArchitectureSpace(SearchSpace(), SIZED.network, SizeGrid((12,), (7,))),
            ArchitectureSpace(SearchSpace(), SIZED.network, SizeGrid((8, 10, 12), (6, 7))),
        ],
        "operations": [
            ArchitectureSpace(SearchSpace(("sep_conv_5x5",)), SIZED.network, GRID),
            ArchitectureSpace(SearchSpace(CONVOLUTIONS), SIZED.network, GRID),
        ],
        "both": [
            ArchitectureSpace(SearchSpace(("sep_conv_5x5",)), SIZED.network, SizeGrid((12,), (7,))),
            ArchitectureSpace(SearchSpace(CONVOLUTIONS), SIZED.network, SizeGrid((8, 10, 12), (6, 7))),
        ],
    }
    for widening, spaces in by_hand.items():
        # Epochs 0 and 2 of 8, then one of the second half.
        for epoch, space in zip((0, 2, 4), [*spaces, SIZED], strict=True):
            first, second = np.random.default_rng(epoch), np.random.default_rng(epoch)
            found = [widened(SIZED, widening, epoch, 8).sample(first) for _ in range(30)]  # type: ignore[arg-type]
            assert found == [space.sample(second) for _ in range(30)]
            assert all(SIZED.proposable(one) for one in found)


def test_draws_over_epochs_have_as_many_of_each() -> None:
    drawn = list(widening_draws(SIZED, "both", 8, 80, np.random.default_rng(0)))
    assert len(drawn) == 80
    edges = [
        {edge.operation for node in (*one.genotype.normal, *one.genotype.reduce) for edge in node} for one in drawn
    ]
    largest = [one.network.channels == 12 and one.network.layers == 7 for one in drawn]
    assert [one == {"sep_conv_5x5"} for one in edges] == [True] * 10 + [False] * 70
    assert all(one <= set(SEPARABLE) for one in edges[:20])
    assert all(largest[:10])
    assert Counter(largest[40:])[True] < 10


def test_one_size_does_not_widen_by_size() -> None:
    for widening in ("sizes", "both"):
        with pytest.raises(InputError) as error:
            require_widening(ONE_SIZE, widening)  # type: ignore[arg-type]
        assert str(error.value) == (
            f"the draws cannot widen by size (widening '{widening}'): the search has a single size"
        )
        assert error.value.remedy == "widen-operations"
        require_widening(SIZED, widening)  # type: ignore[arg-type]
    require_widening(ONE_SIZE, "operations")


def test_a_space_without_cells_does_not_widen_by_operation() -> None:
    class Blocks:
        """Something else than cells."""

    space = ArchitectureSpace(Blocks(), SIZED.network, GRID)  # type: ignore[arg-type]
    for widening in ("operations", "both"):
        with pytest.raises(InputError, match=f"by operation .widening '{widening}'.: the networks have no cells"):
            require_widening(space, widening)  # type: ignore[arg-type]
    require_widening(space, "sizes")
