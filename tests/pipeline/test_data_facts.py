"""The images of a run are frozen by its search: what changes afterwards is noticed, and never believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cars_hw.cli.main import main
from cars_hw.config.checksummed import digest
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.data.manifest import UNDIVIDED, DataManifest, compared
from cars_hw.devices import FakeDevice
from cars_hw.errors import DataChangedError, DatasetError, InputError, RunError
from cars_hw.export.card import ModelCard, card_path
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.plan import SearchPlan, plan_of
from cars_hw.pipeline.run_data import load_for_training, load_frozen, load_new, require_splits, splits_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.report.data import gather
from cars_hw.report.page import page
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.baselines import compare_run
from cars_hw.studies.published_front import compare_front
from cars_hw.studies.rank_correlation import rank_run
from cars_hw.studies.settings import BaselinesSettings, FrontSettings, RankSettings
from cars_hw.training.judging_images import judging_parts, judging_split
from cars_hw.training.process_group import ProcessGroup

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
RECIPE = Recipe(epochs=1, batch_size=32, learning_rate=0.1, crop_padding=0)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
    recipe=RECIPE,
)


@dataclass(frozen=True)
class Made:
    """A run, and the folder of its images."""

    run: RunFolder
    images: Path


@pytest.fixture(scope="module")
def kept(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A searched run with one trained network; to be read only."""
    folder = tmp_path_factory.mktemp("facts")
    shutil.copytree(images, folder / "images")
    plan = SearchPlan(DataSource(str(folder / "images")), SPEC, PRESET, costs=("parameters",))
    run = run_search(plan, folder / "run")
    train_run(run, TrainSettings(top=1, jobs=1, device="cpu"))
    return Made(run, folder / "images")


@pytest.fixture
def made(kept: Made, tmp_path: Path) -> Made:
    """A copy of it, whose images may be changed: they are where ``--data`` says."""
    for one, name in ((kept.run.path, "run"), (kept.images, "images")):
        shutil.copytree(one, tmp_path / name)
    return Made(RunFolder(tmp_path / "run"), tmp_path / "images")


def save(path: Path, shade: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (8, 8), shade).save(path)


def rename_class(images: Path) -> None:
    (images / "across").rename(images / "zebra")


def add_class(images: Path) -> None:
    save(images / "new" / "1.png", 7)


def remove_class(images: Path) -> None:
    shutil.rmtree(images / "across")


def add_images(images: Path) -> None:
    for number in range(5):
        save(images / "along" / f"more{number}.png", number)


def remove_images(images: Path) -> None:
    for number in (1, 2):
        (images / "plain" / f"{number}.png").unlink()


def change_image(images: Path) -> None:
    save(images / "plain" / "3.png", 0)


def relabel_image(images: Path) -> None:
    (images / "plain" / "4.png").rename(images / "along" / "moved.png")


def divide(images: Path) -> None:
    for part in ("train", "test"):
        for name in ("across", "along", "plain"):
            (images / part / name).mkdir(parents=True)
            for file in sorted((images / name).glob("*.png"))[:32]:
                file.rename(images / part / name / file.name)
    for name in ("across", "along", "plain"):
        (images / name).rmdir()


CHANGES: dict[Callable[[Path], None], tuple[str, ...]] = {
    rename_class: ("class across is now called zebra",),
    add_class: ("class new is new",),
    remove_class: ("class across is gone",),
    add_images: ("5 images of along were added (along/more0.png, along/more1.png, along/more2.png, ...)",),
    remove_images: (" of plain w", "removed (plain/"),
    change_image: ("image of plain was changed (plain/3.png)",),
    relabel_image: ("1 image of along was added (along/moved.png)", "image of plain was removed (plain/4.png)"),
    divide: ("the folder had no parts and now has the parts train, test",),
}
FINAL = (rename_class, add_class, remove_class, divide)
"""What cannot be accepted."""


