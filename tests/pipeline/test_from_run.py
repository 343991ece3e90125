"""A search that starts from the weights of an earlier run: what it takes, what is refused, and how it resumes."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cars_hw.callbacks import SearchCallback
from cars_hw.cli.hints import message_of
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.errors import CarsHwError, RunError
from cars_hw.evolution import checkpoint
from cars_hw.evolution.search import Search
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.pipeline.from_run import open_start, shortened
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_images import plan_data
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.supernet import supernet_weights_of
from cars_hw.pipeline.train import train_run
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(4, 3, (8, 8), 1, classes=3)
EVOLUTION = EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size")
PRESET = replace(
    PRESETS["quick"],
    evolution=EVOLUTION,
    training=replace(PRESETS["quick"].training, batch_size=32, evaluation_images=16),
)


class Notes(SearchCallback):
    """The lines that a search says about its images and its weights."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def sized(images: Path) -> SearchPlan:
    """A search over sizes of 2 to 4 channels and 3 to 4 cells."""
    sizes = SizeGrid((2, 4), (3, 4))
    return SearchPlan(DataSource(str(images)), NETWORK, PRESET, costs=("parameters",), sizes=sizes)


@pytest.fixture(scope="module")
def before(sized: SearchPlan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_search(sized, tmp_path_factory.mktemp("before") / "run")


def digests(run: Path) -> dict[str, str]:
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def test_the_same_search_for_another_budget_takes_all_weights_and_the_population(
    table: LatencyTable, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = SearchPlan(DataSource(str(images)), table.spec, PRESET, (LatencyTarget(table),))
    old = run_search(plan, tmp_path / "old")
    kept = digests(old.path)
    population = open_start(old.path, plan).population
    predictor = Predictor(table)
    # Half of the old population keeps to the new budget.
    limit = float(np.median([predictor.bound(one.genotype) for one in population]))
    tighter = replace(plan, targets=(LatencyTarget(table, limit),), from_run=old.path)
    shorter = shortened(tighter)
    # The only generation stays; there is no warm-up.
    assert shorter.preset.evolution == replace(EVOLUTION, epochs=1, warmup_epochs=0)
    assert shorter.preset.training.learning_rate == pytest.approx(PRESET.training.learning_rate / 5)
    allowed = [one for one in population if predictor.bound(one.genotype) <= limit]
    assert 0 < len(allowed) < len(population)
    first: list[Any] = []
    original = Search.evolve

    def evolve(self: Search, *given: Any) -> None:  # noqa: ANN401 -- as the method
        if not self.generation:
            first.append(self._first())
        original(self, *given)

    monkeypatch.setattr(Search, "evolve", evolve)
    notes = Notes()
    run = run_search(shorter, tmp_path / "new", callbacks=[notes])
    assert [one.genotype for one in first[0][: len(allowed)]] == [one.genotype for one in allowed]
    record = run.start()
    assert record is not None
    assert record.taken == record.weights
    assert (record.classifier, record.same_images, record.population) == (True, True, len(allowed))
    assert (record.epochs, record.known_images, record.known_test_images) == (2, 0, 0)
    assert "100.0% of the weights are taken" in notes.lines[0]
    assert notes.lines[1] == "fresh: the momenta of the optimiser"
    assert all(one.latency_estimates[0].bound_ms <= limit for one in run.front())
    assert digests(old.path) == kept
    assert run.configuration.from_run == str(old.path)


def test_a_search_with_many_generations_has_half_of_them(sized: SearchPlan, before: RunFolder) -> None:
    evolution = EvolutionSettings(8, epochs=110, warmup_epochs=10, epochs_per_generation=5)
    plan = replace(sized, preset=replace(PRESET, evolution=evolution), from_run=before.path)
    found = shortened(plan)
    # 20 generations of 5 epochs after 10 become 10 after none.
    assert (found.preset.evolution.epochs, found.preset.evolution.warmup_epochs) == (50, 0)
    assert found.chosen == ("evolution.warmup_epochs", "evolution.epochs", "training.learning_rate")
    assert shortened(plan, keep_generations=True).preset.evolution.epochs == 100
    kept = shortened(plan, ("evolution.epochs", "evolution.warmup_epochs", "training.learning_rate"))
    assert (kept.preset, kept.chosen) == (plan.preset, ())
    assert shortened(plan, ("evolution.epochs",)).preset.evolution == replace(evolution, warmup_epochs=0)
    # Sizes, images, operations, or a seed that were not trained: the warm-up is half as long, and nothing else.
    for change in (
        {"sizes": SizeGrid((2, 4), (3, 5))},
        {"data": DataSource("/other")},
        {"seed": 1},
        {"network": replace(NETWORK, resolution=(12, 12))},
        {"sizes": SizeGrid((2, 4), (3, 4), ((8, 8), (10, 10)))},
    ):
        other = shortened(replace(plan, **change)).preset.evolution  # type: ignore[arg-type]
        assert (other.epochs, other.warmup_epochs, other.generations) == (105, 5, 20), change
        assert shortened(replace(plan, **change)).preset.training == PRESET.training  # type: ignore[arg-type]
    # Sizes within those that were trained, and one of them.
    for sizes in (SizeGrid((2,), (3, 4)), SizeGrid((4,), (3,))):
        assert shortened(replace(plan, sizes=sizes)).preset.evolution.epochs == 50


def test_a_larger_range_takes_the_weights_of_the_smaller_one(
    sized: SearchPlan, before: RunFolder, tmp_path: Path
) -> None:
    plan = replace(sized, sizes=SizeGrid((2, 4, 6), (3, 4, 5)), from_run=before.path)
    notes = Notes()
    run = run_search(plan, tmp_path / "new", callbacks=[notes])
    record = run.start()
    assert record is not None
    assert 0 < record.taken < record.weights
    assert (record.common.channels, record.common.layers) == (4, 4)
    assert "those of 4 channels, 4 cells" in notes.lines[0]
    assert "the weights of larger sizes" in notes.lines[1]
    # The weights that the search began with are those of the earlier run.
    state = torch.get_rng_state()
    start = open_start(before.path, plan)
    assert torch.equal(torch.get_rng_state(), state)
    weights = supernet_weights_of(plan, plan_data(plan))
    start.give(plan, weights.supernet, run.data)
    # An operation that the earlier run did not propose is not taken: its weights were not trained.
    fewer = tuple(name for name in SearchSpace().operations if name != "dil_conv_5x5")
    without = replace(start, configuration=replace(start.configuration, operations=fewer))
    other = without.give(plan, supernet_weights_of(plan, plan_data(plan)).supernet, run.data)
    assert other.fresh_operations == ("dil_conv_5x5",)
    assert 0 < other.taken < record.taken
    old = supernet_weights_of(sized, plan_data(sized))
    old.supernet.load_state_dict(checkpoint.supernet_weights(before.checkpoint))
    rng = np.random.default_rng(0)
    small = [Architecture(SearchSpace().sample(rng), replace(NETWORK, channels=4, layers=4)) for _ in range(4)]
    assert weights.accuracies(small, full=True) == old.accuracies(small, full=True)


def test_a_killed_search_resumes_the_same_and_needs_the_earlier_run_only_to_begin(
    sized: SearchPlan, before: RunFolder, tmp_path: Path
) -> None:
    plan = replace(sized, from_run=before.path)
    whole = run_search(plan, tmp_path / "whole")
    moved = shutil.copytree(before.path, tmp_path / "moved")

    class Killed(Exception):
        pass

    def stop_at(stage: str, done: int) -> Any:  # noqa: ANN401
        def progress(now: str, reached: int, _total: int) -> None:
            if (now, reached) == (stage, done):
                raise Killed

        return progress

    out = tmp_path / "killed"
    here = replace(plan, from_run=moved)
    with pytest.raises(Killed):
        run_search(here, out, progress=stop_at("warm-up", 0))
    # Nothing is trained yet: the weights are read again, and must be the same.
    state = moved / "checkpoint" / "search.pt"
    checkpoint.CHECKPOINT.write(state, checkpoint.content(state) + b"another one")
    with pytest.raises(RunError, match="is not the one that this search started from"):
        run_search(here, out, resume=True)
    shutil.copy(before.checkpoint, state)
    with pytest.raises(Killed):
        run_search(here, out, resume=True, progress=stop_at("generations", 1))
    shutil.rmtree(moved)
    run = run_search(here, out, resume=True)
    assert run.front() == whole.front()
    assert run.history() == whole.history()
    with pytest.raises(RunError, match="was started with from_run"):
        run_search(sized, out, resume=True)


def test_other_classes_get_a_new_classifier(before: RunFolder, sized: SearchPlan, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    rng = np.random.default_rng(1)
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 90, (8, 8), dtype=np.uint8) + (100 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    network = replace(NETWORK, classes=2)
    plan = replace(sized, data=DataSource(str(folder)), network=network, from_run=before.path)
    notes = Notes()
    record = run_search(plan, tmp_path / "run", callbacks=[notes]).start()
    assert record is not None
    assert not record.classifier
    # Two rows of 64 features (4 nodes of 16 channels), and two biases.
    assert record.weights - record.taken == 2 * 64 + 2
    assert "the classifier (the classes differ)" in notes.lines[1]
    assert (record.same_images, record.known_images) == (False, 0)


def test_images_that_were_training_images_are_counted(
    images: Path, before: RunFolder, sized: SearchPlan, tmp_path: Path
) -> None:
    more = tmp_path / "images"
    shutil.copytree(images, more)
    Image.new("L", (8, 8), 7).save(more / "plain" / "new.png")
    plan = replace(sized, data=DataSource(str(more)), from_run=before.path)
    notes = Notes()
    run = run_search(plan, tmp_path / "run", callbacks=[notes])
    record = run.start()
    assert record is not None
    files = [one.data.files for one in (before, run)]
    had, has = ({one for members in (known or {})["train"].values() for one in members.values()} for known in files)
    assert record.known_images == len(had & has) > 100
    assert f"{record.known_images} of {run.data.images['train']} images that may evaluate" in notes.lines[2]
    # The test part is drawn again from all images, so that some of it trained the earlier weights.
    tests = {one for members in (run.data.files or {})["test"].values() for one in members.values()}
    assert record.known_test_images == len(had & tests) > 10
    assert f"{record.known_test_images} of {run.data.images['test']} test images were training" in notes.lines[3]
    lines: list[str] = []
    recipe = replace(PRESET.recipe, epochs=1)
    for inherit in (True, False):
        trained = replace(TrainSettings(), top=1, recipe=recipe, inherit=inherit, jobs=1)
        train_run(run, trained, log=lines.append)
    assert [line for line in lines if "test images were training images before" in line] == notes.lines[3:4]
    # A third search on these images has the same weights behind it.
    third = open_start(run.path, plan).give(plan, supernet_weights_of(plan, plan_data(plan)).supernet, run.data)
    assert (third.same_images, third.known_images) == (True, record.known_images)
    assert third.known_test_images == record.known_test_images
    # On others, it is not known which images trained its weights in the first search.
    start, supernet = open_start(run.path, plan), supernet_weights_of(sized, plan_data(sized)).supernet
    fourth = start.give(sized, supernet, before.data)
    assert (fourth.same_images, fourth.known_images, fourth.known_test_images) == (False, None, None)
    assert "it is not known how many of" in fourth.describe()[2]
    # Nor is it for data sets with a name: the second of these has the images of the first.
    small, large = (
        replace(before.data, source=DataSource(name), name=name, digest=name, files=None)
        for name in ("fashion-mini", "fashion-mnist")
    )
    for old, new in ((small, large), (small, before.data), (before.data, large)):
        assert replace(start, manifest=old, start=None).give(sized, supernet, new).known_images is None
    with pytest.raises(RunError, match=r"divided the same images in another way \(seed 0\)") as raised:
        run_search(replace(sized, seed=1, from_run=before.path), tmp_path / "other")
    assert raised.value.about == {"seed": 0}
    assert not (tmp_path / "other").exists()
    # Its weights are trained for the same folder; not if there are other images in it than then.
    again = replace(plan, from_run=run.path)
    assert shortened(again).preset.evolution.warmup_epochs == 0
    Image.new("L", (8, 8), 9).save(more / "plain" / "newer.png")
    assert shortened(again).preset.evolution.warmup_epochs == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": replace(NETWORK, stem="imagenet", resolution=(32, 32))}, "has the cifar stem and this search"),
        ({"standalone_epochs": 1}, "this search shares no weights"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], message: str, sized: SearchPlan, before: RunFolder
) -> None:
    with pytest.raises(RunError, match=message):
        open_start(before.path, replace(sized, **change))


def test_weights_that_are_shared_in_another_way_are_refused(sized: SearchPlan, before: RunFolder) -> None:
    preset = replace(sized.preset, training=replace(sized.preset.training, share="nodes"))
    with pytest.raises(RunError, match="shares weights by edges and this search by nodes") as raised:
        open_start(before.path, replace(sized, preset=preset))
    assert message_of(raised.value).endswith("; give --share edges")


def test_a_run_that_is_no_run_or_unfinished_or_damaged_is_refused(
    sized: SearchPlan, before: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        open_start(tmp_path, sized)
    copy = shutil.copytree(before.path, tmp_path / "copy")
    front = (copy / "front.json").read_bytes()
    (copy / "front.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        open_start(copy, sized)
    (copy / "front.json").write_bytes(front)
    state = copy / "checkpoint" / "search.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(CarsHwError, match="checksum mismatch"):
        open_start(copy, sized)


def test_colour_does_not_start_from_grey(before: RunFolder, sized: SearchPlan) -> None:
    plan = replace(sized, network=replace(NETWORK, in_channels=3))
    start = open_start(before.path, plan)
    supernet = type(start.supernet)(replace(plan.network, channels=4, layers=4))
    with pytest.raises(RunError, match="images of 1 channels and this search for 3"):
        start.give(plan, supernet, before.data)
