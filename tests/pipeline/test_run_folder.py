"""The run folder: formats that round-trip, and errors that name what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cars_hw.config.training import Recipe
from cars_hw.errors import RunError
from cars_hw.pipeline.latency_target import LatencyEstimate
from cars_hw.pipeline.run_folder import FrontNetwork, RunFolder, TrainedNetwork
from cars_hw.space.zoo import zoo

GENOTYPE = zoo()["CARS_A"].genotype
NETWORK = FrontNetwork("net-01", GENOTYPE, 0.875, 1234, 5678, (LatencyEstimate("ort", 0.1, 0.2, 0.3),))
CONFIGURATION = {"seed": 0, "evolution": {"population": 4, "rates": {"node": 0.5}}, "targets": []}


def test_front_and_trained_networks_round_trip(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, {"created": "2000-01-01T00:00:00+00:00"})
    assert run.about == {"schema": 2, "created": "2000-01-01T00:00:00+00:00"}
    run.write_front([NETWORK])
    trained = TrainedNetwork("net-01", GENOTYPE, 0.9, 0.3, Recipe(epochs=2), 7, 2, None, "cifar10", False)
    run.write_trained(trained)
    again = RunFolder.open(tmp_path / "run")
    assert again.front() == [NETWORK]
    assert again.trained() == [trained]
    assert again.configuration == CONFIGURATION


def test_history_is_a_line_a_generation(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    assert run.history() == []
    run.write_history([{"generation": 1}, {"generation": 2}])
    assert (tmp_path / "run" / "history.jsonl").read_text().count("\n") == 2
    assert run.history() == [{"generation": 1}, {"generation": 2}]


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=r"exists$"):
        RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_sweeping_removes_half_written_files_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    (run.path / "checkpoint").mkdir()
    leftovers = [run.path / ".front.json.x1", run.path / "checkpoint" / ".search.pt.x2"]
    kept = [run.path / ".gitignore", run.path / "checkpoint" / "search.pt"]
    for path in leftovers + kept:
        path.write_text("")
    run.sweep()
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in kept)


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    RunFolder.open(tmp_path / "run")


def test_another_configuration_names_the_setting_that_differs(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    run.require(CONFIGURATION)
    other = {**CONFIGURATION, "evolution": {"population": 8, "rates": {"node": 0.5}}}
    with pytest.raises(RunError, match=r"evolution.population = 4, not 8"):
        run.require(other)
    with pytest.raises(RunError, match=r"new = None, not 1"):
        run.require({**CONFIGURATION, "new": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run folder"),
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"schema": 99}', "has schema 99"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        RunFolder.open(tmp_path)


def test_a_damaged_front_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, {})
    with pytest.raises(RunError, match="has not finished"):
        run.front()
    run.write_front([NETWORK])
    path = tmp_path / "run" / "front.json"
    content = json.loads(path.read_text())
    content["networks"][0]["genotype"]["normal"][0][0] = "conv_9x9"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"front.json is damaged: .*conv_9x9"):
        run.front()
