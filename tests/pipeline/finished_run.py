"""A run with every file that a run can have, and the reader of each: what the tests of damaged files share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.toml import read_settings
from cars_hw.config.training import Recipe
from cars_hw.data.manifest import AcceptedChange, Change
from cars_hw.devices import FakeDevice
from cars_hw.errors import CarsHwError
from cars_hw.evolution import checkpoint
from cars_hw.export.card import verified_card
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import LOCK, RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import SearchSettings, TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.trained_weights import load_last, load_trained
from cars_hw.pipeline.verify import verify_run
from cars_hw.report.page import write_report
from cars_hw.studies.baselines import compare_run
from cars_hw.studies.rank_correlation import rank_run
from cars_hw.studies.ranking import read_ranking
from cars_hw.studies.settings import BaselinesSettings, RankSettings
from cars_hw.studies.strategy_comparison import read_baselines
from cars_hw.training import checkpoints
from cars_hw.training.weights import save_weights

UNREAD = re.compile(r"report\.html|tensorboard/.*")
"""What cars-hw writes for people and for TensorBoard, and does not read for a result."""


class Stopped(Exception):
    """What stands for a kill of a training."""


def make(table: LatencyTable, images: Path, path: Path) -> RunFolder:
    """Search, train, export, measure, rank, compare and report, and leave one training unfinished."""
    data = DataSource(str(images))
    recipe = Recipe(epochs=3, batch_size=64, learning_rate=0.1, crop_padding=0, hold_out=0.2)
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
        recipe=recipe,
        final=FinalSettings(0.3, stretches=2),
    )
    plan = SearchPlan(data, table.spec, preset, (LatencyTarget(table, 1e3),), costs=("parameters",))
    run = run_search(plan, path)
    first, *_ = train_run(run, TrainSettings(data, top=2, jobs=1))
    # As if another epoch than the last had been the best.
    last = save_weights(load_trained(run, first).state_dict(), run.last_weights_path(first.name))
    run.write_trained(replace(first, last_weights_digest=last))
    export_run(run, data=data, formats=["onnx", "tflite"])
    verify_run(run, FakeDevice(), plan=MeasurePlan(sessions=1))
    short = replace(recipe, epochs=1, hold_out=0.0)
    rank_run(run, RankSettings(data, recipe=short, sample=4, jobs=1))
    compare_run(run, BaselinesSettings(data, recipe=short, against=("random",), seeds=1, top=1, jobs=1))
    # As if the search had been on a proxy, and as if changes of the images had been accepted.
    run.write_target_data(run.data)
    change = Change("added", "", "plain", 1, ("plain/new.png",))
    time = "2000-01-02T03:04:05+00:00"
    run.add_data_change(
        AcceptedChange(
            time, "train", str(images), (change,), run.data.counts, run.data.digest, run.data.test_digest
        )
    )
    write_report(run)

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("net-") and done > total // 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_run(run, TrainSettings(data, top=2, seed=1, jobs=1), progress=stop)
    return run


def files_of(folder: Path) -> Iterator[str]:
    """Yield the files of a run by their paths in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _weights(run: RunFolder, name: str, load: Callable[[RunFolder, Any], Any]) -> object:
    (record,) = [one for one in run.trained() if one.name == name]
    return {name: value.tolist() for name, value in load(run, record).state_dict().items()}


def _of_training(path: Path) -> object:
    """Return what a training would begin with, and the file's own content."""
    known = checkpoints.TrainingCheckpoint(path, {}, lambda _line: None)
    known.load()
    return checkpoints.CHECKPOINT.read(path)


READERS: dict[str, Callable[[RunFolder, Path], object]] = {
    r"run\.json": lambda run, _: RunFolder.open(run.path).record_of_run,
    r"config\.toml": lambda _, path: read_settings(path, SearchSettings),
    r"data\.json": lambda run, _: run.data,
    r"target-data\.json": lambda run, _: run.training_data,
    r"data-changes\.json": lambda run, _: run.data_changes(),
    r"steps\.jsonl": lambda run, _: run.steps(),
    r"history\.jsonl": lambda run, _: run.history(),
    r"start\.json": lambda run, _: run.start(),
    r"final\.json": lambda run, _: run.final_stage(),
    r"front\.json": lambda run, _: (run.front(), run.rejected()),
    r"verified\.json": lambda run, _: run.verified(),
    r"ranking\.json": lambda run, _: read_ranking(run),
    r"baselines\.json": lambda run, _: read_baselines(run),
    r"tables/\d+\.json": lambda _, path: LatencyTable.read(path),
    r"checkpoint/search\.pt": lambda _, path: checkpoint.content(path),
    r"checkpoint/train-[^/]+\.pt": lambda _, path: _of_training(path),
    r"trained/[^/]+\.json": lambda run, _: run.trained(),
    r"trained/[^/]+\.last\.safetensors": lambda run, path: _weights(run, path.name.split(".")[0], load_last),
    r"trained/[^/.]+\.safetensors": lambda run, path: _weights(run, path.stem, load_trained),
    r"models/[^/]+\.(onnx|tflite)": lambda _, path: verified_card(path),
    r"models/[^/]+\.json": lambda _, path: verified_card(path.with_suffix("")),
}
"""The function that reads a file of a run, by a regular expression of its path."""


def reader_of(run: RunFolder, name: str) -> Callable[[], object] | None:
    """Return the function that reads the file ``name`` of ``run``; None if there is none."""
    folder, inner = run, name
    # A study keeps runs of its own in the run.
    nested = re.match(r"(ranking|baselines/[^/]+)/(?=.)", name)
    if nested:
        folder, inner = RunFolder(run.path / nested[1]), name[nested.end() :]
    for pattern, read in READERS.items():
        if re.fullmatch(pattern, inner):
            return lambda: read(folder, run.path / name)
    return None


def outcome(read: Callable[[], object]) -> tuple[object, str | None]:
    """Return what ``read`` returns, or the message of its error."""
    try:
        return read(), None
    except CarsHwError as error:
        return None, str(error)


def read_files(run: RunFolder) -> list[str]:
    """Return the files of ``run`` that are read."""
    return [name for name in files_of(run.path) if not UNREAD.fullmatch(name) and Path(name).name != LOCK]
