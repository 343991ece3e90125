"""The range of sizes that is found for latencies, on a device whose latencies follow a formula."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from simulated_phone import Adbd, Phone

from cars_hw.cli.main import main
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Sample
from cars_hw.devices.android.adb import make_key
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import BudgetError, SpecError, TableError
from cars_hw.latency import LatencyTable, SizeRange, find_size_range, profile_device
from cars_hw.latency.side_by_side import profile_all
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.wanted_sizes import WantedSizes
from cars_hw.space.zoo import zoo

NETWORK = NetworkSpec(channels=36, layers=20, resolution=(8, 8), in_channels=1)
ALL_LAYERS = tuple(range(5, 21))


class Proportional(FakeDevice):
    """A device on which the cells of CARS_A take ``rate`` milliseconds for each channel and cell, others a tenth.

    The first session of a model takes twice as long as the second.
    """

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__("formula")
        self.rate = rate
        self.measured: list[float] = []

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        taken = []
        for number, model in enumerate(models):
            channels, layers, height, genotype = model.read_text().split(" ", 3)
            typical = Genotype.parse(genotype) == zoo()["CARS_A"].genotype
            ms = self.rate * int(channels) * int(layers) * (1.0 if typical else 0.1)
            ms *= (int(height) / NETWORK.resolution[0]) ** 2
            self.measured.append(ms)
            taken.append(Sample(2 * ms if number == 0 else ms))
        return taken


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are their sizes and genotypes as text."""

    def write(network: NetworkSpec, genotype: Genotype, path: Path, *_: object) -> None:
        height, _ = network.resolution
        path.write_text(f"{network.channels} {network.layers} {height} {genotype.to_darts()}")

    monkeypatch.setattr("cars_hw.latency.size_range.build_network", write)


def found(*latencies_ms: float, rate: float = 0.01, **given: tuple[int, ...]) -> SizeRange:
    return find_size_range(
        Proportional(rate), NETWORK, WantedSizes(latencies_ms, **given), progress=lambda *_: None
    )


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("latencies", "given", "channels", "layers", "ends"),
    [
        # At most 1 ms for 5 cells: 20 channels or fewer. At least 2.8 ms (0.7 of the budget) for 5 cells: 56
        # channels, which take more than 8 ms with 20 cells.
        ((4.0,), {}, (16, 24, 32, 40, 48, 56), ALL_LAYERS, (0.8, 11.2)),
        # 0.25 ms for 5 cells: 5 channels or fewer. 7 ms for 5 cells: 140 channels or more.
        (
            (10.0, 1.0),
            {},
            (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160),
            ALL_LAYERS,
            (0.2, 32.0),
        ),
        # 1 ms for 8 cells: 12.5 channels or fewer. 8 ms for 8 cells, twice the budget: 100 channels or more.
        ((4.0,), {"layers": (8,)}, (12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112), (8,), (0.96, 8.96)),
        # 1 ms for 16 channels: 6.25 cells or fewer. 6 ms for 32 channels: 18.75 cells or more.
        ((4.0, 3.0), {"channels": (12, 40)}, (12, 40), tuple(range(6, 21)), (0.72, 8.0)),
        # What is given stays as it is.
        ((1.0,), {"channels": (8, 20), "layers": (4, 9)}, (8, 20), (4, 9), (0.32, 1.8)),
    ],
)
def test_budgets_lie_well_inside_of_the_range(
    latencies: tuple[float, ...],
    given: dict[str, tuple[int, ...]],
    channels: tuple[int, ...],
    layers: tuple[int, ...],
    ends: tuple[float, float],
) -> None:
    result = found(*latencies, **given)
    assert result.sizes == SizeGrid(channels, layers)
    assert (result.smallest_ms, result.largest_ms) == pytest.approx(ends)


@pytest.mark.usefixtures("written")
def test_given_resolutions_widen_the_range_at_its_lower_end() -> None:
    ends = ((8, 8), (16, 16))
    result = find_size_range(
        Proportional(), NETWORK, WantedSizes((16.0,), resolutions=ends), progress=lambda *_: None
    )
    # At 16x16, networks take 0.04 ms for each channel and cell: 0.7 of the budget are 56 channels with 5 cells. At
    # 8x8, a quarter of the budget are 80 channels; three numbers of channels are kept below the largest one.
    assert result.sizes == SizeGrid((40, 48, 56), ALL_LAYERS, ends)
    assert (result.smallest_ms, result.largest_ms) == pytest.approx((2.0, 44.8))
    assert [(one.channels, one.layers, one.ms) for one in result.measured if one.resolution == (8, 8)] == [
        (4, 5, pytest.approx(0.2)),
        (128, 5, pytest.approx(6.4)),
    ]
    assert "networks of 40 to 56 channels, 5 to 20 cells and 8x8 to 16x16 pixels take" in result.describe("phone")


