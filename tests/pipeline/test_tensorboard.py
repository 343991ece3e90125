"""Figures for TensorBoard, read back by the format alone; the tests of kills hold them against whole runs, too."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tfevents import crc32c, scalars

from cars_hw.cli.main import main
from cars_hw.evolution.objectives import CostObjective
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.tensorboard import Events, generation_figures, read_events, remove_events


def single(value: float) -> float:
    """Return ``value`` in the precision of the files."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


SMALL = ("--cost", "parameters", "--cost", "multiply-adds", "--channels", "4", "--layers", "3", "--resolution", "8")
QUICK = ("--classes", "3", "--population", "4", "--epochs", "3", "--warmup-epochs", "1", "--batch-size", "32")


def test_the_sums_are_castagnolis() -> None:
    # RFC 3720, B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_a_generation_is_told_with_the_spread_of_each_cost() -> None:
    costs = [
        CostObjective("latency on ort", "ms", lambda _one: 0.0),
        CostObjective("parameters", "M", lambda _: 0.0),
    ]
    members = [{"costs": [3.0, 0.5]}, {"costs": [1.0, 0.25]}, {"costs": [2.0, 1.0]}, {"costs": [5.0, 0.75]}]
    record: dict[str, Any] = {"loss": 1.5, "best_accuracy": 0.75, "hypervolume": 0.5, "population": members}
    assert generation_figures(record, costs) == {
        "loss": 1.5,
        "accuracy/best": 0.75,
        "hypervolume": 0.5,
        "latency on ort (ms)/least": 1.0,
        "latency on ort (ms)/median": 2.5,
        "latency on ort (ms)/most": 5.0,
        "parameters (M)/least": 0.25,
        "parameters (M)/median": 0.625,
        "parameters (M)/most": 1.0,
    }


def test_who_goes_on_writes_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    first = Events(tmp_path)
    for step in (1, 2, 3):
        first.write(step, {"loss": 1 / step})
    first.close()
    (path,) = tmp_path.iterdir()
    # Killed in the middle of the third.
    path.write_bytes(path.read_bytes()[:-5])
    second = Events(tmp_path)
    for step in (1, 2, 3, 4):
        second.write(step, {"loss": 1 / step, "rate": 0.5})
    second.close()
    assert scalars(tmp_path) == {
        "loss": [(step, single(1 / step)) for step in (1, 2, 3, 4)],
        "rate": [(step, 0.5) for step in (1, 2, 3, 4)],
    }
    assert sorted(read_events(tmp_path)) == sorted(
        (name, step, value) for name, values in scalars(tmp_path).items() for step, value in values
    )
    # A third time there is nothing to write, and no file for it.
    third = Events(tmp_path)
    third.write(4, {"loss": 0.25})
    third.close()
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "mine.txt").touch()
    remove_events(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_has_ended_gets_its_events_afterwards(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    search = ("search", "--data", images, *SMALL, *QUICK, "--on", "cpu", "--out", out, "--no-measure")
    assert cli(*search).exit_code == 0
    assert not (out / "tensorboard").exists()
    for _ in range(2):
        result = cli(*search, "--resume", "--tensorboard")
        assert result.exit_code == 0, result.stderr
    history = RunFolder(out).history()
    written = scalars(out / "tensorboard")
    assert len(history) == 2
    assert written["loss"] == [(record["generation"], single(record["loss"])) for record in history]
    assert written["parameters (M)/most"] == [
        (record["generation"], single(max(member["costs"][0] for member in record["population"])))
        for record in history
    ]
    assert len(written) == 3 + 2 * 3


@pytest.mark.parametrize(
    "arguments", [("search", "--data", "nothing", "--table", "nothing", "--out", "r"), ("train", "nothing")]
)
def test_without_the_package_it_says_what_to_install_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("cars_hw.pipeline.tensorboard.find_spec", lambda _name: None)
    result = cli(*arguments, "--tensorboard")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "Error: writing figures for TensorBoard needs the package tensorboard, which is not installed"
    )
    assert "pip install 'cars-hw[tensorboard]'" in line
