"""``cars-hw data check``: what it prints, its exit codes, and the switches of the images of a search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cars_hw.cli import search as search_command
from cars_hw.cli.main import main
from cars_hw.data import load_data
from cars_hw.errors import DatasetError
from cars_hw.pipeline.settings import SearchSettings


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    images = tmp_path / "pets"
    for name in ("cat", "dog"):
        (images / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(random.integers(0, 256, (20, 20), dtype=np.uint8)).save(images / name / f"{number}.png")
    return images


def test_a_folder_that_a_search_takes(folder: Path) -> None:
    said = run("data", "check", folder)
    assert said.exit_code == 0
    assert said.stdout.split()[-5:] == ["A", "search", "takes", "this", "folder."]
    rows = [line.split() for line in said.stdout.splitlines()]
    assert ["class", "images"] in rows
    assert ["cat", "10"] in rows
    assert ["all", "20"] in rows
    assert "checking images: 20/20" in said.stderr
    assert run("-q", "data", "check", folder).stderr == ""


def test_a_folder_that_a_search_refuses(folder: Path) -> None:
    for number in range(7):
        (folder / "dog" / f"bad-{number}.png").write_bytes(b"no image")
    (folder / "dog" / "\x1b[31mred.png").write_bytes(b"no image either")
    said = run("data", "check", folder)
    assert said.exit_code == 1
    assert "\nError: 8 images are unreadable\n  dog/\\x1b[31mred.png\n  dog/bad-0.png\n" in said.stdout
    assert "\n  and 3 more: --json lists all\n" in said.stdout
    assert "\x1b[31mred" not in said.stdout
    assert "Note: 1 image is more than once in a class" in said.stdout
    assert said.stdout.endswith(
        "A search refuses this folder: 1 error. Mend or remove what is named. --skip-unreadable leaves out the "
        "images that cannot be read.\n"
    )
    assert run("data", "check", folder, "--skip-unreadable").exit_code == 0
    for number in range(7):
        (folder / "dog" / f"{number}.png").unlink()
    said = run("data", "check", folder, "--skip-unreadable")
    assert "\nError: class dog has 3 images that can be read; at least 4 are needed\n" in said.stdout
    assert said.stdout.endswith("A search refuses this folder: 1 error. Mend or remove what is named.\n")
    assert run("search", "--data", folder, "--cost", "parameters", "--dry-run", "--resolution", "20").exit_code == 1


@pytest.mark.parametrize("resolution", ["0", "0x4", "4x0"])
def test_a_resolution_without_pixels_is_wrong_usage(folder: Path, resolution: str) -> None:
    checked = run("data", "check", folder, "--resolution", resolution)
    assert checked.exit_code == 2
    assert f"'{resolution}' is not a resolution" in checked.stderr


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_source_is_not_the_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.chdir(folder)
    searched = run("search", "--data", empty, "--cost", "parameters", "--out", tmp_path / "run")
    assert searched.exit_code == 1
    assert searched.stderr == "Error: data.source must name a data set or a folder; it is empty\n"
    with pytest.raises(DatasetError, match="no data set and no folder is named"):
        load_data(empty)


def test_json_has_every_file(folder: Path) -> None:
    for number in range(7):
        (folder / "dog" / f"bad-{number}.png").write_bytes(b"no image %d" % number)
    said = run("data", "check", folder, "--json", "--resolution", "20x21")
    assert said.exit_code == 1
    found = json.loads(said.stdout)
    assert (found["folder"], found["usable"], found["images"]) == (str(folder), False, 27)
    assert found["parts"] == {"train": {"cat": 10, "dog": 17}}
    unreadable, tiny = found["findings"]
    assert unreadable == {
        "kind": "unreadable",
        "text": "7 images are unreadable",
        "refused": True,
        "files": [f"dog/bad-{number}.png" for number in range(7)],
        "copies": [],
    }
    assert (tiny["kind"], len(tiny["files"])) == ("tiny", 20)


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    said = run("data", "check", tmp_path / "nowhere")
    assert said.exit_code == 2
    assert "there is no folder" in said.stderr


def test_unreadable_images_stop_a_search_and_point_to_the_check(folder: Path, tmp_path: Path) -> None:
    for number in (3, 4):
        (folder / "dog" / f"{number}.png").write_bytes(b"no image")
    size = ("--resolution", "20", "--in-channels", "1", "--classes", "2", "--channels", "4", "--layers", "3")
    search = ("search", "--data", folder, "--cost", "parameters", *size, "--out", tmp_path / "run")
    said = run(*search)
    assert said.exit_code == 1
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("Error:")]
    assert f"{folder}/dog/3.png cannot be read as an image" in line
    assert f"(2 images in {folder} cannot be read)" in line
    assert f"list all of them with: cars-hw data check {folder}; or leave them out with --skip-unreadable" in line
    assert not (tmp_path / "run").exists()


def asked(monkeypatch: pytest.MonkeyPatch, *options: str) -> SearchSettings:
    """Return the settings that a search with ``options`` has."""
    found: list[SearchSettings] = []
    monkeypatch.setattr(search_command, "_search", lambda settings, _asked: found.append(settings))
    done = run("search", "--data", "x", "--cost", "parameters", "--out", "y", *options)
    assert done.exit_code == 0, done.output
    return found[0]


def test_mirroring_and_crops_are_switched_off_for_the_search_and_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = asked(monkeypatch, "--preset", "cifar")
    assert usual.training.mirror
    assert usual.recipe.mirror
    assert usual.training.crop_padding > 0
    assert usual.recipe.crop_padding > 0
    off = asked(monkeypatch, "--preset", "cifar", "--no-mirror", "--no-crop")
    assert (off.training.mirror, off.training.crop_padding) == (False, 0)
    assert (off.recipe.mirror, off.recipe.crop_padding, off.recipe.crop_scale) == (False, 0, 0.0)
    assert asked(monkeypatch, "--preset", "cifar", "--mirror") == usual


def test_the_images_of_a_search_have_options(monkeypatch: pytest.MonkeyPatch) -> None:
    data = asked(monkeypatch, "--skip-unreadable", "--image-cache", "off").data
    assert (data.skip_unreadable, data.image_cache) == (True, "off")
    assert not asked(monkeypatch).data.skip_unreadable


def test_a_run_on_parts_with_an_unreadable_image_and_without_mirroring(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("Train", 12), ("Valid", 5), ("testing", 3)):
        for name, shade in (("dark", 40), ("light", 200)):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(shade - 30, shade + 30, (8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{number}.png")
    bad = tmp_path / "pets" / "Train" / "dark" / "3.png"
    bad.write_bytes(b"no image")
    made = tmp_path / "run"
    size = ("--channels", "4", "--layers", "3", "--resolution", "8", "--in-channels", "1", "--classes", "2")
    short = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
    note = f"1 of 40 images cannot be read and are left out: {bad}"
    switches = ("--skip-unreadable", "--no-mirror", "--no-crop")
    said = run(
        *("search", "--data", tmp_path / "pets", "--cost", "parameters", *size, *short, *switches, "--out", made)
    )
    assert said.exit_code == 0, said.output
    assert said.stderr.count(note) == 1
    # Architectures are evaluated on the validation part.
    assert "of 10 images" in said.stderr
    training = json.loads((made / "run.json").read_text())["configuration"]["training"]
    assert (training["mirror"], training["crop_padding"]) == (False, 0)
    # The run knows that unreadable images are left out.
    said = run("train", made, "--top", "1", "--epochs", "2", "--batch-size", "8", "--jobs", "1", "--on", "cpu")
    assert said.exit_code == 0, said.output
    assert said.stderr.count(note) == 1
    assert "on 6 test images, and on 10 held-out images, which chose the epoch" in said.stdout
    assert run("export", made, "--format", "onnx").exit_code == 0
    (card,) = (made / "models").glob("*.json")
    augmentations = json.loads(card.read_text())["augmentations"]
    assert (augmentations["mirror"], augmentations["crop"]) == (False, False)