def resume(made: Made, data: DataSource) -> object:
    (made.run.path / "front.json").unlink()
    return run_search(plan_of(made.run, data), made.run.path, resume=True)


STEPS: dict[str, Callable[[Made, DataSource], object]] = {
    "train": lambda made, data: train_run(made.run, TrainSettings(data, top=1, jobs=1)),
    "export int8": lambda made, data: export_run(made.run, data=data, precision="int8"),
    "export --data": lambda made, data: export_run(made.run, data=data),
    "rank": lambda made, data: rank_run(made.run, RankSettings(data, sample=4, jobs=1)),
    "baselines": lambda made, data: compare_run(made.run, BaselinesSettings(data, seeds=1, jobs=1)),
    "search --resume": resume,
    "experiment front": lambda made, data: compare_front(
        made.run, FakeDevice(), FrontSettings("fake", data, references=("CARS_A",))
    ),
}


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("step", STEPS)
def test_every_later_step_names_what_changed_and_writes_nothing(step: str, made: Made, kept: Made) -> None:
    before = everything(made.run.path)
    for change, expected in CHANGES.items():
        shutil.rmtree(made.images)
        shutil.copytree(kept.images, made.images)
        change(made.images)
        with pytest.raises(DataChangedError) as error:
            STEPS[step](made, DataSource(str(made.images)))
        message = str(error.value)
        assert f"{made.images} does not hold the images of {made.run.path}: " in message
        assert all(part in message for part in expected), message
        assert "\n" not in message
        accepts = change not in FINAL and step.startswith(("train", "export"))
        assert error.value.remedy == ("accept-changes" if accepts else "restore-images"), message
        if step == "search --resume":
            (made.run.path / "front.json").write_bytes(before[made.run.path / "front.json"])
    assert everything(made.run.path) == before


def test_the_same_images_are_taken_wherever_they_lie(made: Made, kept: Made) -> None:
    here, there = (load_for_training(made.run, data) for data in (None, DataSource(str(made.images))))
    assert here.source.source == str(kept.images)
    assert there.source.source == str(made.images)
    assert (here.digest, here.test_digest) == (there.digest, there.test_digest)
    for part, dataset in here.bundle.parts.items():
        assert torch.equal(dataset.images, there.bundle.parts[part].images)
    # Nothing to do: it is the training that was.
    (before,) = made.run.trained()
    assert train_run(made.run, TrainSettings(DataSource(str(made.images)), top=1, jobs=1, device="cpu")) == [before]
    assert [step.settings["data"]["source"] for step in made.run.steps()] == [
        *[str(kept.images)] * 2,
        str(made.images),
    ]


def test_float_models_need_no_images_and_are_those_of_the_search(made: Made, kept: Made, tmp_path: Path) -> None:
    before = export_run(kept.run, formats=["onnx"], out=tmp_path / "before")
    manifest = made.run.data
    # The run's own record of where the images are, which is all that a step has without --data.
    made.run.write_data(replace(manifest, source=DataSource(str(made.images))))
    rename_class(made.images)
    after = export_run(made.run, formats=["onnx"], out=tmp_path / "renamed")
    shutil.rmtree(made.images)
    gone = export_run(made.run, formats=["onnx"], out=tmp_path / "gone")
    assert [one.path.read_bytes() for one in before] == [one.path.read_bytes() for one in after]
    assert [one.path.read_bytes() for one in before] == [one.path.read_bytes() for one in gone]
    card = ModelCard.read(card_path(gone[0].path))
    assert card.class_names == manifest.class_names == ("across", "along", "plain")
    assert (card.preprocessing.mean, card.preprocessing.std) == (manifest.mean, manifest.std)
    assert card.preprocessing.decoding == manifest.decoding
    with pytest.raises(DatasetError, match=r"images, the images of .*run, is not there$"):
        export_run(made.run, formats=["onnx"], precision="int8", out=tmp_path / "int8")


