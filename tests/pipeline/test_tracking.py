"""Trackers: what each step hands them, and what TensorBoard, MLflow and Weights & Biases keep of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tfevents import scalars
from work_of_trackers import tell_all

from cars_hw.callbacks import EpochFigures, Tracker
from cars_hw.cli.main import main
from cars_hw.cli.train import _callback as tracking_callback
from cars_hw.config.teacher import Teacher
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.tracking import trackers as trackers_module
from cars_hw.tracking.follow import TrackedProfile, TrackedSearch, TrackedTraining
from cars_hw.tracking.trackers import Step, Trackers, identity_of, open_trackers, require_trackers


class Recording(Tracker):
    """Keeps what it is handed, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def settings(self, values: Mapping[str, object]) -> None:
        self.told.append(("settings", dict(values)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(("scalars", step, dict(values)))

    def artefact(self, path: Path) -> None:
        self.told.append(("artefact", path.name, path.read_bytes()))

    def figure(self, name: str, path: Path, step: int) -> None:
        self.told.append(("figure", name, path.read_bytes()[:4], step))

    def close(self) -> None:
        self.told.append(("close",))

    def of(self, kind: str) -> list[tuple[object, ...]]:
        return [one[1:] for one in self.told if one[0] == kind]


PARAMETERS = CostObjective("parameters", "M", lambda _: 0.0)


def record(generation: int) -> dict[str, object]:
    members = [{"costs": [0.25], "accuracy": 0.5}, {"costs": [0.75], "accuracy": 0.75}]
    return {
        "generation": generation,
        "loss": 1.5,
        "best_accuracy": 0.75,
        "hypervolume": 0.5,
        "population": members,
    }


def test_a_search_tells_each_generation_the_population_and_its_files(tmp_path: Path) -> None:
    kept, opened = Recording(), []
    (tmp_path / "front.json").write_text("front")
    (tmp_path / "checkpoint").write_text("not for trackers")

    def opener(fresh: bool) -> Tracker:
        opened.append(fresh)
        return kept

    search = TrackedSearch(opener, tmp_path, [PARAMETERS], {"seed": 3})
    search.on_generation(record(1))
    search.on_end([record(1)])
    search.close()
    assert opened == [True]
    figures = {
        "loss": 1.5,
        "accuracy/best": 0.75,
        "hypervolume": 0.5,
        "parameters (M)/least": 0.25,
        "parameters (M)/median": 0.5,
        "parameters (M)/most": 0.75,
    }
    assert kept.told[:3] == [("settings", {"seed": 3}), ("scalars", 1, figures), ("scalars", 1, figures)]
    assert kept.of("figure") == [("population", b"\x89PNG", 1)]
    assert kept.of("artefact") == [("front.json", b"front")]
    assert kept.told[-1] == ("close",)
    # One that goes on is opened as such.
    again = TrackedSearch(opener, tmp_path, [PARAMETERS], {})
    again.on_resume([record(1)])
    again.on_generation(record(2))
    assert opened == [True, False]


def test_a_picture_that_cannot_be_drawn_is_a_warning_and_the_files_are_tracked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("matplotlib")

    def fails(*_arguments: object) -> None:
        raise ValueError("no font\nand more")

    monkeypatch.setattr("cars_hw.report.plot_file.write_points", fails)
    kept = Recording()
    (tmp_path / "front.json").write_text("front")
    search = TrackedSearch(lambda _fresh: kept, tmp_path, [PARAMETERS], {})
    search.on_end([record(1)])
    assert kept.of("figure") == []
    assert kept.of("artefact") == [("front.json", b"front")]
    assert [one.getMessage() for one in caplog.records] == ["no picture is tracked: ValueError: no font"]


def test_the_settings_of_a_training_tell_where_its_weights_and_answers_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Recording()
    monkeypatch.setattr("cars_hw.tracking.follow.open_trackers", lambda *_names, **_fresh: kept)
    teacher = Teacher("resnet50", Path("r50.safetensors"), share=0.25)
    for settings in (TrainSettings(seed=3), TrainSettings(init=Path("start.safetensors"), teacher=teacher)):
        made = tracking_callback(tmp_path, settings, ("mlflow",), False)
        assert made is not None
        made("net-01").on_start(0)
    plain, started = (one[0] for one in kept.of("settings"))
    assert plain == {"seed": 3, "inherit": False, "init": None}
    assert isinstance(started, dict)
    assert started["init"] == "start.safetensors"
    assert (started["teacher/network"], started["teacher/weights"]) == ("resnet50", "r50.safetensors")
    assert started["teacher/share"] == "0.25"


def test_a_training_tells_each_epoch_the_test_accuracy_and_its_files(tmp_path: Path) -> None:
    kept, opened = Recording(), []

    def opener(fresh: bool) -> Tracker:
        opened.append(fresh)
        return kept

    training = TrackedTraining(opener, {"epochs": 2})
    training.on_start(1)
    training.on_epoch(EpochFigures(2, 0.5, 0.125, None))
    training.on_epoch(EpochFigures(3, 0.25, 0.0625, 0.75))
    training.on_end(3, 0.875)
    (tmp_path / "net-01.safetensors").write_bytes(b"weights")
    training.on_saved([tmp_path / "net-01.safetensors"])
    training.close()
    assert opened == [False]
    assert kept.told == [
        ("settings", {"epochs": 2}),
        ("scalars", 2, {"loss": 0.5, "learning rate": 0.125}),
        ("scalars", 3, {"loss": 0.25, "learning rate": 0.0625, "accuracy/held out": 0.75}),
        ("scalars", 3, {"accuracy/test": 0.875}),
        ("artefact", "net-01.safetensors", b"weights"),
        ("close",),
    ]


def test_a_profile_tells_its_figures_a_picture_and_the_table(tiny_profile: tuple[Path, Any]) -> None:
    kept, (out, followed) = Recording(), tiny_profile
    start, operations_measured, end = followed.told
    assert (start[:2], operations_measured[0], end[0]) == (("start", "fake"), "operations", "end")
    assert end[3], "the table is on disk before"
    table = LatencyTable.read(out)
    profile = TrackedProfile(lambda _device: kept)
    profile.on_start("fake", start[2])
    profile.on_operations(operations_measured[1])
    profile.on_end(table, out)
    profile.close()
    (settings,) = kept.of("settings")
    assert settings[0]["device"] == "fake"
    (_, operations), (_, figures) = kept.of("scalars")
    assert operations["operations"] == len(table.entries)
    assert figures["networks/slowest (ms)"] == max(one.measured.ms for one in table.calibration)
    assert figures["noise"] == table.noise
    assert kept.of("figure") == [("prediction", b"\x89PNG", 0)]
    assert kept.of("artefact") == [("tiny.json", out.read_bytes())]
    assert kept.told[-1] == ("close",)


class Failing(Tracker):
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        raise OSError("the disk is full\nand more")


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    kept = Recording()

    def missing() -> Tracker:
        raise ValueError("no server")

    several = Trackers({"a": Failing, "b": missing, "c": lambda: kept})
    several.scalars(1, {"loss": 1.0})
    several.scalars(2, {"loss": 0.5})
    several.close()
    assert kept.told == [("scalars", 1, {"loss": 1.0}), ("scalars", 2, {"loss": 0.5}), ("close",)]
    assert [one.getMessage() for one in caplog.records] == [
        "nothing more is tracked with a: OSError: the disk is full",
        "nothing more is tracked with b: ValueError: no server",
    ]


def test_a_tracker_of_another_package_is_opened_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept, steps = Recording(), []

    def make(step: Step) -> Tracker:
        steps.append(step)
        return kept

    monkeypatch.setattr(trackers_module, "plugin_names", lambda _group: ["mine"])
    monkeypatch.setattr(trackers_module, "load_plugin", lambda _group, _name: make)
    require_trackers(["mine:there"])
    with_one = open_trackers(["mine:there"], tmp_path, "net-01", fresh=True)
    assert not steps
    with_one.scalars(1, {"loss": 1.0})
    assert steps == [Step(tmp_path, "net-01", "there", fresh=True)]
    assert kept.of("scalars") == [(1, {"loss": 1.0})]


def test_an_unknown_tracker_and_a_missing_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^unknown tracker 'neptune'; use one of: tensorboard, mlflow, wandb$"):
        require_trackers(["neptune"])
    monkeypatch.setattr(trackers_module, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"needs the package wandb, .* pip install 'cars-hw\[wandb\]'$"):
        require_trackers(["wandb:/tmp"])
    result = CliRunner().invoke(main, ["train", "nothing", "--track", "mlflow"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the tracker mlflow needs the package mlflow, which is not installed")


@pytest.mark.parametrize("where", ["", "elsewhere"])
def test_tensorboard_keeps_scalars_once_pictures_and_paths(where: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    home = tmp_path / "run"
    for steps in (range(1, 3), range(2, 4)):
        text = f"tensorboard:{tmp_path / where}" if where else "tensorboard"
        tell_all(open_trackers([text], home, "net-01", fresh=False), tmp_path, steps)
    if where:
        (base,) = (tmp_path / where).glob("run-*")
    else:
        base = home / "tensorboard"
    written = scalars(base / "net-01")
    assert written["loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in written["front"]] == [2, 3]
    assert len(written["files/table.json/text_summary"]) == len(written["settings/text_summary"]) == 1


@pytest.mark.parametrize("where", ["", "elsewhere"])
@pytest.mark.parametrize("name", ["search", "profile fake"])
def test_tensorboard_replaces_what_a_step_of_this_name_wrote_when_it_begins_anew(
    name: str, where: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    text = f"tensorboard:{tmp_path / where}" if where else "tensorboard"
    for step, loss, fresh in (("net-01", 7.0, True), (name, 1.0, True), (name, 0.5, True), (name, 9.0, False)):
        tracker = open_trackers([text], tmp_path / "run", step, fresh=fresh)
        tracker.scalars(1, {"loss": loss})
        tracker.close()
    (base,) = (tmp_path / where).glob("run-*") if where else (tmp_path / "run" / "tensorboard",)
    assert scalars(base if name == "search" else base / name)["loss"] == [(1, 0.5)]
    assert scalars(base / "net-01")["loss"] == [(1, 7.0)]


def test_tensorboard_keeps_runs_of_one_folder_name_apart_in_a_shared_place(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    shared = tmp_path / "events"
    for whose, loss in (("mine", 1.0), ("yours", 0.5)):
        tracker = open_trackers([f"tensorboard:{shared}"], tmp_path / whose / "run", "search", fresh=True)
        tracker.scalars(1, {"loss": loss})
        tracker.close()
    folders = list(shared.iterdir())
    assert sorted(scalars(folder)["loss"] for folder in folders) == [[(1, 0.5)], [(1, 1.0)]]
    assert all(folder.name.startswith("run-") for folder in folders)


def test_a_step_is_told_from_those_of_another_folder_and_of_another_name() -> None:
    step = Step(Path("/a/run"), "net-01", "", fresh=True)
    # printf '/a/run\nnet-01' | sha256sum
    assert identity_of(step) == "e179d9fed613"
    assert identity_of(replace(step, where="there", fresh=False)) == identity_of(step)
    others = [replace(step, home=Path("/b/run")), replace(step, name="net-02")]
    assert len({identity_of(one) for one in (step, *others)}) == 3


def test_mlflow_keeps_runs_of_one_folder_name_apart_in_a_shared_store(tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy"):
        pytest.importorskip(package, reason=f"needs the package {package}")
    code = f"""
import json
from pathlib import Path
from cars_hw.tracking.trackers import open_trackers
folder = Path({str(tmp_path)!r})
def opened(whose, fresh):
    tracker = open_trackers([f"mlflow:{{folder / 'store'}}"], folder / whose / "run", "net-01", fresh=fresh)
    tracker.settings({{"whose": whose}})
    return tracker
mine = opened("mine", True)
mine.scalars(1, {{"loss": 1.0}})
yours = opened("yours", True)
yours.scalars(1, {{"loss": 0.5}})
resumed = opened("mine", False)
resumed.scalars(2, {{"loss": 0.25}})
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{{folder / 'store' / 'mlflow.db'}}")
experiment = client.get_experiment_by_name("run")
runs = client.search_runs([experiment.experiment_id])
print(json.dumps(sorted(
    [one.data.params["whose"], one.info.status,
     [(x.step, x.value) for x in client.get_metric_history(one.info.run_id, "loss")]] for one in runs)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["mine", "RUNNING", [[1, 1.0], [2, 0.25]]],
        ["yours", "RUNNING", [[1, 0.5]]],
    ]


def test_mlflow_keeps_a_step_that_goes_on_in_one_run(tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy"):
        pytest.importorskip(package, reason=f"needs the package {package}")
    # In a process of its own: it warns of what pytest takes for errors.
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from work_of_trackers import tell_all
from cars_hw.tracking.trackers import open_trackers
folder = Path({str(tmp_path)!r})
for fresh, steps in ((True, range(1, 3)), (False, range(2, 4)), (True, range(1, 2))):
    tell_all(open_trackers(["mlflow"], folder / "run", "net-01", fresh=fresh), folder, steps)
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=f"sqlite:///{{folder / 'run' / 'mlflow' / 'mlflow.db'}}")
experiment = client.get_experiment_by_name("run")
runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
import json
print(json.dumps([
    [one.info.run_name, one.info.status, one.data.params,
     [(x.step, x.value) for x in client.get_metric_history(one.info.run_id, "loss")],
     [x.path for x in client.list_artifacts(one.info.run_id)]] for one in runs]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == [
        "net-01",
        "FINISHED",
        {"seed": "3", "recipe": "cifar"},
        [[1, 1.0], [2, 0.5], [3, 1 / 3]],
        ["figures", "table.json"],
    ]
    assert second[3] == [[1, 1.0]]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"mlflow"}


def test_wandb_keeps_an_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the package wandb")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from work_of_trackers import tell_all
from cars_hw.tracking.trackers import open_trackers
folder = Path({str(tmp_path)!r})
tell_all(open_trackers(["wandb"], folder / "run", "net-01", fresh=True), folder, range(1, 4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "nothing more is tracked" not in done.stderr
    (offline,) = (tmp_path / "run" / "wandb").rglob("offline-run-*")
    (content,) = offline.glob("*.wandb")
    for word in (b"latency on ort (ms)/least", b"table.json", b"net-01", b"cifar"):
        assert word in content.read_bytes()
    assert list(offline.rglob("front*.png"))
