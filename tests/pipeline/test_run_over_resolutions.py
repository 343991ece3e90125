"""A search over resolutions, and what follows it: every network has images of its own resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from long_runs import amount
from PIL import Image

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import load_source
from cars_hw.data.images import read_image
from cars_hw.devices import FakeDevice
from cars_hw.devices.host import ort_runtime
from cars_hw.errors import InputError, SpecError
from cars_hw.export.card import ModelCard, card_path
from cars_hw.latency import LatencyTable, Predictor, profile_device
from cars_hw.nn.network import Network
from cars_hw.pipeline.estimate import estimate
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan, plan_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.verify import verify_run
from cars_hw.report.data import gather
from cars_hw.report.page import section
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.training.judging_images import judging_parts
from cars_hw.training.network_step import NetworkStep
from cars_hw.training.standalone import NetworkTraining, counts_on, require_resolution
from cars_hw.training.threads import torch_threads

NETWORK = NetworkSpec(4, 5, (12, 12), 1, classes=3)
SIZES = SizeGrid((4, 6), (5,), ((8, 8), (10, 10), (12, 12)))
ONCE = MeasurePlan(sessions=1)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=SharedTraining(batch_size=64, evaluation_images=20, threads=1, crop_padding=0),
    recipe=Recipe(epochs=2, batch_size=64, learning_rate=0.02, crop_padding=0),
    final=FinalSettings(0.6, stretches=2),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 40 grey images of 24x24 pixels: wide stripes along, across, or none; with noise."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("across", "along", "plain"):
        (folder / name).mkdir()
        for number in range(40):
            pixels = rng.integers(0, 90, (24, 24), dtype=np.uint8)
            stripe = np.arange(24) // 6 % 2 == 0
            pixels[stripe, :] += 140 * (name == "across")
            pixels[:, stripe] += 140 * (name == "along")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=10, plan=ONCE)


def planned(pictures: Path, table: LatencyTable, **changes: object) -> SearchPlan:
    target = LatencyTarget(table, 1.0)
    plan = SearchPlan(DataSource(str(pictures)), NETWORK, PRESET, (target,), seed=1, sizes=SIZES)
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(pictures: Path, table: LatencyTable, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_search(planned(pictures, table), tmp_path_factory.mktemp("runs") / "run", jobs=1)


def test_networks_of_several_resolutions_are_proposed_and_grown(found: RunFolder, table: LatencyTable) -> None:
    population = [tuple(one["network"]["resolution"]) for one in found.history()[-1]["population"]]
    assert set(population) <= set(SIZES.resolutions)
    assert len(set(population)) > 1
    stage = found.final_stage()
    assert stage is not None
    assert len({one.spec.resolution for one in stage.networks}) > 1
    known = {one.genotype.key(): one.spec for one in stage.networks if one.reason != "grown"}
    grown = [one for one in stage.networks if one.reason == "grown"]
    assert any(one.spec.resolution > known[one.genotype.key()].resolution for one in grown)
    for one in found.front():
        (estimated,) = one.latency_estimates
        assert estimated.predicted_ms == Predictor(table, network=one.spec).predict(one.genotype).ms
        assert estimated.bound_ms <= 1.0


def test_the_final_stage_trains_each_network_on_images_of_its_resolution(found: RunFolder, pictures: Path) -> None:
    stage = found.final_stage()
    assert stage is not None
    smaller = [one for one in stage.networks if one.spec.resolution != (12, 12)]
    one = max(smaller, key=lambda one: len(one.results))
    # The classes and the normalisation are those of the search, which loaded the largest resolution.
    data = load_source(DataSource(str(pictures)), one.spec.resolution)
    data = replace(data, mean=found.data.mean, std=found.data.std)
    train, judged = judging_parts(
        data, PRESET.training.validation_fraction, torch.Generator().manual_seed(found.configuration.seed)
    )
    recipe = replace(stage.recipe, precision="float32")
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(found.configuration.seed)
        network = Network(one.spec, one.genotype)
        training = NetworkTraining(network, replace(data, train=train), recipe, seed=found.configuration.seed)
        for _ in range(stage.epochs_of(one)):
            training.run_epoch()
        assert counts_on(network, judged, data) == one.results[-1]


def test_what_is_exported_takes_images_of_its_resolution(
    found: RunFolder, table: LatencyTable, pictures: Path
) -> None:
    data = DataSource(str(pictures))
    trained = []
    for side in (8, 9, 12):
        genotype = SearchSpace().sample(np.random.default_rng(side))
        trained += train_run(found, TrainSettings(data, genotype=genotype, resolution=(side, side), jobs=1))
    assert [one.spec.resolution for one in trained] == [(8, 8), (9, 9), (12, 12)]
    assert [one.name[len("genotype-12345678") :] for one in trained] == ["-6x5-8x8", "-6x5-9x9", ""]
    export_run(found, formats=["onnx"])
    rows = {row.name: row for row in verify_run(found, FakeDevice(), plan=ONCE)}
    manifest = found.data
    assert manifest.files is not None
    tests = [
        (pictures / path, manifest.class_names.index(name))
        for name, members in manifest.files["test"].items()
        for path in members
    ]
    for one in trained:
        path = found.model_path(one.name, "onnx")
        card = ModelCard.read(card_path(path))
        shown = card.preprocessing
        assert shown.resolution == one.spec.resolution == card.network.resolution
        session = ort_runtime.load().InferenceSession(str(path))
        right = 0
        for file, label in tests:
            pixels = read_image(file, 1, shown.resolution).transpose(2, 0, 1)[None] / np.float32(255)
            image = (pixels - np.float32(shown.mean)[:, None, None]) / np.float32(shown.std)[:, None, None]
            (logits,) = session.run(None, {session.get_inputs()[0].name: image.astype(np.float32)})
            right += int(logits.argmax() == label)
        assert card.accuracy == one.accuracy == pytest.approx(right / len(tests))
        # 9x9 pixels lie between measured resolutions.
        assert rows[one.name].predicted_ms == Predictor(table, network=one.spec).predict(one.genotype).ms
        assert rows[one.name].measured_ms == pytest.approx(rows[one.name].predicted_ms, rel=0.05)


def test_the_report_tells_the_resolutions(found: RunFolder) -> None:
    report = gather(found)
    assert report.networks == "4 to 6 channels and 5 cells, 8x8x1 to 12x12x1, 3 classes, cifar stem"
    front = section("front", report)
    for one in report.candidates:
        assert f"<td>{one.spec.size}, {one.spec.pixels} pixels</td>" in front
        # The line that the plot shows for a network.
        line = f"{one.name}: {one.spec.size}, {one.spec.pixels} pixels, "
        assert line in front
        assert line in section("networks", report)


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_killed_search_ends_with_the_same_front(pictures: Path, table: LatencyTable, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "generations" and done == 1:
            raise Stopped

    plan = planned(pictures, table, preset=replace(PRESET, final=FinalSettings(0.0)))
    whole = run_search(plan, tmp_path / "whole")
    with pytest.raises(Stopped):
        run_search(plan, tmp_path / "killed", progress=stop)
    resumed = run_search(plan_of(RunFolder.open(tmp_path / "killed"), None), tmp_path / "killed", resume=True)
    assert resumed.front() == whole.front()
    assert resumed.history() == whole.history()


def test_a_dry_run_times_networks_at_their_resolution(
    pictures: Path, table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    step = NetworkStep.__call__

    def counted(self: NetworkStep, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.network, Network)
        seen.add((self.network.spec.resolution, tuple(images.shape[-2:])))
        return step(self, images, labels)

    monkeypatch.setattr(NetworkStep, "__call__", counted)
    assert estimate(planned(pictures, table)).seconds > 0
    assert {own for own, _ in seen} == set(SIZES.resolutions)
    assert all(own == images for own, images in seen)


def test_what_cannot_be_is_refused_in_one_line(pictures: Path, table: LatencyTable) -> None:
    with pytest.raises(InputError, match="the resolution cannot vary in a search on a proxy"):
        planned(pictures, table, proxy=True)
    tiny = replace(SIZES, resolutions=((4, 4), (12, 12)))
    with pytest.raises(SpecError, match="resolution must be at least 8x8 for the cifar stem"):
        planned(pictures, table, sizes=tiny)
    with pytest.raises(SpecError, match="resolution must be at least 8x8 for the cifar stem"):
        profile_device(FakeDevice(), NETWORK, sizes=tiny, calibration=10, plan=ONCE)
    # A network would compute with images of any size.
    data = load_source(DataSource(str(pictures)), (10, 10))
    with pytest.raises(ValueError, match="the network has 12x12"):
        require_resolution(Network(NETWORK, SearchSpace().sample(np.random.default_rng(0))), data)


def test_a_single_resolution_is_that_of_the_network(pictures: Path, table: LatencyTable) -> None:
    plan = planned(pictures, table, sizes=replace(SIZES, resolutions=((10, 10),)))
    assert plan.network == replace(NETWORK, channels=6, resolution=(10, 10))
    assert plan.sizes == SizeGrid((4, 6), (5,))
    one = planned(pictures, table, sizes=SizeGrid((4,), (5,), ((10, 10),)))
    assert (one.network.resolution, one.sizes) == ((10, 10), None)
