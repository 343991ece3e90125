"""A search over resolutions by the command line: the whole job, and what a user can get wrong about resolutions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from few_descents import descend_once
from invoked import done, fails, run
from long_runs import amount
from PIL import Image

from cars_hw.config.toml import read_settings
from cars_hw.export.card import ModelCard, card_path
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import SearchSettings
from cars_hw.space.size_grid import SizeGrid

QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
SIZES = SizeGrid((4,), (3, 4), ((8, 8), (12, 12)))


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    descend_once(monkeypatch)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resolutions") / "table.json"
    network = ("--in-channels", "1", "--classes", "2", "--channels", "4", "--layers", "3,4")
    told = done(
        "profile", "--device", "fake", *network, "--resolution", "8..12", "--calibration", "8", "--out", path
    )
    assert "8 networks of 4 channels and 3 to 4 cells, 8x8x1 to 12x12x1, 2 classes, cifar stem on" in told.stdout
    assert LatencyTable.read(path).sizes == SIZES
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resolutions") / "images"
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 20), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = shade + rng.integers(0, 60, (16, 16))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_the_whole_job_over_resolutions(table: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    budget = done("predict", "--table", table, "--quantile", "0.9").stdout.strip()
    search = ("search", "--data", images, "--table", table, "--latency", budget, "--out", out, *QUICK)
    told = done(*search, "--final", "0.5", "--jobs", "1")
    assert "networks of 4 channels, 3 to 4 cells and 8x8 to 12x12 pixels: --channels, --layers and" in told.stderr
    folder = RunFolder.open(out)
    front = folder.front()
    assert all(SIZES.has(one.spec) for one in front)
    assert {one.spec.resolution for one in front} <= {(8, 8), (12, 12)}
    assert told.stdout.count("8x8") + told.stdout.count("12x12") == len(front)
    done("train", out, "--top", "2", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    done(
        "train", out, "--genotype", "CARS_A", "--layers", "3", "--resolution", "10", "--epochs", "1", "--on", "cpu"
    )
    done("export", out, "--format", "onnx")
    for one in folder.trained():
        card = ModelCard.read(card_path(out / "models" / f"{one.name}.onnx"))
        assert card.network == one.spec
        assert card.preprocessing.resolution == one.spec.resolution
    (between,) = (one for one in folder.trained() if one.name.endswith("-4x3-10x10"))
    classified = done("classify", out / "models" / f"{between.name}.onnx", images / "dark" / "0.png", "--json")
    assert json.loads(classified.stdout)
    done("verify", out, "--device", "fake", "--sessions", "1")
    for row in folder.verified():
        assert row.predicted_ms == pytest.approx(row.measured_ms, rel=0.05)
    done("report", out)
    # A search by its own settings has the same front.
    settings = read_settings(out / "config.toml", SearchSettings, ())
    assert settings["sizes"]["resolutions"] == [[8, 8], [12, 12]]
    again = tmp_path / "again"
    done("search", "--config", out / "config.toml", "--out", again, "--jobs", "1")
    assert [one.architecture for one in RunFolder.open(again).front()] == [one.architecture for one in front]
    # A finished run is left as it is; other resolutions are other settings.
    done(*search, "--final", "0.5", "--resume")
    changed = run(*search, "--final", "0.5", "--resolution", "12", "--resume")
    fails(changed, 1, "was started with sizes.resolutions = [[8, 8], [12, 12]], not None")


def test_resolutions_are_restricted_by_options(table: Path, images: Path, tmp_path: Path) -> None:
    data = ("--data", images, "--table", table, "--no-measure", "--final", "0", *QUICK)
    told = done("search", *data, "--resolution", "10", "--out", tmp_path / "ten")
    assert "The search is for networks of 4 channels and 3 to 4 cells: --channels and --layers" in told.stderr
    ten = RunFolder.open(tmp_path / "ten")
    assert {one.spec.resolution for one in ten.front()} == {(10, 10)}
    # Its settings say which resolution it was: the table has others.
    done("search", "--config", tmp_path / "ten" / "config.toml", "--out", tmp_path / "again")
    assert RunFolder.open(tmp_path / "again").front() == ten.front()


def test_predictions_are_of_one_resolution_or_of_all(table: Path) -> None:
    one = ("predict", "--table", table, "CARS_A", "--layers", "3")
    fails(run(*one), 2, "the table is for networks of 4 channels and 3 to 4 cells, 8x8x1 to", "--resolution")
    small, between, large = (
        json.loads(done(*one, "--resolution", side, "--json").stdout)[0]["ms"] for side in ("8", "10", "12")
    )
    assert small < between < large
    fails(run(*one, "--resolution", "13"), 1, "not for 4 channels, 3 cells, 13x13x1")
    every = json.loads(done("predict", "--table", table, "--json").stdout)
    assert every["sizes"]["resolutions"] == [[8, 8], [12, 12]]
    single = json.loads(done("predict", "--table", table, "--resolution", "8", "--json").stdout)
    assert single["bounds_ms"]["smallest"] == every["bounds_ms"]["smallest"]
    assert single["bounds_ms"]["50% of random"] < every["bounds_ms"]["50% of random"]


def test_what_can_be_wrong_about_resolutions_ends_in_one_line(table: Path, images: Path, tmp_path: Path) -> None:
    data = ("--data", images, "--table", table, *QUICK, "--out", tmp_path / "run")
    fails(run("search", *data, "--resolution", "12..8"), 2, "'12..8' says no sizes")
    fails(run("search", *data, "--resolution", "8,x"), 2, "'x' is not a resolution")
    fails(
        run("search", *data, "--resolution", "8..20"), 1, "the table is for 4 channels and 3 to 4 cells, 8x8x1 to"
    )
    fails(run("search", *data, "--resolution", "4,12"), 1, "resolution must be at least 8x8 for the cifar stem")
    fails(run("search", *data, "--proxy"), 1, "the resolution cannot vary", "give one --resolution")
    profile = ("profile", "--device", "fake", "--out", tmp_path / "other.json")
    fails(run(*profile, "--resolution", "4..12"), 1, "resolution must be at least 8x8 for the cifar stem")
    fails(run(*profile, "--resolution", "8x12,12x8"), 1, "must ascend, not 8x12, 12x8")
    assert not (tmp_path / "run").exists()
