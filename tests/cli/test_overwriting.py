"""Nothing is overwritten by mistake, and what cannot be written is found before the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cars_hw.cli.main import main
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.latency import profile_device
from cars_hw.latency.validation import VALIDATION
from cars_hw.space.network_spec import NetworkSpec

TINY = NetworkSpec(4, 3, (8, 8), 1, classes=3)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "tiny.json"
    profile_device(FakeDevice(), TINY, calibration=8, out=path, plan=MeasurePlan(sessions=1))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = [one for one in result.stderr.splitlines() if one.startswith("Error: ")]
    for part in parts:
        assert part in line


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every measurement and every search fail the test: the error has to come before."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setattr("cars_hw.devices.fake.FakeDevice.run", fail)
    monkeypatch.setattr("cars_hw.pipeline.prepare_search._build", fail)


@pytest.mark.usefixtures("no_work")
def test_a_validation_does_not_replace_a_table(table: Path, tmp_path: Path) -> None:
    mine = tmp_path / "table.json"
    shutil.copy(table, mine)
    asked = ("validate", "--table", mine, "--sample", "1", "--out")
    refused(run(*asked, mine), f"{mine} exists and is not a cars-hw validation")
    (tmp_path / "notes.txt").write_text("precious")
    refused(run(*asked, tmp_path / "notes.txt"), "notes.txt exists and is not a cars-hw validation")
    assert mine.read_bytes() == table.read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_validation_replaces_a_validation(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "validation.json"
    for seed in ("1", "2"):
        result = run("validate", "--table", table, "--sample", "1", "--patience", "0", "--seed", seed, "--out", out)
        assert result.exit_code == 0, result.output
    assert VALIDATION.read(out)["names"] == ["random 1"]


@pytest.mark.usefixtures("no_work")
def test_a_profile_replaces_only_a_table(table: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    asked = ("profile", "--device", "fake", "--network", "tiny", "--overwrite", "--out")
    refused(run(*asked, tmp_path / "notes.txt"), "exists and is not a cars-hw latency table")
    assert (tmp_path / "notes.txt").read_text() == "precious"


@pytest.mark.usefixtures("no_work")
def test_what_cannot_be_written_is_found_before_the_work(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x.json", tmp_path / "file" / "y" / "x.json"):
        refused(run("validate", "--table", table, "--sample", "1", "--out", place), "Not a directory", str(place))
        asked = ("profile", "--device", "fake", "--network", "tiny", "--out", place)
        refused(run(*asked), "Not a directory", str(place))
        asked = ("search", "--data", "fashion-mini", "--table", table, "--out", place)
        refused(run(*asked), "Not a directory", str(place))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
