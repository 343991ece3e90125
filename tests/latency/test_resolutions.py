"""One table over resolutions, on the simulated device: what is measured, predicted, refused and written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.errors import TableError
from cars_hw.latency import (
    LatencyTable,
    OpKey,
    Predictor,
    fresh_architectures,
    measure_architectures,
    profile_device,
    spec_keys,
    validate_table,
)
from cars_hw.latency.kind_regression import KindRegression
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(channels=8, layers=3, resolution=(8, 8), in_channels=1)
SIZES = SizeGrid((4, 8, 12, 16), (3, 4), ((8, 8), (10, 10), (12, 12), (14, 14), (16, 16)))
ONCE = MeasurePlan(sessions=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a table over :data:`SIZES`."""
    path = tmp_path_factory.mktemp("tables") / "sizes.json"
    profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=16, plan=ONCE, out=path)
    return path


@pytest.fixture
def table(path: Path) -> LatencyTable:
    return LatencyTable.read(path)


def at(side: int, channels: int, layers: int = 4) -> NetworkSpec:
    return replace(NETWORK, channels=channels, layers=layers, resolution=(side, side))


def test_operations_are_measured_at_three_resolutions(table: LatencyTable) -> None:
    # The largest resolution with all numbers of channels, each being the only one of its class or an end of it;
    # the smallest and the middle one with the fewest, the middle and the most channels.
    sizes = [(16, channels) for channels in (4, 8, 12, 16)]
    sizes += [(side, channels) for side in (8, 12) for channels in (4, 8, 16)]
    measured = {
        str(key) for side, channels in sizes for layers in (3, 4) for key in spec_keys(at(side, channels, layers))
    }
    assert set(table.entries) == measured
    assert table.spec.resolution == (12, 12)
    assert table.sizes == SIZES
    assert table.describe() == "4 to 16 channels and 3 to 4 cells, 8x8x1 to 16x16x1, 10 classes, cifar stem"


def test_calibration_networks_have_several_resolutions(table: LatencyTable, path: Path) -> None:
    resolutions = [network.resolution for network in table.calibration]
    assert resolutions[0] == (8, 8)
    assert table.calibration[0].anchor
    assert {(8, 8), (16, 16)} < set(resolutions)
    plain = json.loads(path.read_text())
    assert plain["calibration"][0]["resolution"] == [8, 8]
    assert plain["sizes"]["resolutions"] == [list(one) for one in SIZES.resolutions]
    assert table.calibrated[0].network == at(8, 4, 3)


def test_networks_of_all_resolutions_are_predicted_those_between_measured_ones_too(table: LatencyTable) -> None:
    rng = np.random.default_rng(3)
    networks = [
        Architecture(SearchSpace().sample(rng), at(side, channels))
        for side in (8, 10, 11, 12, 14, 16)
        for channels in (4, 12, 14)
    ]
    measured = measure_architectures(FakeDevice(), networks, ONCE).models
    errors = [
        Predictor(table, network=network).predict(genotype).ms / found.ms - 1
        for (genotype, network), found in zip(networks, measured, strict=True)
    ]
    assert np.abs(errors).mean() < 0.02
    assert np.abs(errors).max() < 0.05


def test_between_two_images_what_the_arithmetic_leaves_is_interpolated() -> None:
    # A runtime that is slow at images of 16x16: 1.4 times what the arithmetic says, less the further from it.
    def factor(side: int) -> float:
        return 1.4 - 0.4 * abs(math.log2(side / 16))

    def ms(side: int, channels: int) -> float:
        return side**2 * channels**2 * 1e-6 * factor(side)

    def key(side: int, channels: int) -> OpKey:
        return OpKey("relu_conv_bn", Shape(channels, side, side), channels)

    measured = {key(side, channels): ms(side, channels) for side in (8, 16, 32) for channels in (4, 8, 16, 32)}
    estimate = KindRegression.fit(measured).estimate
    for side in (12, 24):
        for channels in (8, 16, 32):
            assert estimate(key(side, channels)) == pytest.approx(ms(side, channels), rel=0.06)
    # At measured images nothing is interpolated between them.
    assert estimate(key(16, 16)) == pytest.approx(ms(16, 16), rel=1e-6)


@pytest.mark.parametrize("resolution", [(8, 17), (16, 17), (20, 20)])
def test_a_resolution_outside_of_the_range_is_refused(table: LatencyTable, resolution: tuple[int, int]) -> None:
    with pytest.raises(TableError, match="the table is for 4 to 16 channels and 3 to 4 cells, 8x8x1 to 16x16x1"):
        Predictor(table, network=replace(NETWORK, channels=8, resolution=resolution))


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_an_interrupted_profile_resumes_with_its_networks(tmp_path: Path, table: LatencyTable) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "networks: measuring" and done > total // 2:
            raise Stopped

    out = tmp_path / "sizes.json"
    with pytest.raises(Stopped):
        profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=16, plan=ONCE, out=out, progress=stop)
    resumed = profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=16, plan=ONCE, out=out, resume=True)
    assert resumed == table


def test_a_table_over_resolutions_is_validated_on_networks_of_all_of_them(table: LatencyTable) -> None:
    drawn = fresh_architectures(table, SIZES, 12, np.random.default_rng(1))
    assert len({one.network.resolution for one in drawn}) > 3
    result = validate_table(table, FakeDevice(), drawn, plan=ONCE)
    assert result.accuracy.mean_error < 0.02
    assert [row.resolution for row in result.rows] == [one.network.resolution for one in drawn]


def test_a_file_from_before_there_were_resolutions_is_read(tmp_path: Path) -> None:
    """Tables over sizes of one resolution have the form that they had."""
    out = tmp_path / "one.json"
    sizes = SizeGrid((4, 8), (3,))
    table = profile_device(FakeDevice(), NETWORK, sizes=sizes, calibration=8, plan=ONCE, out=out)
    content = json.loads(out.read_text())
    assert content["sizes"] == {"channels": [4, 8], "layers": [3]}
    assert "resolution" not in content["calibration"][0]
    assert LatencyTable.read(out) == table