@pytest.mark.usefixtures("written")
def test_a_range_of_blocks_names_no_published_cells() -> None:
    network = NetworkSpec(8, 8, (8, 8), 1, family="mobile")
    result = find_size_range(Proportional(0.1), network, WantedSizes((4.0,), layers=(8,)), progress=lambda *_: None)
    assert result.describe("phone", network.parts) == (
        "4 ms on phone: networks of 12 to 112 channels and 8 blocks take about 960 us to 9 ms with the blocks of a "
        "random genotype."
    )


@pytest.mark.usefixtures("written")
def test_a_range_says_what_its_networks_take() -> None:
    result = found(4.0)
    assert result.describe("phone") == (
        "4 ms on phone: networks of 16 to 56 channels and 5 to 20 cells take about 800 us to 11 ms with the cells "
        "of CARS_A."
    )
    # Doubled channels up to the budget, with the fewest cells; then the most cells at both ends. The better of two
    # sessions counts.
    assert [(one.channels, one.layers) for one in result.measured] == [
        *((channels, 5) for channels in (4, 8, 16, 32, 64, 128)),
        (4, 20),
        (128, 20),
    ]
    assert [one.ms for one in result.measured] == pytest.approx(
        [0.01 * one.channels * one.layers for one in result.measured]
    )


@pytest.mark.usefixtures("written")
def test_a_budget_below_the_smallest_size_needs_fast_cells() -> None:
    # The smallest size takes 200 us with the cells of CARS_A, and 20 us with the fastest.
    result = found(0.15)
    assert result.sizes == SizeGrid((4, 8, 12), ALL_LAYERS)
    assert result.fastest_ms == pytest.approx(0.02)
    assert result.describe("phone") == (
        "150 us on phone: networks of 4 to 12 channels and 5 to 20 cells take about 200 us to 2.4 ms with the "
        "cells of CARS_A, and 20 us with the fastest cells at the smallest size."
    )
    with pytest.raises(BudgetError) as error:
        found(0.019, 5.0)
    assert str(error.value) == (
        "19 us on formula: the fastest network of the smallest size, 4 channels and 5 cells, takes 20 us"
    )
    assert error.value.smallest == pytest.approx((0.02,))


@pytest.mark.usefixtures("written")
def test_a_budget_above_the_largest_size() -> None:
    # 256 channels and 20 cells take 51.2 ms.
    result = found(60.0)
    assert result.sizes.channels[-1] == 256
    assert result.describe("phone").endswith("to 51 ms with the cells of CARS_A; larger sizes are not allowed.")
    with pytest.raises(BudgetError) as error:
        found(1.0, 103.0)
    assert str(error.value) == (
        "103 ms on formula: the largest networks that are allowed, 256 channels and 20 cells, take about 51 ms"
    )


@pytest.mark.usefixtures("written")
def test_networks_of_seconds_are_not_measured() -> None:
    device = Proportional(1.0)
    result = find_size_range(device, NETWORK, WantedSizes((4000.0,)), progress=lambda *_: None)
    # 192 channels take 960 ms with 5 cells, a quarter of the budget. They are not measured.
    assert result.sizes.channels == (192, 224, 256)
    assert result.largest_ms == pytest.approx(5120)
    assert max(device.measured) == pytest.approx(640)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "a range of sizes is found around a latency: give one at least"),
        ({"latencies_ms": (1.0, 0.0)}, "latencies_ms must be above 0, not 0.0"),
        ({"latencies_ms": (1.0,), "channels": (8, 7)}, "the channels of a range of sizes must ascend, not 8, 7"),
        ({"latencies_ms": (1.0,), "channels": (7,)}, "channels must be even, not 7: a strided skip is made of"),
        ({"latencies_ms": (1.0,), "layers": (2,)}, "layers must be at least 3, not 2"),
    ],
)
def test_what_no_range_can_be_found_for_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        WantedSizes(**wanted)
    assert str(error.value).startswith(message)


def test_a_stem_that_the_images_are_too_small_for_is_one_line(tmp_path: Path) -> None:
    result = run("--network", "imagenet", "--resolution", "16", "--latency", "1ms", "--out", tmp_path / "t.json")
    assert result.exit_code == 1
    assert result.stderr.endswith("resolution must be at least 32x32 for the imagenet stem\n")
    assert len(result.stderr.splitlines()) == 1


TINY = ("--resolution", "8", "--in-channels", "1", "--calibration", "4")


def run(*arguments: str | Path, device: str = "fake") -> Result:
    return CliRunner().invoke(main, ["profile", "--device", device, *map(str, arguments)])


