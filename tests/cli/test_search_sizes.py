"""A search over sizes by the command line: the whole job, and what a user can get wrong about sizes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from few_descents import descend_once
from invoked import done, fails, run
from PIL import Image

from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.units import parse_latency
from cars_hw.devices import FakeDevice
from cars_hw.export.card import ModelCard, card_path
from cars_hw.formatting import LOSSES_CHOSE
from cars_hw.latency import profile_device
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid

BASE = NetworkSpec(4, 5, (8, 8), 1, classes=2)
QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")


def profiled(path: Path, channels: tuple[int, ...], layers: tuple[int, ...]) -> Path:
    sizes = SizeGrid(channels, layers)
    profile_device(FakeDevice(), BASE, sizes=sizes, calibration=8, out=path, plan=MeasurePlan(sessions=1))
    return path


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    descend_once(monkeypatch)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return profiled(tmp_path_factory.mktemp("sizes") / "table.json", (4, 8), (5, 6))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes") / "images"
    for name, shade in (("dark", 20), ("light", 220)):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            Image.new("L", (8, 8), shade + number % 5).save(folder / name / f"{number}.png")
    return folder


def test_the_whole_job_over_sizes(table: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    budget = done("predict", "--table", table, "--quantile", "0.9").stdout.strip()
    search = ("search", "--data", images, "--table", table, "--latency", budget, "--out", out, *QUICK)
    found = done(*search)
    assert "The search is for networks of 4 to 8 channels and 5 to 6 cells" in found.stderr
    front = RunFolder.open(out).front()
    grid = SizeGrid((4, 8), (5, 6))
    assert all(grid.has(one.spec) for one in front)
    # The cheapest architecture began the search: nothing dominates it.
    assert front[0].spec == grid.smallest(BASE)
    assert all(one.latency_estimates[0].bound_ms <= float(budget.removesuffix("ms")) for one in front)
    done("train", out, "--top", "2", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    assert done("export", out).stdout.endswith(f"\nNext: cars-hw verify {out} --device fake\n")
    for name, spec in ((one.name, one.spec) for one in RunFolder.open(out).trained()):
        for kind in ("onnx", "tflite"):
            assert ModelCard.read(card_path(out / "models" / f"{name}.{kind}")).network == spec
    told = done("verify", out, "--device", "fake", "--sessions", "1")
    assert told.stdout.endswith(f"\nNext: cars-hw report {out}\n")
    done("report", out)
    # A search by its own settings has the same front.
    again = tmp_path / "again"
    done("search", "--config", out / "config.toml", "--out", again)
    assert [one.architecture for one in RunFolder.open(again).front()] == [one.architecture for one in front]
    # A finished run is left as it is.
    before = (out / "front.json").read_bytes()
    done(*search, "--resume")
    assert (out / "front.json").read_bytes() == before


def test_sizes_are_restricted_by_options(table: Path, images: Path, tmp_path: Path) -> None:
    data = ("--data", images, "--table", table, "--no-measure", *QUICK)
    done("search", *data, "--channels", "8", "--out", tmp_path / "wide")
    assert {one.spec.channels for one in RunFolder.open(tmp_path / "wide").front()} == {8}
    one_size = ("--channels", "4", "--layers", "6", "--objective", "loss")
    told = done("search", *data, *one_size, "--out", tmp_path / "one")
    assert "The search is for networks of 4 channels, 6 cells" in told.stderr
    assert {one.spec.stages for one in RunFolder.open(tmp_path / "one").front()} == {(2, 2, 2)}
    # By the loss, its order is not that of the accuracies in the table.
    assert LOSSES_CHOSE in told.stdout.splitlines()
    assert (
        LOSSES_CHOSE not in done("search", *data, *one_size, "--resume", "--out", tmp_path / "one", "--json").stdout
    )
    # Its settings say which size it was: the table has others.
    done("search", "--config", tmp_path / "one" / "config.toml", "--out", tmp_path / "again")
    again, one = (RunFolder.open(tmp_path / name) for name in ("again", "one"))
    assert again.configuration == one.configuration
    assert again.front() == one.front()
    median = done("predict", "--table", table, "--quantile", "0.5").stdout.strip()
    told = done("search", *data, "--at-least", median, "--latency", "100ms", "--out", tmp_path / "slow")
    slow = RunFolder.open(tmp_path / "slow")
    assert min(one.latency_estimates[0].predicted_ms for one in slow.front()) >= float(median.removesuffix("ms"))
    # Little of the budget is used: it is said what was not tried, in print and in front.json.
    (larger,) = slow.larger()
    said = "No network that uses more of the 100 ms on fake was trained, because the search had no final stage"
    assert (larger.sentence, larger.answer) == (said, max(slow.front(), key=lambda one: one.accuracy).name)
    assert f"{said}; --final 0.3 trains larger networks." in told.stdout.splitlines()


def test_a_search_without_a_table_varies_sizes_by_a_counted_cost(images: Path, tmp_path: Path) -> None:
    network = ("--resolution", "8", "--in-channels", "1", "--classes", "2")
    sizes = ("--channels", "4,8", "--layers", "5,6")
    out = tmp_path / "run"
    done("search", "--data", images, "--cost", "multiply-adds", *network, *sizes, *QUICK, "--out", out)
    run_folder = RunFolder.open(out)
    assert run_folder.configuration.sizes == SizeGrid((4, 8), (5, 6))
    population = run_folder.history()[-1]["population"]
    assert len({(one["network"]["channels"], one["network"]["layers"]) for one in population}) > 1
    assert all(one["network"]["channels"] in (4, 8) and one["network"]["layers"] in (5, 6) for one in population)


def refused(code: int, *parts: str, by: Sequence[str | Path]) -> None:
    """Check that the search ``by`` these arguments is refused, and that a dry run refuses it with the same line."""
    results = [run("search", *by), run("search", *by, "--dry-run")]
    for result in results:
        fails(result, code, *parts)
    search, dry = ([line for line in result.stderr.splitlines() if line.startswith("Error:")] for result in results)
    assert dry == search


def test_what_can_be_wrong_about_sizes_ends_in_one_line(table: Path, images: Path, tmp_path: Path) -> None:
    data = ("--data", images, "--table", table, *QUICK, "--out", tmp_path / "run")
    refused(2, "'8..4' says no sizes", by=(*data, "--channels", "8..4"))
    refused(1, "channels must be even, not 5", by=(*data, "--channels", "5"))
    lacks = "the table is for 4 to 8 channels and 5 to 6 cells"
    refused(1, lacks, "profile the device", by=(*data, "--channels", "4..64"))
    refused(1, lacks, by=(*data, "--layers", "20"))
    refused(1, lacks, by=(*data, "--network", "cifar"))
    refused(3, "no architecture keeps to the budget", "possible", by=(*data, "--latency", "1us"))
    refused(
        1,
        "smallest latency of interest must be positive and below the limit of 1 ms",
        by=(*data, "--latency", "1ms", "--at-least", "2ms"),
    )
    slow = ("--latency", "100ms", "--at-least", "50ms")
    refused(3, "no architecture was found within the budget", "of at least 50 ms", by=(*data, *slow))
    refused(2, "2 --at-least for 1 --table", by=(*data, "--at-least", "1ms", "--at-least", "1ms"))
    refused(2, "2 --latency for 1 --table", by=(*data, "--latency", "1ms", "--latency", "1ms"))
    other = profiled(tmp_path / "other.json", (12, 16), (5, 6))
    refused(
        1,
        "the tables have no size in common (their ranges are 4 to 8 and 12 to 16); profile the devices",
        by=(*data, "--table", other),
    )
    # The second device keeps to its budget at no size, whatever the first allows.
    both = (*data, "--table", table, "--latency", "1ms", "--latency", "50us")
    refused(3, "no architecture keeps to the budget", "limit 1 ms, possible", "limit 0.05 ms", by=both)
    stem = ("--data", images, "--cost", "parameters", *QUICK, "--out", tmp_path / "run")
    refused(1, "resolution must be at least 8x8 for the cifar stem", by=(*stem, "--resolution", "4"))
    refused(1, "layers must be at least 3, not 2", by=(*stem, "--channels", "4,8", "--layers", "2"))
    assert not (tmp_path / "run").exists()


def test_what_else_a_search_refuses_is_refused_by_a_dry_run(table: Path, images: Path, tmp_path: Path) -> None:
    asked = ("--table", table, *QUICK)
    one = tmp_path / "one"
    for name in ("dark", "light"):
        (one / name).mkdir(parents=True)
        Image.new("L", (8, 8), 20).save(one / name / "1.png")
    refused(1, "has too few images", by=("--data", one, *asked, "--out", tmp_path / "run"))
    shutil.copytree(images, tmp_path / "three")
    shutil.copytree(images / "dark", tmp_path / "three" / "grey")
    refused(
        1,
        "has 3 classes",
        "without a table, add --classes 3; with a table, make it again",
        by=("--data", tmp_path / "three", *asked, "--out", tmp_path / "run"),
    )
    refused(1, "would be taken for a class", by=("--data", images, *asked, "--out", images / "run"))
    refused(1, f"{one} exists", "--resume", by=("--data", images, *asked, "--out", one))
    none = (*asked, "--epochs", "1", "--out", tmp_path / "run")
    refused(
        1,
        "1 epochs leave no generation after 1 epochs of warm-up; give at least 2 --epochs",
        "or fewer --warmup-epochs",
        by=("--data", images, *none),
    )
    assert not (tmp_path / "run").exists()
    # The same settings are what --resume asks for, in a dry run as well.
    out = tmp_path / "begun"
    done("search", "--data", images, *asked, "--no-measure", "--out", out)
    changed = ("--data", images, *asked, "--out", out, "--resume", "--channels", "8")
    refused(1, "was started with sizes.channels = [4, 8], not [8]", by=changed)
    told = done("search", "--data", images, *asked, "--out", out, "--resume", "--dry-run")
    assert "timing a few steps: 3/3" in told.stderr


def test_interest_beyond_the_largest_networks_says_what_they_take(
    table: Path, images: Path, tmp_path: Path
) -> None:
    told = run(
        "search", "--data", images, "--table", table, *QUICK, "--at-least", "50ms", "--out", tmp_path / "run"
    )
    fails(told, 3, "of at least 50 ms (the slowest of 2,001 tried takes ")
    rest = told.stderr.partition("tried takes ")[2]
    slowest = parse_latency("".join(rest.split(")")[0].split()))
    # The budget is not what is out of reach.
    narrow = ("--latency", "1ms", "--at-least", "0.9999ms", "--channels", "8", "--layers", "5")
    told = run("search", "--data", images, "--table", table, *QUICK, *narrow, "--out", tmp_path / "run")
    fails(told, 3, "within the budget with latency on fake of at least 0.9999 ms (the slowest of ")
    # It is one of the random networks, of which a tenth is above this quantile.
    assert slowest > parse_latency(done("predict", "--table", table, "--quantile", "0.9").stdout.strip())


def test_the_order_of_tables_does_not_decide_which_sizes_they_have_in_common(
    table: Path, images: Path, tmp_path: Path
) -> None:
    # A table of 4 and 8 channels predicts 6 channels as well.
    six = tmp_path / "six.json"
    network = replace(BASE, channels=6)
    profile_device(FakeDevice(), network, calibration=8, out=six, plan=MeasurePlan(sessions=1))
    for first, second in ((table, six), (six, table)):
        told = done("search", "--data", images, "--table", first, "--table", second, *QUICK, "--dry-run")
        assert (
            "The search is for networks of 6 channels, 5 cells, 8x8x1, 2 classes, cifar stem alone." in told.stderr
        )


def test_a_search_over_sizes_says_the_size_of_a_single_network(table: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = done(
        "search", "--data", images, "--table", table, "--channels", "8", "--no-measure", *QUICK, "--out", out
    )
    front = RunFolder.open(out).front()
    assert told.stdout.count(" 8 ch, ") == len(front)
    trained = done("train", out, "--top", "1", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    assert trained.stdout.count(" 8 ch, ") == 1
    changed = ("search", "--data", images, "--table", table, "--no-measure", *QUICK, "--out", out, "--resume")
    fails(run(*changed, "--channels", "4"), 1, "was started with sizes.channels = [8], not [4]")
    fails(run(*changed, "--channels", "8", "--layers", "5"), 1, "was started with sizes.layers = [5, 6], not [5]")
    fails(run("export", out, "--channels", "4"), 2, "--channels is for a GENOTYPE")
    fresh = done(
        "train", out, "--genotype", "CARS_A", "--channels", "16", "--from-shared", "--epochs", "1", "--jobs", "1"
    )
    assert "starts from fresh weights: the SuperNet has none for a network of its size" in fresh.stderr
    own = done(
        "train", out, "--genotype", "CARS_A", "--channels", "8", "--from-shared", "--epochs", "1", "--jobs", "1"
    )
    assert "fresh weights" not in own.stderr


def test_a_command_for_one_size_says_that_a_range_is_not_one_number() -> None:
    for command in (("cost", "CARS_A"), ("measure", "CARS_A", "--device", "fake"), ("export", "CARS_A")):
        fails(run(*command, "--channels", "4..8"), 2, "'--channels': '4..8' is not one whole number")


def test_the_quantile_of_a_prediction_is_told_in_json(table: Path) -> None:
    quantile = ("predict", "--table", table, "--layers", "6", "--quantile", "0.5")
    found = json.loads(done(*quantile, "--json").stdout)
    assert (found["quantile"], found["network"]["layers"]) == (0.5, 6)
    assert f"{found['bound_ms']:.4g}ms" == done(*quantile).stdout.strip()
    fails(run(*quantile, "--channels", "8", "CARS_A"), 2, "--quantile is one of random networks")