def test_the_manifest_is_what_the_search_used(kept: Made) -> None:
    manifest, plan = kept.run.data, plan_of(kept.run, None)
    # A sixth of 64 by largest remainder.
    assert manifest.counts == {"train": (53, 53, 53), "test": (11, 11, 11)}
    assert manifest.files is not None
    assert sum(len(members) for classes in manifest.files.values() for members in classes.values()) == 192
    bundle = load_new(plan.data, SPEC.resolution).bundle
    assert (manifest.mean, manifest.std) == (bundle.mean, bundle.std)
    splits = {split.use: split for split in manifest.splits}
    assert splits["test"].images == 33
    share = PRESET.training.validation_fraction
    indices = judging_split(bundle.train.labels, share, torch.Generator().manual_seed(0))
    used = judging_parts(bundle, share, torch.Generator().manual_seed(0))
    for use, chosen, part in zip(("weights", "architectures"), indices, used, strict=True):
        assert (splits[use].images, splits[use].digest) == (len(part), digest(chosen.numpy().tobytes()))
        assert torch.equal(bundle.train.select(chosen).images, part.images)
    require_splits(manifest, splits_of(bundle, PRESET.training, 0))
    with pytest.raises(RunError, match="images for weights are not those of the search"):
        require_splits(manifest, splits_of(bundle, PRESET.training, 1))
    assert structure(json.loads(json.dumps(unstructure(manifest))), DataManifest) == manifest
    together = {
        name: {**manifest.files["train"][name], **manifest.files["test"][name]} for name in manifest.class_names
    }
    assert compared(manifest, {UNDIVIDED: together}).same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("across", "along")}, "counts.train must be 2 numbers"),
        ({"class_names": ("across", "along", "along")}, "at least two different names"),
        ({"class_names": ("across", "along", "zebra")}, "files and counts must agree"),
        ({"counts": {"train": (53, 53, 53)}}, "counts must be those of train and test"),
        ({"counts": {"train": (53, 53, 53), "test": (11, 11, 12)}}, "files and counts must agree"),
        ({"mean": (0.5, 0.5)}, "mean and std must have 1 values"),
        ({"std": (0.0,)}, "std must be at least 1e-06"),
        ({"digest": "sha256:0"}, "digest must be that of files"),
        ({"files": None}, "files must be those of a folder"),
        ({"source": DataSource("a\0b")}, "source must be the path"),
    ],
)
def test_a_manifest_whose_parts_do_not_fit_is_refused(kept: Made, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(kept.run.data, **changes)  # type: ignore[arg-type]


def test_accepted_changes_are_written_down_and_keep_every_image_in_its_part(made: Made) -> None:
    data, manifest = DataSource(str(made.images)), made.run.data
    assert manifest.files is not None
    add_images(made.images)
    # One of each part, so that the test part changes as well.
    gone = [min(manifest.files[part]["plain"]) for part in ("train", "test")]
    for path in gone:
        (made.images / path).unlink()
    (first,) = made.run.trained()
    settings = TrainSettings(data, top=1, jobs=1, device="cpu", accept_changes=True)
    (again,) = train_run(made.run, settings)
    (accepted,) = made.run.data_changes()
    assert [(one.kind, one.part, one.class_name, one.images) for one in accepted.changes] == [
        ("added", "", "along", 5),
        ("removed", "test", "plain", 1),
        ("removed", "train", "plain", 1),
    ]
    assert accepted.counts == {"train": (53, 58, 52), "test": (11, 11, 10)}
    assert (accepted.step, accepted.source) == ("train", data.source)
    assert (again.data_digest, again.test_digest) == (accepted.digest, accepted.test_digest)
    assert (first.data_digest, first.test_digest) == (manifest.digest, manifest.test_digest)
    assert again.name == f"{first.name}@2"
    assert again.test.total == 32
    assert made.run.steps()[-1].settings["accept_changes"] is True
    loaded = load_for_training(made.run, data)
    assert loaded.bundle.files is not None
    known = {path for name in ("across", "along", "plain") for path in manifest.files["test"][name]}
    assert set(loaded.bundle.files["test"]) == known - set(gone)
    assert {f"along/more{number}.png" for number in range(5)} < set(loaded.bundle.files["train"])
    # What labels an image is its class, in whichever order the parts were put together.
    for part, paths in loaded.bundle.files.items():
        labels = loaded.bundle.parts[part].labels.tolist()
        assert [manifest.class_names[label] for label in labels] == [path.split("/")[0] for path in paths]
    # Normalisation stays that of the search.
    assert (loaded.bundle.mean, loaded.bundle.std) == (manifest.mean, manifest.std)
    # The same changes are known from now on, and nothing is accepted twice.
    assert train_run(made.run, replace(settings, accept_changes=False)) == [again]
    assert made.run.data_changes() == [accepted]
    with pytest.raises(DataChangedError, match="5 images of along were added"):
        rank_run(made.run, RankSettings(data, sample=4))
    drawn = page(gather(made.run))
    assert "1 test image of plain was removed" in drawn
    assert f"trained on them: {again.name}" in drawn


def test_an_image_stays_in_its_part_under_another_name(made: Made) -> None:
    data, manifest = DataSource(str(made.images)), made.run.data
    assert manifest.files is not None
    tested = {digest for members in manifest.files["test"].values() for digest in members.values()}
    # The images of a class get new numbers, a test image another label, and another one a copy.
    for number in range(63, -1, -1):
        file = made.images / "plain" / f"{number}.png"
        file.rename(file.with_name(f"{number + 1}.png"))
    moved, copied = sorted(manifest.files["test"]["along"])[:2]
    (made.images / moved).rename(made.images / "across" / "moved.png")
    shutil.copy(made.images / copied, made.images / "along" / "copy.png")
    loaded = load_for_training(made.run, data, accept=True)
    assert loaded.bundle.files is not None
    contents = {
        part: {digest((made.images / path).read_bytes())[len("sha256:") :][:32] for path in paths}
        for part, paths in loaded.bundle.files.items()
    }
    assert contents["test"] == tested
    assert not contents["train"] & tested
    assert sum(map(len, loaded.bundle.files.values())) == 193
    assert "across/moved.png" in loaded.bundle.files["test"]
    kinds = [(one.kind, one.part, one.class_name, one.images) for one in loaded.changes]
    assert ("changed", "train", "plain", 52) in kinds or ("changed", "train", "plain", 53) in kinds
    assert ("removed", "test", "along", 1) in kinds
    assert [one for one in kinds if one[0] == "added"] == [
        ("added", "", "across", 1),
        ("added", "", "along", 1),
        ("added", "", "plain", 1),
    ]


def test_after_a_change_of_test_images_the_new_trainings_have_int8_models(made: Made, tmp_path: Path) -> None:
    manifest = made.run.data
    assert manifest.files is not None
    (made.images / min(manifest.files["test"]["plain"])).unlink()
    (first,) = made.run.trained()
    data = ["--data", str(made.images)]
    export = [
        "export",
        str(made.run.path),
        *data,
        "--format",
        "onnx",
        "--precision",
        "int8",
        "--out",
        str(tmp_path),
    ]
    refused = CliRunner().invoke(main, [*export, "--accept-changes"])
    assert f"are not those that {first.name} was evaluated on; first train it" in refused.stderr
    train = ["train", str(made.run.path), *data, "--top", "1", "--jobs", "1", "--accept-changes"]
    assert CliRunner().invoke(main, train).exit_code == 0
    result = CliRunner().invoke(main, export)
    assert result.exit_code == 0, result.stderr
    assert f"{first.name} was evaluated on other test images than those of now" in result.stderr
    names = {path.name for path in tmp_path.glob("*.onnx")}
    assert names == {f"{first.name}.onnx", f"{first.name}@2.onnx", f"{first.name}@2.int8.onnx"}


def test_int8_models_are_calibrated_on_accepted_training_images(made: Made, tmp_path: Path) -> None:
    data = DataSource(str(made.images))
    add_images(made.images)
    with pytest.raises(DataChangedError, match="were added"):
        export_run(made.run, data=data, formats=["onnx"], precision="int8", out=tmp_path / "out")
    exported = export_run(
        made.run, data=data, formats=["onnx"], precision="int8", out=tmp_path / "out", accept_changes=True
    )
    assert [one.card.precision for one in exported] == ["fp32", "int8"]
    (accepted,) = made.run.data_changes()
    assert accepted.step == "export"
    assert accepted.test_digest == made.run.data.test_digest


@pytest.mark.parametrize("change", FINAL)
def test_other_classes_or_parts_are_never_accepted(change: Callable[[Path], None], made: Made) -> None:
    change(made.images)
    with pytest.raises(DataChangedError) as error:
        train_run(made.run, TrainSettings(DataSource(str(made.images)), top=1, jobs=1, accept_changes=True))
    assert error.value.remedy == "restore-images"
    assert made.run.data_changes() == []


def test_a_class_without_test_images_and_another_colour_are_never_accepted(made: Made) -> None:
    manifest, data = made.run.data, DataSource(str(made.images))
    assert manifest.files is not None
    settings = TrainSettings(data, top=1, jobs=1, accept_changes=True)
    Image.new("RGB", (8, 8), (200, 30, 90)).save(made.images / "plain" / "red.png")
    with pytest.raises(DataChangedError, match=r"have 3 channels now, those of the run 1$"):
        train_run(made.run, settings)
    (made.images / "plain" / "red.png").unlink()
    for path in manifest.files["test"]["plain"]:
        (made.images / path).unlink()
    with pytest.raises(DataChangedError, match="no test image of plain is left"):
        train_run(made.run, settings)
    assert made.run.data_changes() == []


def test_unreadable_images_that_were_left_out_stay_out(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    broken = tmp_path / "images" / "plain" / "broken.png"
    broken.write_bytes(b"no image")
    source = DataSource(str(tmp_path / "images"), skip_unreadable=True)
    plan = SearchPlan(source, SPEC, PRESET, costs=("parameters",))
    run = run_search(plan, tmp_path / "run")
    assert list(run.data.skipped) == ["plain/broken.png"]
    assert sum(map(sum, run.data.counts.values())) == 192
    assert "1 that cannot be read" in page(gather(run))
    assert len(load_for_training(run, None).bundle.train) == 159
    save(broken, 3)
    with pytest.raises(DataChangedError, match=r"1 image of plain was added \(plain/broken.png\)"):
        load_for_training(run, None)


def test_a_data_set_with_a_name_is_known_by_its_pixels(tmp_path: Path, kept: Made) -> None:
    spec = replace(SPEC, classes=10)
    plan = SearchPlan(DataSource("fashion-mini"), spec, PRESET, costs=("parameters",))
    new = load_new(plan.data, SPEC.resolution)
    manifest = new.freeze(splits_of(new.bundle, PRESET.training, 0))
    assert manifest.files is None
    assert manifest.digest == load_new(plan.data, None).freeze().digest
    assert manifest.images == {"train": 5000, "test": 1000}
    run = kept.run
    assert load_frozen(run, manifest, None, SPEC.resolution).digest == manifest.digest
    with pytest.raises(DataChangedError, match=r"images is not the data of .*run, which is fashion-mini$"):
        load_frozen(run, manifest, DataSource(str(kept.images)), SPEC.resolution)
    with pytest.raises(DataChangedError, match=r"^fashion-mini is not the data of .*run, which is .*images$"):
        load_for_training(run, DataSource("fashion-mini"))
    other = replace(manifest, digest="sha256:" + "0" * 64)
    with pytest.raises(DataChangedError, match="fashion-mini is not the data of"):
        load_frozen(run, other, None, SPEC.resolution)


def test_after_a_search_on_a_proxy_the_first_training_freezes_its_images(images: Path, tmp_path: Path) -> None:
    spec = replace(SPEC, classes=2)
    plan = SearchPlan(DataSource(str(images)), spec, PRESET, costs=("parameters",), proxy=True)
    run = run_search(plan, tmp_path / "run")
    for name, shade in (("cat", 200), ("dog", 20)):
        for number in range(12):
            save(tmp_path / "own" / name / f"{number}.png", shade + number) if number else (
                tmp_path / "own" / name
            ).mkdir(parents=True)
    own = DataSource(str(tmp_path / "own"))
    with pytest.raises(InputError, match="has 3 classes, the network 2"):
        train_run(run, TrainSettings(top=1, jobs=1))
    (trained,) = train_run(run, TrainSettings(own, top=1, jobs=1, device="cpu"))
    assert run.data.class_names == ("across", "along", "plain")
    assert run.training_data.class_names == ("cat", "dog")
    assert trained.data_digest == run.training_data.digest
    assert "Images of the networks" in page(gather(run))
    # From now on, they are the run's.
    (exported, *_) = export_run(run, formats=["onnx"])
    assert exported.card.class_names == ("cat", "dog")
    assert train_run(run, TrainSettings(top=1, jobs=1, device="cpu")) == [trained]
    (tmp_path / "own" / "cat").rename(tmp_path / "own" / "lion")
    with pytest.raises(DataChangedError, match="class cat is now called lion"):
        train_run(run, TrainSettings(top=1, jobs=1))


def cars_hw(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    return line


def test_the_story_of_a_renamed_class_on_the_command_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(images, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    size = ["--network", "tiny", "--channels", "4", "--layers", "3", "--resolution", "8x8", "--classes", "3"]
    short = [
        "--population",
        "4",
        "--epochs",
        "2",
        "--warmup-epochs",
        "1",
        "--epochs-per-generation",
        "1",
        "--batch-size",
        "64",
    ]
    search = ["search", "--data", "photos", "--cost", "parameters", *size, *short, "--on", "cpu", "--out", "run"]
    assert cars_hw(*search).exit_code == 0
    # From another folder: the path of the images is absolute.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train = ["train", tmp_path / "run", "--top", "1", "--epochs", "1", "--jobs", "1", "--on", "cpu"]
    assert cars_hw(*train).exit_code == 0
    export = ["export", tmp_path / "run", "--format", "onnx", "--json"]
    (before,) = json.loads(cars_hw(*export).stdout)
    photos = tmp_path / "photos"
    (photos / "across").rename(photos / "zebra")
    # Commands that need no images warn, and go by the search's.
    renamed = cars_hw(*export)
    assert f"Warning: {photos} has changed since the search: class across is now called zebra" in renamed.stderr
    (after,) = json.loads(renamed.stdout)
    assert (after["class_names"], after["accuracy"]) == (["across", "along", "plain"], before["accuracy"])
    assert after["digest"] == before["digest"]
    for command in (
        ["report", tmp_path / "run"],
        ["verify", tmp_path / "run", "--device", "fake", "--sessions", "1", "--patience", "0"],
    ):
        result = cars_hw(*command)
        assert result.exit_code == 0, result.output
        assert "class across is now called zebra" in result.stderr
    # Commands that need them fail.
    for command in (
        [*train, "--seed", "1"],
        [*export, "--precision", "int8"],
        ["rank", tmp_path / "run", "--sample", "4"],
        ["baselines", tmp_path / "run", "--seeds", "1"],
    ):
        said = error_of(cars_hw(*command))
        assert f"{photos} has changed since the search of {tmp_path / 'run'}: class across is now called" in said
        assert "restore them, or start a new run" in said
    (photos / "zebra").rename(photos / "across")
    (photos / "plain" / "5.png").unlink()
    said = error_of(cars_hw(*train, "--seed", "1"))
    assert "image of plain was removed (plain/5.png)" in said
    assert f"cars-hw train {tmp_path / 'run'} --accept-changes" in said
    accepted = cars_hw(*train, "--seed", "1", "--accept-changes")
    assert accepted.exit_code == 0, accepted.output
    assert "has changed" not in cars_hw("report", tmp_path / "run").stderr
    assert "was removed (plain/5.png)" in (tmp_path / "run" / "report.html").read_text()
    # Moved, and whole again.
    shutil.rmtree(photos)
    said = error_of(cars_hw(*train, "--seed", "2"))
    assert "is not there; give the folder that holds them now with --data" in said
    assert cars_hw("report", tmp_path / "run").exit_code == 0
    moved = cars_hw(*export, "--precision", "int8", "--data", images)
    assert moved.exit_code == 0, moved.output
    assert [one["class_names"] for one in json.loads(moved.stdout)] == [["across", "along", "plain"]] * 4
    assert cars_hw(*train, "--seed", "2", "--data", images).exit_code == 0


@dataclass(frozen=True)
class Follower(ProcessGroup):
    """The second of two processes; it gets ``sent`` from the first."""

    sent: bytes = b""

    def broadcast(self, data: bytes | None) -> bytes:
        assert data is None
        return self.sent


def test_a_process_with_other_images_than_the_first_one_is_refused(made: Made) -> None:
    digest_of_first = made.run.data.digest
    change_image(made.images)
    data = DataSource(str(made.images))
    plan = SearchPlan(data, SPEC, PRESET, costs=("parameters",))
    follower = Follower(1, 2, sent=digest_of_first.encode())
    with pytest.raises(DataChangedError, match=r"process 1 has other images in .*images than the first process"):
        run_search(plan, made.run.path, process_group=follower)
    # What the first process accepts, others need not be asked for; it must be the same.
    sent = json.dumps({"data_digest": digest_of_first, "memory": 10**9, "jobs": []}).encode()
    with pytest.raises(DataChangedError, match="differs between processes"):
        train_run(made.run, TrainSettings(data, top=1), process_group=Follower(1, 2, sent=sent))
    now = load_for_training(made.run, data, accept=True).digest
    same = json.dumps({"data_digest": now, "memory": 10**9, "jobs": []}).encode()
    assert train_run(made.run, TrainSettings(data, top=1), process_group=Follower(1, 2, sent=same)) == []


def test_a_search_that_was_killed_before_its_facts_were_written_begins_again(made: Made) -> None:
    for path in (made.run.data_path, made.run.path / "front.json", made.run.checkpoint):
        path.unlink()
    plan = plan_of(made.run, DataSource(str(made.images)))
    again = run_search(plan, made.run.path, resume=True)
    assert again.data.digest == again.trained()[0].data_digest
    # With a checkpoint the facts are needed: the search has used the images.
    made.run.data_path.unlink()
    (made.run.path / "front.json").unlink()
    with pytest.raises(RunError, match=r"cannot read .*data\.json"):
        run_search(plan, made.run.path, resume=True)


def test_a_run_among_its_images_is_refused(kept: Made) -> None:
    plan = plan_of(kept.run, None)
    with pytest.raises(RunError, match=r"images/run is in .*images, where it would be taken for a class") as error:
        run_search(plan, kept.images / "run")
    assert error.value.remedy == "other-out"
    assert not (kept.images / "run").exists()


def test_a_training_part_of_which_no_image_is_left_to_evaluate_is_named(kept: Made) -> None:
    bundle = load_new(DataSource(str(kept.images)), SPEC.resolution).bundle
    few = replace(bundle, train=bundle.train.select(torch.tensor([0, 100, 158])))
    with pytest.raises(DatasetError, match=r"images has too few images: 0\.\d+ of each class are to evaluate"):
        splits_of(few, PRESET.training, 0)
