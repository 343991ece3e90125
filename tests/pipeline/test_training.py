"""``cars-hw train`` to its end, whatever happens: kills, other settings, damaged files, two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frozen_data import freeze
from long_runs import amount
from processes import run_two, workers
from safetensors.torch import load_file
from tfevents import scalars
from torch import Tensor

from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError, RunError
from cars_hw.pipeline import network_training as training
from cars_hw.pipeline.memory import enough_memory_to_train
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import finished_training, train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
RECIPE = Recipe(
    epochs=7, batch_size=32, learning_rate=0.05, drop_path=0.2, cutout=2, auxiliary=0.4, ema=0.9, hold_out=0.2
)
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def begin(path: Path, images: Path, networks: int = 1, recipe: Recipe = RECIPE) -> RunFolder:
    """Return a run whose search is said to have ended."""
    preset = replace(PRESETS["quick"], recipe=recipe)
    plan = SearchPlan(DataSource(str(images)), SPEC, preset, costs=("parameters",))
    run = RunFolder.create(path, configuration(plan), RunAbout("", {}, 1))
    freeze(run, plan.data)
    rng = np.random.default_rng(2)
    run.write_front(
        [
            FrontNetwork(f"net-{n}", SearchSpace().sample(rng), SPEC, n / 10, n, n, ())
            for n in range(1, networks + 1)
        ]
    )
    return run


def command(run: RunFolder, launcher: tuple[str, ...] = (sys.executable,)) -> list[str]:
    return [*launcher, "-m", "cars_hw", "train", str(run.path), "--on", "cpu", "--tensorboard"]


def start(run: RunFolder, launcher: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(run, launcher),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    return said


def wait_for(path: Path, process: subprocess.Popen[str], since: int = 0) -> int:
    """Return when ``path`` was written, once that is later than ``since``."""
    deadline = time.monotonic() + 200
    while not path.exists() or path.stat().st_mtime_ns <= since:
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return path.stat().st_mtime_ns


def outcome(run: RunFolder, name: str = "net-1") -> tuple[Any, list[dict[str, Tensor]]]:
    """Return the record of a trained network, and its weights: the best, and the last if they are others."""
    (record,) = [network for network in run.trained() if network.name == name]
    paths = [run.weights_path(name), run.last_weights_path(name)]
    return record, [load_file(path) for path in paths if path.exists()]


def assert_same(first: tuple[Any, list[dict[str, Tensor]]], second: tuple[Any, list[dict[str, Tensor]]]) -> None:
    assert first[0] == second[0]
    for mine, theirs in zip(first[1], second[1], strict=True):
        assert mine.keys() == theirs.keys()
        assert not any(name.startswith("auxiliary") for name in mine)
        for name, value in mine.items():
            assert torch.equal(value, theirs[name]), name


@pytest.mark.skipif(not amount(0, 1), reason="long; test_killed_runs.py has a sample")
@pytest.mark.parametrize("seed", range(20, 32))
def test_killed_at_any_moment_a_training_ends_with_the_same_weights(
    tmp_path: Path, images: Path, seed: int
) -> None:
    whole = begin(tmp_path / "whole", images)
    begun = time.process_time()
    train_run(whole, TrainSettings(DataSource(str(images)), jobs=1))
    lasted = time.process_time() - begun
    broken = begin(tmp_path / "broken", images)
    checkpoint = broken.training_checkpoint("net-1")
    rng = np.random.default_rng(seed)
    written = 0
    for _ in range(2):
        process = start(broken)
        written = wait_for(checkpoint, process, written)
        time.sleep(float(rng.uniform(0, 0.25)) * lasted)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not broken.trained()
    said = finish(start(broken))
    assert "net-1: resumes after epoch " in said
    assert_same(outcome(broken), outcome(whole))
    assert not checkpoint.exists()
    assert not list(broken.path.rglob(".*.*"))
    # Every epoch once, whoever ran it; the whole one, which has the same weights, wrote none.
    told, (record,) = scalars(broken.path / "tensorboard" / "net-1"), broken.trained()
    steps = list(range(1, RECIPE.epochs + 1))
    assert {name: [step for step, _ in values] for name, values in told.items()} == {
        **dict.fromkeys(("loss", "learning rate", "accuracy/held out"), steps),
        "accuracy/test": [record.best_epoch],
    }
    assert told["loss"][-1][1] == np.float32(record.loss)
    assert told["accuracy/test"][0][1] == np.float32(record.accuracy)
    assert dict(told["accuracy/held out"])[record.best_epoch] == np.float32(record.held_out_accuracy)
    # 128 images are trained on: four batches an epoch.
    assert [rate for _, rate in told["learning rate"]] == [
        np.float32(RECIPE.rate(step - 1 + 0.75)) for step in steps
    ]
    assert not (whole.path / "tensorboard").exists()


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_when_one_of_two_is_killed_both_go_on_to_the_same_weights(tmp_path: Path, images: Path) -> None:
    recipe = replace(RECIPE, epochs=4)
    whole = begin(tmp_path / "whole", images, recipe=recipe)
    leading, other = run_two(command(whole))
    assert "Next: cars-hw export" in leading
    assert "Next: cars-hw export" not in other
    broken = begin(tmp_path / "broken", images, recipe=recipe)
    process = start(broken, (*LAUNCHER, "--max-restarts", "1"))
    wait_for(broken.training_checkpoint("net-1"), process)
    os.kill(workers(process.pid)[-1], signal.SIGKILL)
    assert "net-1: resumes after epoch " in finish(process)
    assert_same(outcome(broken), outcome(whole))


def test_a_finished_training_leaves_its_weights_a_record_and_no_checkpoint(tmp_path: Path, images: Path) -> None:
    run = begin(tmp_path / "run", images, recipe=replace(RECIPE, epochs=2))
    (trained,) = train_run(run, TrainSettings(DataSource(str(images)), jobs=1))
    assert trained.recipe.precision == "float32"
    assert trained.recipe.ema == 0.9
    assert trained.best_epoch in (1, 2)
    assert trained.held_out_accuracy is not None
    assert run.last_weights_path("net-1").exists() is (trained.best_epoch == 1)
    assert not run.training_checkpoint("net-1").exists()
    load_trained(run, trained)
    before = run.weights_path("net-1").stat().st_mtime_ns
    assert train_run(run, TrainSettings(DataSource(str(images)), jobs=1)) == [trained]
    assert run.weights_path("net-1").stat().st_mtime_ns == before
    # Without held-out images there is no other epoch than the last.
    (again,) = train_run(
        run, TrainSettings(DataSource(str(images)), jobs=1, recipe=Recipe(epochs=1, batch_size=32))
    )
    assert (again.name, again.best_epoch, again.held_out_accuracy) == ("net-1@2", 1, None)
    assert not run.last_weights_path("net-1@2").exists()


@pytest.mark.parametrize(
    ("changes", "again"),
    [({}, False), ({"seed": 1}, True), ({"inherit": True}, True), ({"recipe": replace(RECIPE, epochs=2)}, True)],
)
def test_it_is_trained_again_when_a_setting_is_another(
    changes: dict[str, Any], again: bool, tmp_path: Path, images: Path
) -> None:
    recipe = Recipe(epochs=1, batch_size=80)
    run = begin(tmp_path / "run", images, recipe=recipe)
    train_run(run, TrainSettings(DataSource(str(images)), jobs=1))
    progress: list[str] = []
    train_run(
        run,
        TrainSettings(DataSource(str(images)), jobs=1, **changes),
        progress=lambda name, *_: progress.append(name),
    )
    assert "net-1" not in progress
    assert ("net-1@2" in progress) is again


def test_a_further_training_replaces_nothing_and_has_a_name_of_its_own(tmp_path: Path, images: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=80)
    run = begin(tmp_path / "run", images, networks=2, recipe=recipe)
    settings = TrainSettings(DataSource(str(images)), jobs=1)
    first = train_run(run, settings)
    files = {path: path.read_bytes() for path in (run.path / "trained").iterdir()}
    said: list[str] = []
    second = train_run(run, replace(settings, top=1, seed=5), log=said.append)
    assert [one.name for one in second] == ["net-2@2"]
    assert said == [
        "net-2 is trained already, with seed = 0, not 5: it is kept, and this training is net-2@2",
    ]
    third = train_run(run, replace(settings, recipe=replace(recipe, class_weights="balanced")), log=said.append)
    assert [one.name for one in third] == ["net-1@2", "net-2@3"]
    assert said[1].startswith("net-1 is trained already, with class weights = none, not balanced")
    assert {path: path.read_bytes() for path in files} == files
    # Each is found again by its settings, whatever was trained since.
    assert train_run(run, settings) == first
    assert train_run(run, replace(settings, top=1, seed=5)) == second
    assert finished_training(run, "net-2", second[0].architecture, replace(settings, seed=5)) == second[0]
    assert finished_training(run, "net-2", second[0].architecture, replace(settings, seed=6)) is None
    assert [one.name for one in run.trained()] == ["net-1", "net-1@2", "net-2", "net-2@2", "net-2@3"]
    load_trained(run, second[0])


def test_a_killed_further_training_goes_on_under_its_name(tmp_path: Path, images: Path) -> None:
    data = DataSource(str(images))
    run = begin(tmp_path / "run", images, recipe=replace(RECIPE, epochs=1))
    (first,) = train_run(run, TrainSettings(data, jobs=1))
    with pytest.raises(Killed):
        train_run(run, TrainSettings(data, jobs=1, recipe=RECIPE), progress=stop)
    assert run.training_checkpoint("net-1@2").is_file()
    said: list[str] = []
    (second,) = train_run(run, TrainSettings(data, jobs=1, recipe=RECIPE), log=said.append)
    assert any(line.startswith("net-1@2: resumes after epoch ") for line in said)
    assert run.trained() == [first, second]


class Killed(Exception):
    """What stands for a kill inside of one process."""


def stop(name: str, done: int, _total: int) -> None:
    if name.startswith("net-") and done > 9:
        raise Killed


def test_an_unfinished_training_of_other_settings_begins_anew_and_says_so(tmp_path: Path, images: Path) -> None:
    data = DataSource(str(images))
    run = begin(tmp_path / "run", images)
    with pytest.raises(Killed):
        train_run(run, TrainSettings(data, jobs=1), progress=stop)
    said: list[str] = []
    recipe = replace(RECIPE, epochs=1)
    train_run(run, TrainSettings(data, jobs=1, recipe=recipe), log=said.append)
    assert len(said) == 1
    assert said[0].endswith("is of a training with recipe.epochs = 7, not 1: training starts from the beginning")
    other = begin(tmp_path / "other", images, recipe=recipe)
    train_run(other, TrainSettings(data, jobs=1))
    assert_same(outcome(run), outcome(other))


def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path: Path, images: Path) -> None:
    run = begin(tmp_path / "run", images)
    path = run.training_checkpoint("net-1")
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(RunError, match=r"train-net-1\.pt: .*; remove it to train from the beginning"):
        train_run(run, TrainSettings(DataSource(str(images)), jobs=1))
    assert path.read_bytes() == b"PK\x03\x04 damaged"
    assert not run.trained()


def test_workers_tell_what_they_do_and_go_on_too(tmp_path: Path, images: Path) -> None:
    data = DataSource(str(images))
    recipe = replace(RECIPE, epochs=3)
    run = begin(tmp_path / "run", images, networks=2, recipe=recipe)
    with pytest.raises(Killed):
        train_run(run, TrainSettings(data, top=2, jobs=1), progress=stop)
    said: list[str] = []
    progress: dict[str, list[int]] = {}
    train_run(
        run,
        TrainSettings(data, top=2, jobs=2),
        progress=lambda name, done, _total: progress.setdefault(name, []).append(done),
        log=said.append,
    )
    # 128 images are trained on: 4 steps an epoch.
    assert said == ["net-1: resumes after epoch 2"]
    images_read = 192
    assert {name: steps[-1] for name, steps in progress.items()} == {
        "checking images": images_read,
        "reading images": images_read,
        "net-1": 12,
        "net-2": 12,
    }
    assert all(steps == sorted(steps) for steps in progress.values())


def test_too_little_memory_names_what_to_lower(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "run", images)

    def full(*given: Any, **named: Any) -> None:  # noqa: ANN401
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(training, "train_network", full)
    with pytest.raises(InputError, match=r"memory is too small for batches of 32 images of net-1") as caught:
        train_run(run, TrainSettings(device="cpu", jobs=1))
    assert caught.value.remedy == "less-memory"
    assert not run.trained()


def test_a_training_that_is_to_be_compiled_is_another_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda passes, **__: passes)
    run = begin(tmp_path / "run", images, recipe=replace(RECIPE, epochs=1))
    chosen, plain = (TrainSettings(device="cpu", jobs=1, compile=compiled) for compiled in (True, False))
    said: list[str] = []
    for settings in (chosen, plain, chosen):
        train_run(run, settings, log=said.append)
    assert said == ["net-1 is trained already, with compiled steps: it is kept, and this training is net-1@2"]
    assert [(one.name, one.compile) for one in run.trained()] == [("net-1", True), ("net-1@2", False)]
    (network,) = (network.architecture for network in run.front())
    assert finished_training(run, "net-1", network, plain) == run.trained()[1]


@pytest.mark.parametrize(
    ("device", "replays", "remedy"),
    [("cuda", True, "less-memory-or-replay"), ("cuda", False, "less-memory"), ("cpu", True, "less-memory")],
)
def test_a_recording_that_takes_memory_is_named(device: str, replays: bool, remedy: str) -> None:
    with (
        pytest.raises(InputError, match="too small for batches of 8 images of net-1") as caught,
        enough_memory_to_train(Recipe(epochs=1, batch_size=8), device, "net-1", replays=replays),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert caught.value.remedy == remedy


def test_a_deterministic_training_uses_deterministic_algorithms(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = training.train_network

    def watched(*given: Any, **named: Any) -> Any:  # noqa: ANN401
        seen.append(torch.are_deterministic_algorithms_enabled())
        return train(*given, **named)

    monkeypatch.setattr(training, "train_network", watched)
    run = begin(tmp_path / "run", images, recipe=replace(RECIPE, epochs=1))
    said: list[str] = []
    settings = [TrainSettings(device="cpu", jobs=1, deterministic=chosen) for chosen in (False, True)]
    # Each is trained once, and found again by its settings.
    for chosen in settings * 2:
        train_run(run, chosen, log=said.append)
    assert seen == [False, True]
    assert said == [
        "net-1 is trained already, with no deterministic algorithms: it is kept, and this training is net-1@2",
    ]
    assert [(one.name, one.deterministic) for one in run.trained()] == [("net-1", False), ("net-1@2", True)]
    (network,) = (network.architecture for network in run.front())
    for chosen, wanted in zip(settings, run.trained(), strict=True):
        assert finished_training(run, "net-1", network, chosen) == wanted
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_unfinished_training_with_other_algorithms_begins_anew(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network of cells takes minutes to compile.
    monkeypatch.setattr(torch, "compile", lambda passes, **__: passes)
    run = begin(tmp_path / "run", images)
    with pytest.raises(Killed):
        train_run(run, TrainSettings(device="cpu", jobs=1), progress=stop)
    said: list[str] = []
    with pytest.raises(Killed):
        train_run(run, TrainSettings(device="cpu", jobs=1, deterministic=True), progress=stop, log=said.append)
    assert said[0].endswith("with deterministic = None, not True: training starts from the beginning")
    both = TrainSettings(device="cpu", jobs=1, deterministic=True, compile=True)
    with pytest.raises(Killed):
        train_run(run, both, progress=stop, log=said.append)
    assert said[1].endswith("with compile = None, not True: training starts from the beginning")
