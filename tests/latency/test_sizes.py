"""One table over sizes, on the simulated device: what it predicts, refuses and writes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cars_hw.cli.main import main
from cars_hw.cli.profile import estimates_hint
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError, TableError
from cars_hw.latency import (
    LatencyTable,
    OpKey,
    Predictor,
    compare_tables,
    fresh_architectures,
    genotype_keys,
    measure_architectures,
    profile_device,
    spec_keys,
    validate_table,
)
from cars_hw.latency.kind_regression import KindRegression
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(channels=8, layers=3, resolution=(8, 8), in_channels=1)
SIZES = SizeGrid((4, 8, 12, 16, 20, 24, 28), (3, 4, 5, 6))
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


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_operations_are_measured_at_some_of_the_sizes(table: LatencyTable) -> None:
    # Of the multiples of 16 there is one, of 8 alone 8 and 24, of 4 alone 4, 12, 20 and 28, whose middle is 12.
    measured = {
        str(key)
        for channels in (4, 8, 12, 16, 24, 28)
        for layers in (3, 6)
        for key in spec_keys(replace(NETWORK, channels=channels, layers=layers))
    }
    assert set(table.entries) == measured
    assert (table.spec.channels, table.spec.layers) == (12, 4)
    assert table.sizes == SIZES


def test_calibration_networks_have_sizes_from_end_to_end(table: LatencyTable) -> None:
    sizes = [(network.channels, network.layers) for network in table.calibration]
    assert sizes[0] == (4, 3)
    assert table.calibration[0].anchor
    assert (28, 6) in sizes
    assert len(set(sizes)) > 6
    # Even steps of the logarithm: no gap is more than three times the mean one.
    logs = np.sort(np.log([network.measured.ms for network in table.calibration[1:]]))
    assert np.diff(logs).max() < 3 * np.diff(logs).mean()


@pytest.mark.parametrize("channels", [4, 12, 16, 20, 28])
def test_networks_of_all_sizes_are_predicted_those_between_measured_ones_too(
    table: LatencyTable, channels: int
) -> None:
    rng = np.random.default_rng(channels)
    networks = [
        Architecture(SearchSpace().sample(rng), replace(NETWORK, channels=channels, layers=layers))
        for layers in (3, 5, 6)
    ]
    measured = measure_architectures(FakeDevice(), networks, ONCE).models
    for (genotype, network), found in zip(networks, measured, strict=True):
        assert Predictor(table, network=network).predict(genotype).ms == pytest.approx(found.ms, rel=0.03)


def test_networks_of_uneven_stages_need_no_other_operations(table: LatencyTable) -> None:
    assert len(SIZES.stages) > len(SIZES.layers)
    for stages in SIZES.stages:
        network = replace(NETWORK, channels=16, layers=sum(stages), depths=stages)
        assert {str(key) for key in spec_keys(network)} <= set(table.entries)


@pytest.mark.parametrize("stages", [(1, 2, 1), (2, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize("channels", [8, 16, 20])
def test_networks_of_uneven_stages_are_predicted(
    table: LatencyTable, channels: int, stages: tuple[int, int, int]
) -> None:
    network = replace(NETWORK, channels=channels, layers=sum(stages), depths=stages)
    assert network.depths == stages
    rng = np.random.default_rng(channels)
    networks = [Architecture(SearchSpace().sample(rng), network) for _ in range(2)]
    measured = measure_architectures(FakeDevice(), networks, ONCE).models
    for (genotype, _), found in zip(networks, measured, strict=True):
        # As exact as for networks with reductions at thirds.
        assert Predictor(table, network=network).predict(genotype).ms == pytest.approx(found.ms, rel=0.03)


def test_kinds_that_are_estimated_badly_are_named_with_what_to_do(table: LatencyTable) -> None:
    assert table.operation_costs.left_out_errors()["sep_conv_3x3/s1"] < 0.03
    assert estimates_hint(table) is None
    assert table.sizes is not None
    # At 12 and 24 channels, the device has kernels that take four times as long.
    slow = {
        f"{kind}/c{channels * 8 // image}/{image}x{image}/s1"
        for kind in ("sep_conv_3x3", "dil_conv_5x5")
        for channels in (12, 24)
        for image in (8, 4, 2)
    }
    entries = {
        key: replace(entry, ms=4 * entry.ms) if key in slow else entry for key, entry in table.entries.items()
    }
    assert slow <= set(entries)
    uneven = replace(table, entries=entries)
    errors = uneven.operation_costs.left_out_errors()
    assert {*list(errors)[:2]} == {"sep_conv_3x3/s1", "dil_conv_5x5/s1"}
    hint = estimates_hint(uneven)
    assert hint is not None
    assert f"the estimates of 2 of {len(errors)} kinds of operations have a mean error above 10%: " in hint
    assert f"sep_conv_3x3/s1 {errors['sep_conv_3x3/s1']:.0%}" in hint
    assert hint.endswith("For a table without such estimates, use --channels 4,8,12,16,24,28")
    # Of these numbers all are measured.
    assert SizeGrid((4, 8, 12, 16, 24, 28), (3, 6)).measured_channels == (4, 8, 12, 16, 24, 28)
    assert estimates_hint(replace(uneven, sizes=SizeGrid((4, 8, 12, 16, 24, 28), (3, 6)))) is None


def test_a_measured_operation_costs_what_was_measured(table: LatencyTable) -> None:
    keys = [OpKey.parse(text) for text in table.entries]
    found = table.operation_costs.of(keys)
    assert dict(zip(map(str, keys), found, strict=True)) == table.costs()


@pytest.mark.parametrize(
    "network",
    [
        replace(NETWORK, channels=30),
        replace(NETWORK, layers=7),
        replace(NETWORK, resolution=(9, 8)),
        replace(NETWORK, classes=5),
    ],
)
def test_a_network_outside_of_the_range_is_refused(table: LatencyTable, network: NetworkSpec) -> None:
    with pytest.raises(TableError) as error:
        Predictor(table, network=network)
    assert str(error.value) == (
        "the table is for 4 to 28 channels and 3 to 6 cells, 8x8x1, 10 classes, cifar stem, not for "
        f"{network.describe()}; profile the device for this network"
    )


def test_a_predictor_of_a_further_size_is_that_of_the_table(table: LatencyTable) -> None:
    rng = np.random.default_rng(7)
    first = Predictor(table, state="usual")
    genotypes = [SearchSpace().sample(rng) for _ in range(3)]
    for channels, layers in itertools.product((4, 12, 20, 28), (3, 5, 6)):
        network = replace(NETWORK, channels=channels, layers=layers)
        further, alone = first.at(network), Predictor(table, state="usual", network=network)
        assert (further.spec, further.margin, further.level) == (network, alone.margin, alone.level)
        for genotype in genotypes:
            assert further.predict(genotype) == alone.predict(genotype)
            assert further.parts(genotype) == alone.parts(genotype)
    assert first.spec == table.spec
    with pytest.raises(TableError, match="not for 30 channels"):
        first.at(replace(NETWORK, channels=30))


def test_what_one_size_has_met_costs_other_sizes_a_look_up(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated = 0

    def counting(self: KindRegression, key: OpKey) -> float:
        nonlocal estimated
        estimated += 1
        return estimate(self, key)

    estimate = KindRegression.estimate
    measured = set(map(OpKey.parse, table.entries))
    monkeypatch.setattr(KindRegression, "estimate", counting)
    genotype = SearchSpace().sample(np.random.default_rng(3))
    larger, smaller = (replace(NETWORK, channels=20, layers=layers) for layers in (6, 5))
    needed = [{placed.key for placed in genotype_keys(one, genotype)} for one in (larger, smaller)]
    first = Predictor(table)
    assert estimated == 0
    first.at(larger).predict(genotype)
    assert estimated == len(needed[0] - measured) > 10
    first.at(smaller).predict(genotype)
    assert estimated == len((needed[0] | needed[1]) - measured) < len(needed[0] - measured) + 5


def test_a_table_over_sizes_without_a_kind_of_operation_is_refused(table: LatencyTable) -> None:
    entries = {key: entry for key, entry in table.entries.items() if not key.startswith("dil_conv_5x5")}
    with pytest.raises(TableError, match="the table has no entry for dil_conv_5x5 at stride 1; profile"):
        Predictor(replace(table, entries=entries))


def test_a_table_of_one_network_has_the_form_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    table = profile_device(FakeDevice(), NETWORK, calibration=8, plan=ONCE, out=path)
    content = json.loads(path.read_text())
    assert "sizes" not in content
    assert not {"channels", "layers"} & set(content["calibration"][0])
    assert "depths" not in content["network"]
    assert LatencyTable.read(path) == table
    with pytest.raises(TableError, match="not for 12 channels"):
        Predictor(table, network=replace(NETWORK, channels=12))


def test_an_interrupted_profile_resumes_with_its_networks(tmp_path: Path, table: LatencyTable) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "networks: measuring" and done > total // 2:
            raise Stopped

    out = tmp_path / "sizes.json"
    with pytest.raises(Stopped):
        profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=16, plan=ONCE, out=out, progress=stop)
    with pytest.raises(TableError, match=r"other settings \(sizes\)"):
        profile_device(FakeDevice(), NETWORK, calibration=16, plan=ONCE, out=out, resume=True)
    resumed = profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=16, plan=ONCE, out=out, resume=True)
    assert resumed == table


def test_a_table_over_sizes_is_validated_on_networks_of_all_sizes(table: LatencyTable) -> None:
    drawn = fresh_architectures(table, SIZES, 12, np.random.default_rng(1))
    assert len({one.network for one in drawn}) > 5
    # As in a search, cells are divided among the stages in all ways.
    assert any(one.network.depths is not None for one in drawn)
    even = fresh_architectures(table, SIZES, 12, np.random.default_rng(1), thirds=True)
    assert all(one.network.depths is None for one in even)
    result = validate_table(table, FakeDevice(), drawn, plan=ONCE)
    assert result.accuracy.mean_error < 0.02
    assert result.accuracy.kendall_tau == pytest.approx(1.0, abs=0.05)
    assert [(row.channels, row.layers, row.stages) for row in result.rows] == [
        (one.network.channels, one.network.layers, one.network.stages) for one in drawn
    ]
    taken = table.calibration[3].architecture(table.spec)
    with pytest.raises(InputError, match="1 of 1 genotypes took part"):
        validate_table(table, FakeDevice(), [taken], plan=ONCE)
    # The same genotype at another size took no part.
    other = Architecture(
        taken.genotype, replace(NETWORK, channels=4 if taken.network.channels > 4 else 8, layers=3)
    )
    assert len(validate_table(table, FakeDevice(), [other], plan=ONCE).rows) == 1


def test_the_command_line_makes_and_reads_a_table_over_sizes(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    network = ("--resolution", "8", "--in-channels", "1")
    made = run(
        "profile",
        "--device",
        "fake",
        *network,
        "--channels",
        "4..8",
        "--layers",
        "3,4",
        "--calibration",
        "8",
        "--out",
        out,
    )
    assert made.exit_code == 0, made.output
    assert "8 networks of 4 to 8 channels and 3 to 4 cells, 8x8x1, 10 classes, cifar stem on fake." in made.stdout
    assert LatencyTable.read(out).sizes == SizeGrid((4, 8), (3, 4))
    predictions = [
        json.loads(
            run("predict", "--table", out, "DARTS_V2", "--channels", channels, "--layers", "4", "--json").stdout
        )
        for channels in ("4", "6", "8")
    ]
    small, between, large = (one[0]["ms"] for one in predictions)
    assert small < between < large
    outside = run("predict", "--table", out, "DARTS_V2", "--channels", "10")
    assert outside.exit_code == 2
    assert "the table is for networks of 4 to 8 channels and 3 to 4 cells" in outside.stderr
    assert "choose one with --layers" in outside.stderr
    outside = run("predict", "--table", out, "DARTS_V2", "--channels", "10", "--layers", "4")
    assert outside.exit_code == 1
    assert "the table is for 4 to 8 channels and 3 to 4 cells" in outside.stderr
    told = run("predict", "--table", out, "DARTS_V2", "--channels", "6", "--layers", "4").stdout
    assert told.startswith("6 channels, 4 cells, 8x8x1, 10 classes, cifar stem")
    # Without a genotype the networks have any size, and the smallest bound is that of the smallest size.
    every = json.loads(run("predict", "--table", out, "--json").stdout)
    least, most = (
        json.loads(run("predict", "--table", out, "--channels", c, "--layers", n, "--json").stdout)["bounds_ms"]
        for c, n in (("4", "3"), ("8", "4"))
    )
    assert every["sizes"] == {"channels": [4, 8], "layers": [3, 4]}
    assert every["bounds_ms"]["smallest"] == least["smallest"]
    assert least["50% of random"] < every["bounds_ms"]["50% of random"] < most["50% of random"]
    quantile = run("predict", "--table", out, "--quantile", "0.5").stdout.strip()
    assert float(quantile.removesuffix("ms")) == pytest.approx(every["bounds_ms"]["50% of random"], rel=1e-3)
    validated = run("validate", "--table", out, "--sample", "4")
    assert validated.exit_code == 0, validated.output
    assert "channels, " in validated.stdout


@pytest.mark.parametrize("text", ["8..4", "8..", "4..4", "8;16", "x", "4..8:0", "-4"])
def test_what_says_no_sizes_is_wrong_usage(tmp_path: Path, text: str) -> None:
    result = run("profile", "--device", "fake", "--channels", text, "--out", tmp_path / "table.json")
    assert result.exit_code == 2
    assert (
        f"'{text}' says no sizes; write one number, a range such as 8..48, or several such as 8,12,16"
        in result.stderr
    )


def test_a_range_that_no_network_has_is_one_line(tmp_path: Path) -> None:
    result = run("profile", "--device", "fake", "--channels", "3..9", "--out", tmp_path / "table.json")
    assert result.exit_code == 1
    assert result.stderr == "Error: sizes.channels must be even, not 3: a strided skip is made of two halves\n"


def test_tables_over_sizes_are_compared_size_by_size(table: LatencyTable) -> None:
    first, *others = table.calibration
    # The same genotype at two sizes, of which the second table has made the larger one slower.
    twins = (first, replace(first, channels=8))
    before = replace(table, calibration=(*twins, *others))
    slower = replace(twins[1], measured=replace(first.measured, ms=2 * first.measured.ms))
    after = replace(table, calibration=(first, slower, *others))
    ratios = {moved.name: moved.ratio for moved in compare_tables(before, after).networks}
    genotype = first.genotype.to_darts()
    assert ratios[f"4 channels, 3 cells, {genotype}"] == 1.0
    assert ratios[f"8 channels, 3 cells, {genotype}"] == 2.0
    with pytest.raises(TableError, match="tables are of different networks, 4 to 28 channels"):
        compare_tables(table, replace(table, sizes=SizeGrid((4, 8), (3, 4))))
