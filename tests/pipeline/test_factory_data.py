"""A run whose images a function makes: every step calls it again, and other images are refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.errors import DataChangedError, RunError
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.verify import verify_run
from cars_hw.report.page import write_report
from cars_hw.space.network_spec import NetworkSpec

STRIPES = """
import os

import numpy as np
import torch
from torch.utils.data import Dataset


class Stripes(Dataset):
    classes = ["along", "across", "plain"]

    def __len__(self):
        return 96

    def __getitem__(self, index):
        rng = np.random.default_rng(index + int(os.environ.get("STRIPES_SEED", "0")))
        pixels = rng.integers(0, 90, (10, 9), dtype=np.uint8)
        pixels[:, ::2] += 140 * np.uint8(index % 3 == 0)
        pixels[::2, :] += 140 * np.uint8(index % 3 == 1)
        return torch.from_numpy(pixels), index % 3


def make():
    return Stripes()
"""
SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
SOURCE = "stripes_of_a_user:make"
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=32, evaluation_images=12),
    recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.1, crop_padding=0),
)


class Stopped(Exception):
    """What stands for a kill."""


def test_a_run_goes_by_the_images_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stripes_of_a_user.py").write_text(STRIPES)
    monkeypatch.chdir(tmp_path)
    plan = SearchPlan(DataSource(SOURCE), SPEC, PRESET, costs=("parameters",))

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("generation"):
            raise Stopped

    with pytest.raises(Stopped):
        run_search(plan, Path("run"), progress=stop)
    monkeypatch.setenv("STRIPES_SEED", "1")
    with pytest.raises((DataChangedError, RunError), match=r"stripes_of_a_user|settings|images"):
        run_search(plan, Path("run"), resume=True)
    monkeypatch.delenv("STRIPES_SEED")
    run = run_search(plan, Path("run"), resume=True)
    assert run.data.source.source == SOURCE
    assert run.data.files is None
    assert run.data.counts == {"train": (27, 27, 27), "test": (5, 5, 5)}
    assert [split.describe() for split in run.data.splits if split.use == "test"] == [
        "15 images, 0.167 of each class (seed 0)"
    ]
    (trained,) = train_run(run, TrainSettings(top=1, jobs=1))
    assert trained.class_names == ("along", "across", "plain")
    exported = export_run(run, formats=["onnx"], precision="int8")
    assert [model.card.test_images for model in exported] == [15, 15]
    verify_run(run, FakeDevice(), plan=MeasurePlan(sessions=1))
    assert SOURCE in write_report(run).read_text(encoding="utf-8")

    monkeypatch.setenv("STRIPES_SEED", "1")
    with pytest.raises(DataChangedError, match="must return the same each time"):
        train_run(RunFolder(Path("run")), TrainSettings(top=1, jobs=1, seed=1))
    monkeypatch.chdir("/")
    monkeypatch.delenv("STRIPES_SEED")
    monkeypatch.delitem(sys.modules, "stripes_of_a_user")
    failed = CliRunner().invoke(main, ["train", str(tmp_path / "run"), "--top", "1", "--seed", "1"])
    assert failed.exit_code == 1
    assert "there is no module stripes_of_a_user; install it" in failed.output