def test_the_command_line_says_the_range_and_makes_the_table_for_it(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    made = run("--latency", "400us", *TINY, "--channels", "4", "--out", out, "--json")
    assert made.exit_code == 0, made.output
    lines = made.stderr.splitlines()
    (told,) = (line for line in lines if line.startswith("400 us on fake: networks of "))
    assert "networks of 4 channels and 5 to " in told
    # Before the long measurement.
    assert lines.index(told) < next(number for number, line in enumerate(lines) if line.startswith("operations"))
    summary = json.loads(made.stdout)
    table = LatencyTable.read(out)
    assert table.sizes is not None
    assert table.sizes.channels == (4,)
    assert summary["sizes"] == {"channels": [4], "layers": list(table.sizes.layers)}
    assert summary["range"]["wanted"] == {"latencies_ms": [0.4], "channels": [4], "layers": []}
    assert 0.3 < summary["range"]["smallest_ms"] < 0.4
    assert 0.8 < summary["range"]["largest_ms"] < 0.9
    # The networks of the table take from well below the budget to well above it.
    assert summary["fastest_ms"] < 0.1
    assert summary["slowest_ms"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--latency", "1us"), "1 us on fake: the fastest network of the smallest size, 4 channels and 5 cells, "),
        (
            ("--latency", "1s", "--channels", "8", "--layers", "5"),
            "1 s on fake: the largest networks that are allowed, 8 channels and 5 cells, take about ",
        ),
    ],
)
def test_budgets_out_of_reach_are_one_line_with_what_is_possible(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments, *TINY, "--out", tmp_path / "table.json")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith(f"Error: {message}")
    assert "--channels, --layers, --resolution" in result.stderr
    assert "operations" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_sizes_of_a_file_and_a_latency_exclude_each_other(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[sizes]\nchannels = [8]\nlayers = [5]\n")
    result = run("--latency", "1ms", "--config", config, "--out", tmp_path / "table.json")
    assert result.exit_code == 2
    assert "sizes are given by [sizes] or found for --latency, not both" in result.stderr


def test_an_interrupted_profile_takes_the_range_that_was_found(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "networks: measuring" and done > total // 2:
            raise Stopped

    out, wanted = tmp_path / "sizes.json", WantedSizes((0.3,), channels=(4,), layers=(3, 4))
    plain: dict[str, Any] = {"calibration": 4, "plan": MeasurePlan(sessions=1), "out": out}
    ranges: list[SizeRange] = []
    stages: list[str] = []
    with pytest.raises(Stopped):
        profile_device(FakeDevice(), NETWORK, sizes=wanted, on_range=ranges.append, progress=stop, **plain)
    with pytest.raises(TableError, match="holds an interrupted profile"):
        profile_device(FakeDevice(), NETWORK, sizes=wanted, on_range=ranges.append, **plain)
    for other in (replace(wanted, latencies_ms=(0.2,)), replace(wanted, layers=(3, 5))):
        with pytest.raises(TableError, match=r"of a profile with other settings \(latency\)"):
            profile_device(FakeDevice(), NETWORK, sizes=other, resume=True, **plain)
    resumed = profile_device(
        FakeDevice(),
        NETWORK,
        sizes=wanted,
        resume=True,
        on_range=ranges.append,
        progress=lambda stage, *_: stages.append(stage),
        **plain,
    )
    assert ranges[0] == ranges[1]
    assert len(ranges) == 2
    assert resumed.sizes == ranges[0].sizes
    assert "range of sizes: measuring" not in stages
    at_once = profile_device(FakeDevice(), NETWORK, sizes=wanted, **{**plain, "out": None})
    assert resumed == at_once
    assert LatencyTable.read(out) == resumed


def test_every_device_has_a_range_of_its_own(tmp_path: Path) -> None:
    ranges: dict[str, SizeRange] = {}
    devices = [FakeDevice("slow"), FakeDevice("fast", speed=4.0)]
    tables = profile_all(
        devices,
        NETWORK,
        [tmp_path / "slow.json", tmp_path / "fast.json"],
        sizes=WantedSizes((0.3,), channels=(4,)),
        calibration=4,
        plan=MeasurePlan(sessions=1),
        on_range=lambda device, one: ranges.update({device: one}),
    )
    assert [table.sizes for table in tables] == [ranges["slow"].sizes, ranges["fast"].sizes]
    slow, fast = (ranges[name].sizes.layers for name in ("slow", "fast"))
    assert slow[-1] < fast[-1]
    assert ranges["slow"].measured[0].ms == pytest.approx(4 * ranges["fast"].measured[0].ms, rel=1e-4)


def test_a_range_is_found_on_a_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(tmp_path / "keys" / "adbkey")
    monkeypatch.setattr("cars_hw.devices.android.adb.KEYS", tmp_path / "keys")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    phone = Phone(tmp_path / "phone")
    phone.install()
    with Adbd(phone) as adbd:
        device = f"android:127.0.0.1:{adbd.port}"
        arguments = ("--latency", "1us", "--channels", "4,8", "--layers", "3", *TINY)
        result = run(*arguments, "--out", tmp_path / "table.json", device=device)
    assert result.exit_code == 3
    assert f"Error: 1 us on {device}: the fastest network of the smallest size, 4 channels and 3 cells, takes " in (
        result.stderr
    )
    assert not (phone.tmp / "cars-hw").exists()
