"""How much of a budget the answer uses, and whether the sizes of a search end before it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from cars_hw.cli.front_table import larger_sizes, print_budget_use
from cars_hw.cli.profile import command as profile
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.pipeline.budget_use import SizesEnd, budget_use, budget_uses
from cars_hw.pipeline.further_table import further_table
from cars_hw.pipeline.latency_target import LatencyEstimate, LatencyTarget
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of as genotypes_of

NETWORK = NetworkSpec(4, 5, (8, 8), 1, classes=3)
SIZES = SizeGrid((4, 8, 12), (5, 6, 7))
SMALLER = SizeGrid((4, 8), (5, 6))


class Known(NamedTuple):
    """A network of a front."""

    name: str
    architecture: Architecture
    latency_estimates: tuple[LatencyEstimate, ...]


@pytest.fixture(scope="module")
def sized() -> LatencyTable:
    return profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=12, plan=MeasurePlan(sessions=1))


def space_of(sizes: SizeGrid | None) -> ArchitectureSpace:
    cells = SearchSpace(("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"))
    return ArchitectureSpace(cells, NETWORK if sizes is None else sizes.largest(NETWORK), sizes)


def drawn(space: ArchitectureSpace, network: NetworkSpec) -> Architecture:
    return Architecture(space.cells_for(network).sample(np.random.default_rng(1)), network)


def known(targets: list[LatencyTarget], best: Architecture, measured_ms: float | None = None) -> Known:
    return Known("net-03", best, tuple(target.estimate(best, measured_ms) for target in targets))


def test_the_use_is_that_of_the_measured_latency_or_of_the_upper_bound(sized: LatencyTable) -> None:
    space = space_of(SIZES)
    best = drawn(space, space.largest)
    bound_ms = LatencyTarget(sized).predict(best).bound_ms
    target = LatencyTarget(sized, bound_ms / 0.9)
    (use,) = budget_uses(known([target], best), [target], space)
    assert (use.share, use.bound_share, use.measured) == (pytest.approx(0.9), pytest.approx(0.9), False)
    limit = f"{target.limit_ms:.4g} ms"
    assert use.sentence == (
        f"The most accurate network, net-03, uses 90% of the {limit} on fake, by its upper bound."
    )
    assert use.end_of_sizes is None
    measured_ms = 0.88 * bound_ms / 0.9
    (use,) = budget_uses(known([target], best, measured_ms), [target], space)
    assert (use.share, use.measured) == (pytest.approx(0.88), True)
    assert use.sentence == (
        f"The most accurate network, net-03, uses 88% of the {limit} on fake, and its upper bound 90%."
    )
    assert budget_use(target, "net-03", best, measured_ms, index=0, space=space) == use
    assert budget_uses(known([LatencyTarget(sized)], best), [LatencyTarget(sized)], space) == []


def slowest_of(target: LatencyTarget, space: ArchitectureSpace) -> float:
    """Return the predicted latency of the slowest of many networks of the largest size."""
    rng, largest = np.random.default_rng(3), space.largest
    cells = space.cells_for(largest)
    return max(target.predict(Architecture(cells.sample(rng), largest)).ms for _ in range(3000))


@pytest.mark.parametrize(("sizes", "wider"), [(SIZES, None), (SMALLER, SIZES)])
def test_sizes_that_end_before_the_budget(sized: LatencyTable, sizes: SizeGrid, wider: SizeGrid | None) -> None:
    space, target = space_of(sizes), LatencyTarget(sized, 1000.0)
    best = drawn(space, NETWORK)
    (use,) = budget_uses(known([target], best), [target], space)
    assert use.end is not None
    assert (use.end.allowed, use.end.one, use.end.wider) == (sizes.describe(), False, wider)
    slowest_ms = use.end.slowest_ms
    assert slowest_ms is not None
    # The descent finds what random draws only come near.
    assert slowest_of(target, space) <= slowest_ms < 2 * slowest_of(target, space)
    said = rf"1000 ms on fake: the slowest network that was allowed, of {sizes.describe()}, takes [\d.]+ ms"
    assert re.fullmatch(said, str(use.end_of_sizes))


def test_a_best_network_of_the_largest_size_that_uses_little(sized: LatencyTable) -> None:
    space = space_of(SMALLER)
    largest = drawn(space, space.largest)
    slowest_ms = slowest_of(LatencyTarget(sized), space)
    # Some networks exceed this budget, and the best uses half of it.
    target = LatencyTarget(sized, slowest_ms)
    (use,) = budget_uses(known([target], largest, 0.5 * slowest_ms), [target], space)
    assert use.end is not None
    assert (use.end.slowest_ms, use.end.wider) == (None, SIZES)
    assert use.end_of_sizes == "net-03 has the largest size that was allowed, of 4 to 8 channels and 5 to 6 cells"
    smaller = drawn(space, replace(NETWORK, channels=8))
    (use,) = budget_uses(known([target], smaller, 0.5 * slowest_ms), [target], space)
    assert use.end is None
    # Another budget leaves no room for larger networks.
    tight = LatencyTarget(sized, 0.51 * slowest_ms)
    uses = budget_uses(known([target, tight], largest, 0.5 * slowest_ms), [target, tight], space)
    assert [round(one.share, 2) for one in uses] == [0.5, 0.98]
    assert [one.end for one in uses] == [None, None]


def test_a_table_of_one_network(sized: LatencyTable, capsys: pytest.CaptureFixture[str]) -> None:
    one = profile_device(FakeDevice(), NETWORK, calibration=8, plan=MeasurePlan(sessions=1))
    space = space_of(None)
    target = LatencyTarget(one, 20.0)
    best = drawn(space, NETWORK)
    uses = budget_uses(known([target], best, 4.0), [target], space)
    assert uses[0].end is not None
    assert (uses[0].end.allowed, uses[0].end.one, uses[0].end.wider) == ("4 channels, 5 cells", True, None)
    print_budget_use(uses)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "The most accurate network, net-03, uses 20% of the 20 ms on fake, and its upper bound "
    )
    assert re.fullmatch(
        r"20 ms on fake: the slowest network that was allowed, of 4 channels, 5 cells, takes [\d.]+ ms; for larger "
        r"ones, make a table with: cars-hw profile --device fake --latency 20ms --resolution 8 --classes 3 "
        r"--out larger\.json",
        second,
    )


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        (SizeGrid((8, 12, 16, 20), (5, 6, 7)), "--channels 8..20 --layers 5..7"),
        (SizeGrid((8, 16, 20), (5, 8)), "--channels 8,16,20 --layers 5,8"),
        (SizeGrid((8, 12, 14), (6,)), "--channels 8..14 --layers 6"),
    ],
)
def test_the_options_that_allow_the_sizes_of_the_table(sizes: SizeGrid, options: str) -> None:
    end = SizesEnd("8 channels, 5 cells", False, None, sizes, "")
    assert larger_sizes(end) == f"allow larger ones with {options}"


@pytest.mark.parametrize(
    ("network", "resolutions", "options"),
    [
        (NetworkSpec(8, 5, (28, 28), 1), (), ""),
        (NetworkSpec(8, 3, (32, 32), 3, classes=4), (), "--resolution 32 --in-channels 3 --classes 4"),
        (NetworkSpec(8, 3, (48, 64), 1), (), "--resolution 48x64"),
        (NetworkSpec(8, 3, (28, 28), 1), ((16, 16), (28, 28)), "--resolution 16,28"),
        (NetworkSpec(8, 8, (224, 224), classes=5, stem="imagenet"), (), "--network imagenet --classes 5"),
        (NetworkSpec(8, 5, (28, 28), 1, family="nasnet"), (), "--family nasnet"),
        (NetworkSpec(4, 4, (28, 28), 1, family="mobile"), (), "--family mobile --layers 4"),
    ],
)
def test_a_further_table_is_for_the_same_images(
    network: NetworkSpec, resolutions: tuple[tuple[int, int], ...], options: str
) -> None:
    line = further_table("fake", 20.0, network, resolutions=resolutions)
    words = [
        "cars-hw",
        "profile",
        "--device",
        "fake",
        "--latency",
        "20ms",
        *options.split(),
        "--out",
        "larger.json",
    ]
    assert shlex.split(line) == words
    # The command takes them.
    profile.make_context("profile", words[2:])


def test_a_further_table_is_for_the_same_models() -> None:
    line = further_table("ort", 0.5, NetworkSpec(8, 5, (28, 28), 1), precision="int8", threads=2)
    assert line == "cars-hw profile --device ort --latency 0.5ms --precision int8 --threads 2 --out larger.json"


def test_a_search_without_a_larger_size_tells_the_table_for_its_images() -> None:
    network = NetworkSpec(4, 4, (8, 8), 1, classes=3, family="mobile")
    table = profile_device(FakeDevice(), network, calibration=4, plan=MeasurePlan(sessions=1))
    cells = genotypes_of(network)
    best = Architecture(cells.sample(np.random.default_rng(0)), network)
    target = LatencyTarget(table, 20.0)
    (use,) = budget_uses(known([target], best, 4.0), [target], ArchitectureSpace(cells, network))
    assert use.end is not None
    assert larger_sizes(use.end) == (
        "for larger ones, make a table with: cars-hw profile --device fake --latency 20ms --resolution 8 "
        "--classes 3 --family mobile --layers 4 --out larger.json"
    )
