"""The run folder: formats that round-trip, and errors that name what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import evaluation

from cars_hw.config.checksummed import checksum
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.presets import PRESETS
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.population import Member
from cars_hw.pipeline.latency_target import LatencyEstimate
from cars_hw.pipeline.networks import FrontNetwork, TrainedNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import zoo

GENOTYPE = zoo()["CARS_A"].genotype
NETWORK = FrontNetwork("net-01", GENOTYPE, replace(NETWORKS["quick"], channels=12, layers=7), 0.875, 1234, 5678, ())
CONFIGURATION = configuration(
    SearchPlan(DataSource("cifar10"), NETWORKS["quick"], PRESETS["quick"], costs=("parameters",))
)
ABOUT = RunAbout("2000-01-01T00:00:00+00:00", {"python": "3.11.0"}, 2)
DIGEST = f"sha256:{'0' * 64}"


def generation(number: int) -> dict[str, Any]:
    member = unstructure(Member(GENOTYPE, NETWORKS["tiny"], (1.5,), 0.25))
    figures: dict[str, Any] = {"loss": 1.0, "best_accuracy": 0.25, "hypervolume": 0.5}
    figures["best_counts"] = unstructure(ClassCounts((2, 2), (1, 0)))
    return {"generation": number, "candidates": 1, **figures, "population": [member]}


def resealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of ``path`` under a checksum that is right."""
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    path.write_text(json.dumps({**content, "checksum": checksum(content)}))


def test_front_and_trained_networks_round_trip(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    assert run.about == ABOUT
    run.write_front([NETWORK])
    trained = TrainedNetwork(
        "net-01@2",
        GENOTYPE,
        replace(NETWORKS["quick"], channels=4, layers=3),
        evaluation((6, 4), (5, 3)),
        0.3,
        Recipe(epochs=2),
        7,
        2,
        ClassCounts((3, 2), (3, 1)),
        "cifar10",
        False,
        ("cat", "dog"),
        DIGEST,
        DIGEST,
        DIGEST,
    )
    run.write_trained(trained)
    assert (trained.network, trained.accuracy, trained.held_out_accuracy) == ("net-01", 0.8, 0.8)
    with pytest.raises(InputError, match="class_names must be 2, not 1"):
        replace(trained, class_names=("cat",))
    again = RunFolder.open(tmp_path / "run")
    assert again.front() == [NETWORK]
    assert again.trained() == [trained]
    assert again.configuration == CONFIGURATION


def test_history_is_a_line_a_generation(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    assert run.history() == []
    run.write_history([generation(1), generation(2)])
    head, *lines = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    assert (head["format"], head["version"], head["lines"]) == ("cars-hw history", 3, 2)
    assert run.history() == lines == [generation(1), generation(2)]


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=r"exists$"):
        RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_locking_removes_half_written_files_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    (run.path / "checkpoint").mkdir()
    left = subprocess.run([sys.executable, "-c", KILLED, str(run.path / "front.json")], check=False)
    assert left.returncode == -signal.SIGKILL
    (leftover,) = run.path.glob(".front.json.*")
    other = leftover.rename(run.path / "checkpoint" / leftover.name.replace("front.json", "search.pt"))
    report = run.path / leftover.name.replace("front.json", "report.html")
    kept = [run.path / ".gitignore", run.path / "checkpoint" / "search.pt", run.path / ".front.json.mine", report]
    for path in kept:
        path.write_text("")
    with run.lock():
        assert not other.exists()
    assert all(path.exists() for path in kept)
    assert not (run.path / ".lock").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from cars_hw.config.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""

HOLDS = """
import sys, time
from pathlib import Path
from cars_hw.pipeline.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_writes_to_a_run_at_a_time(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(run.path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunError, match=rf"another cars-hw \(process {holder.pid}\) writes to the run .*/run"),
            run.lock(),
        ):
            pass
        holder.kill()
    # A lock ends with its process, however it ends.
    with run.lock(), pytest.raises(RunError, match="another cars-hw"), run.lock():
        pass
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    RunFolder.open(tmp_path / "run")


def test_another_configuration_names_the_setting_that_differs(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    run.require(CONFIGURATION)
    evolution = replace(CONFIGURATION.evolution, population=8)
    with pytest.raises(RunError, match=r"evolution.population = 16, not 8"):
        run.require(replace(CONFIGURATION, evolution=evolution))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run folder"),
        ("{", "is not JSON"),
        ("[]", "is not a cars-hw run"),
        ("{}", "is not a cars-hw run"),
        ('{"schema": 2}', "was made by an older cars-hw"),
        ('{"format": "cars-hw run", "version": 99}', "was written by a newer cars-hw"),
        ('{"format": "cars-hw run", "version": 2}', "was written by an older cars-hw"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        RunFolder.open(tmp_path)


def test_a_damaged_front_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    with pytest.raises(RunError, match="has not finished"):
        run.front()
    run.write_front([NETWORK])
    path = tmp_path / "run" / "front.json"
    content = json.loads(path.read_text())
    content["networks"][0]["genotype"]["normal"][0][0] = "conv_9x9"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"front.json was changed or damaged after it was written"):
        run.front()
    resealed(path, lambda _content: None)
    with pytest.raises(RunError, match=r"front.json is damaged: networks\[0\].genotype.*conv_9x9"):
        run.front()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "../../x"},
            r"networks\[0\].name must be a name of letters, digits and . _ \+ @ -, not '\.\./",
        ),
        ({"name": "a\x1b[31m"}, r"must be a name of letters"),
        ({"name": "$(touch x)"}, r"must be a name of letters"),
        ({"accuracy": 1.5}, r"networks\[0\].accuracy must be at most 1, not 1.5"),
        ({"parameters": True}, r"networks\[0\].parameters must be a whole number, not True"),
        (
            {"latency_estimates": [unstructure(LatencyEstimate("ort", 0.1, 0.2, 0.3))]},
            "must have 0 latency estimates",
        ),
    ],
)
def test_a_network_of_the_front_is_checked_leaf_by_leaf(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    run.write_front([NETWORK])
    resealed(run.path / "front.json", lambda content: content["networks"][0].update(change))
    with pytest.raises(RunError, match=rf"front.json is damaged: .*{message}"):
        run.front()


def test_a_front_of_no_network_is_damaged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIGURATION, ABOUT)
    for networks, message in (([], "holds no network"), ([NETWORK, NETWORK], "two networks have one name")):
        run.write_front(networks)
        with pytest.raises(RunError, match=message):
            run.front()
