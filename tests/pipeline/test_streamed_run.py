"""A run whose images do not fit into memory: search, resume, training and evaluation read them from a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.data import image_store, streamed
from cars_hw.data.streamed import StreamedDataset
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.progress import Progress, no_log, silent
from cars_hw.space.network_spec import NetworkSpec

SPEC = NetworkSpec(4, 3, (8, 8), 3, classes=2)
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.1, crop_padding=1)
SETTINGS = TrainSettings(top=1, jobs=1, device="cpu")
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(3, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=8, evaluation_images=12),
    recipe=RECIPE,
)


class Stopped(Exception):
    """What stands for a kill."""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSource:
    """96 images in two classes, of which 200 bytes may be in memory; two images make a block."""
    monkeypatch.setattr(image_store, "BLOCK_BYTES", 2 * 192)
    monkeypatch.setattr(streamed, "PIECE_BYTES", 2 * 192)
    for kind, name in enumerate(("dark", "light")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place in range(48):
            drawn = np.random.default_rng(place + 100 * kind).integers(0, 190, (8, 8, 3)) + 60 * kind
            Image.fromarray(drawn.astype(np.uint8)).save(tmp_path / "images" / name / f"{place}.png")
    return DataSource(str(tmp_path / "images"), memory=200, image_cache=str(tmp_path / "cache"))


def stop_when(stage: str, done: int) -> Progress:
    def progress(now: str, count: int, _total: int) -> None:
        if now.startswith(stage) and count == done:
            raise Stopped

    return progress


def trained(run: RunFolder) -> dict[str, torch.Tensor]:
    (network,) = train_run(run, SETTINGS, progress=silent, log=no_log)
    return load_trained(run, network).state_dict()


def test_a_run_goes_by_stored_images_and_resumes(
    source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    take = image_store.ImageStore.take

    def watched(self: image_store.ImageStore, rows: image_store.Rows, out: object = None) -> object:
        read.append(len(rows))
        return take(self, rows, out)  # type: ignore[arg-type]

    monkeypatch.setattr(image_store.ImageStore, "take", watched)
    monkeypatch.setattr(
        StreamedDataset, "images", property(lambda _self: pytest.fail("all images are read into memory"))
    )
    plan = SearchPlan(source, SPEC, PRESET, costs=("parameters",))
    whole = run_search(plan, tmp_path / "whole", progress=silent)
    with pytest.raises(Stopped):
        run_search(plan, tmp_path / "parts", progress=stop_when("generation", 0))
    parts = run_search(plan, tmp_path / "parts", resume=True, progress=silent)
    assert [one.genotype for one in parts.front()] == [one.genotype for one in whole.front()]
    assert [one.accuracy for one in parts.front()] == [one.accuracy for one in whole.front()]
    assert whole.data.source.memory == 200
    weights = trained(whole)
    with pytest.raises(Stopped):
        # In the midst of the second epoch of ten steps.
        train_run(parts, SETTINGS, progress=stop_when(parts.front()[-1].name, 14), log=no_log)
    again = trained(parts)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    # No more than a batch, or a piece, is read at once: 80 training images, 16 test images.
    assert max(read) <= 16
