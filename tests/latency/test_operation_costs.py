"""Costs of operations between the sizes that were measured, against laws that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from cars_hw.errors import TableError
from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.keys import OpKey, genotype_keys, spec_keys
from cars_hw.latency.kind_regression import KindRegression, Lanes
from cars_hw.latency.operation_costs import OperationCosts
from cars_hw.nn.cost import network_cost
from cars_hw.space.cost import Cost
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape

Law = Callable[[OpKey], float]


def separable(channels: int, image: int) -> OpKey:
    return OpKey("sep_conv_3x3", Shape(channels, image, image), channels, 1)


def grid(channels: tuple[int, ...]) -> list[OpKey]:
    """Return the keys of three stages: channels double where the image halves."""
    return [separable(number * 2**stage, 32 // 2**stage) for number in channels for stage in range(3)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_costs_of_a_networks_keys_are_those_of_the_network(name: str) -> None:
    network, rng = NETWORKS[name], np.random.default_rng(0)
    for _ in range(20):
        genotype = SearchSpace().sample(rng)
        total = Cost()
        for placed in genotype_keys(network, genotype):
            total = total.plus(key_cost(placed.key)._replace(folded=0))
        assert total == network_cost(network, genotype)._replace(folded=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_key_is_read_from_its_text(name: str) -> None:
    for key in spec_keys(NETWORKS[name]):
        assert OpKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text", ["", "relu", "relu/c8", "relu/c8/4", "relu/cx/4x4", "relu/c8/4x4/s22", "a b/c8/4x4"]
)
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="is not the name of an operation; profile the device again"):
        OpKey.parse(text)


def arithmetic(key: OpKey) -> float:
    """A microsecond, 4 multiply-adds a nanosecond, a nanosecond an element."""
    elements = math.prod(key.source) + math.prod(key.output)
    return 1e-3 + key_cost(key).multiply_adds / 4e6 + elements / 1e6


def by_eight(key: OpKey) -> float:
    up = -(-key.channels // 8) * 8
    return arithmetic(OpKey(key.kind, key.source._replace(channels=up), up, key.stride))


def by_lanes(key: OpKey, depthwise: float = 0.0, dense_part: float = 0.0) -> float:
    """The depthwise part of both convolutions computes 16 channels at once, the dense part 32 outputs (or 16).

    With channels that remain, they take longer by these shares.
    """
    elements = math.prod(key.source) + math.prod(key.output)
    lines, dense = 2.0 * 9 * key.channels, 2.0 * key.channels**2
    pixels = key.source.height * key.source.width
    outputs = 16 if key.channels <= 16 else -(-key.channels // 32) * 32
    widths = -(-key.channels // 16) * 16
    lines *= 1 + depthwise * (key.channels % 16 > 0)
    dense *= 1 + dense_part * (key.channels % 32 > 0)
    multiply_adds = pixels * (lines * widths + dense * outputs) / key.channels
    return 1e-3 + multiply_adds / 4e6 + elements / 1e6


def with_remainders(key: OpKey) -> float:
    return by_lanes(key, depthwise=0.4, dense_part=0.25)


@pytest.mark.parametrize(
    ("law", "lanes"),
    [
        (arithmetic, Lanes(1, 1, 1)),
        (by_eight, Lanes(8, 8, 8)),
        (by_lanes, Lanes(16, 32, 1)),
        (with_remainders, Lanes(16, 32, 1)),
    ],
)
def test_a_law_is_found_and_holds_between_the_measured_widths(law: Law, lanes: Lanes) -> None:
    measured = {key: law(key) for key in grid((6, 12, 20, 34, 48))}
    fitted = KindRegression.fit(measured)
    assert fitted.lanes == lanes
    assert fitted.left_out_error == pytest.approx(0, abs=1e-6)
    for key in grid((10, 16, 26, 30, 40)):
        assert fitted.estimate(key) == pytest.approx(law(key), rel=1e-6)


def test_what_was_measured_is_given_as_measured_and_shapes_what_lies_beside_it() -> None:
    # At 24 channels and 32x32 the runtime has a slow kernel.
    measured = {key: arithmetic(key) for key in grid((8, 24, 56))}
    measured[separable(24, 32)] *= 1.5
    costs = OperationCosts(measured, between=True)
    assert costs.of(measured).tolist() == list(measured.values())

    def ratio(key: OpKey) -> float:
        return float(costs.of([key])[0]) / arithmetic(key)

    # 40 is a multiple of 8 as well, and lies between 24 and 56; 80 has images of another size.
    assert ratio(separable(40, 32)) > ratio(separable(80, 16)) + 0.1


def test_classes_of_channels_are_apart() -> None:
    # The runtime takes twice as long for channels that are no multiples of 16.
    def law(key: OpKey) -> float:
        return arithmetic(key) * (1 if key.channels % 16 == 0 else 2)

    costs = OperationCosts({key: law(key) for key in grid((16, 24, 48, 56))}, between=True)
    for key in grid((32, 40)):
        assert float(costs.of([key])[0]) == pytest.approx(law(key), rel=0.06), key


def test_a_table_of_one_size_has_no_other_operation() -> None:
    costs = OperationCosts({separable(8, 32): 1.0})
    with pytest.raises(TableError) as error:
        costs.of([separable(8, 32), separable(16, 32)])
    assert str(error.value) == "the table has no entry for sep_conv_3x3/c16/32x32/s1; profile the device again"


def test_a_kind_that_was_never_measured_has_no_latency() -> None:
    costs = OperationCosts({separable(8, 32): 1.0}, between=True)
    with pytest.raises(TableError) as error:
        costs.of([OpKey("head", Shape(32, 8, 8), 10)])
    assert str(error.value) == "the table has no entry for head at stride 0; profile the device again"


def test_operations_of_a_network_between_two_measured_ones_have_their_costs() -> None:
    measured = [NetworkSpec(channels, layers, (32, 32)) for channels in (8, 16, 32) for layers in (5, 8)]
    costs = OperationCosts({key: arithmetic(key) for one in measured for key in spec_keys(one)}, between=True)
    between = [key for key in spec_keys(NetworkSpec(20, 7, (32, 32))) if str(key) not in map(str, measured)]
    assert len(between) > 50
    for key in between:
        assert float(costs.of([key])[0]) == pytest.approx(arithmetic(key), rel=1e-6), key
