"""``cars-hw classify``: files, folders and patterns; what cannot be read; how long it takes."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cars_hw.cli.main import main
from cars_hw.config.checksummed import digest
from cars_hw.export.card import ModelCard, card_path
from cars_hw.export.export import export_genotype
from cars_hw.significance import wilson_interval
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net.onnx``, of the classes above, and ``photos`` in folders of two of them."""
    folder = tmp_path_factory.mktemp("classify")
    (one,) = export_genotype(
        zoo()["CARS_A"].genotype, NetworkSpec(4, 3, (8, 8), 1, classes=3), folder, name="net", formats=["onnx"]
    )
    from dataclasses import replace

    card = replace(one.card, class_names=CLASSES)
    assert card.digest == digest(one.path.read_bytes())
    card.write(card_path(one.path))
    rng = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.JPG", "cat/old/3.png", "dog/1.png", ".hidden/4.png", "dog/.5.png"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).save(path)
    (folder / "photos" / "dog" / "notes.txt").write_text("none")
    return folder


def classify(made: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["classify", str(made / "net.onnx"), *map(str, arguments)])


def rows(result: Result) -> list[str]:
    """Return the images of a table."""
    return [
        found[1] for found in re.finditer(r"^ +(\S.*\S) +(?:cat|dog|owl) +\d+\.\d%", result.stdout, re.MULTILINE)
    ]


def test_a_folder_stands_for_its_images_and_a_pattern_for_what_it_matches(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    every = [f"photos/{name}" for name in ("cat/1.png", "cat/2.JPG", "cat/old/3.png", "dog/1.png")]
    assert rows(classify(made, "photos")) == every
    assert rows(classify(made, "photos/dog", "photos/cat", "photos")) == [every[3], *every[:3]]
    assert rows(classify(made, "photos/*/1.png")) == [every[0], every[3]]
    assert rows(classify(made, "photos/**/*.png")) == [every[0], every[2], every[3]]
    assert rows(classify(made, "photos/c?t/old")) == [every[2]] * 3
    (made / "photos" / "cat" / "[1].png").write_bytes((made / "photos" / "cat" / "1.png").read_bytes())
    assert rows(classify(made, "--top", 1, "photos/cat/[1].png")) == ["photos/cat/[1].png"]
    (made / "photos" / "cat" / "[1].png").unlink()


def test_a_folder_is_followed_through_links_and_nothing_in_it_is_passed_over(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("linked")
    for name in ("closed", "open"):
        (folder / name).mkdir(parents=True)
    (folder / "cat").symlink_to(made / "photos" / "cat")
    (folder / "open" / "up").symlink_to("..")
    (folder / "phone.HEIC").write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    list_folder = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = classify(made, folder)
    assert rows(result) == [f"linked/cat/{name}" for name in ("1.png", "2.JPG", "old/3.png")]
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: linked/phone.HEIC is of a format that is not read here; save it as JPEG or PNG",
        "Error: linked/pipe.png is no regular file",
        "Error: linked/closed cannot be read (Permission denied); check its permissions",
        "Error: linked/open/up links to a folder that it lies in; remove the link",
    ]
    assert classify(made, folder / "pipe.png").stderr == "Error: linked/pipe.png is no regular file\n"


def test_several_images_have_one_class_each_and_one_image_has_more(made: Path) -> None:
    image = made / "photos" / "cat" / "1.png"
    alone = json.loads(classify(made, "--json", image).stdout)
    assert alone[0]["image"] == str(image)
    assert {one["name"] for one in alone[0]["classes"]} == set(CLASSES)
    assert sum(one["probability"] for one in alone[0]["classes"]) == pytest.approx(1)
    several = json.loads(classify(made, "--json", made / "photos").stdout)
    assert [len(one["classes"]) for one in several] == [1] * 4
    assert [one["folder_class"] for one in several] == ["cat", "cat", "cat", "dog"]
    assert several[0]["classes"] == alone[0]["classes"][:1]
    assert len(json.loads(classify(made, "--json", "--top", 2, made / "photos").stdout)[3]["classes"]) == 2


def test_what_cannot_be_read_is_told_and_the_others_go_on(made: Path, tmp_path: Path) -> None:
    good = made / "photos" / "cat" / "1.png"
    cut, empty = tmp_path / "cut\x1b[31m.png", tmp_path / "empty"
    cut.write_bytes(good.read_bytes()[:60])
    empty.mkdir()
    result = classify(made, cut, good, tmp_path / "none.png", empty, tmp_path / "*.gif")
    assert result.exit_code == 1
    assert rows(result) == [str(good)]
    told = result.stderr.splitlines()
    assert [line[:7] for line in told] == ["Error: "] * 4
    assert "cut\\x1b[31m.png cannot be read as an image" in told[0]
    assert told[1].endswith("none.png")
    assert "there are no images in" in told[2]
    assert told[3].endswith("*.gif")
    records = json.loads(classify(made, "--json", cut, good).stdout)
    assert [set(record) for record in records] == [
        {"image", "error"},
        {"image", "classes", "folder_class"},
    ]
    missing = json.loads(classify(made, "--json", tmp_path / "none.png").stdout)
    assert missing == [{"image": str(tmp_path / "none.png"), "error": f"there is no file {tmp_path / 'none.png'}"}]
    assert "\x1b" not in result.stdout
    assert classify(made, empty).exit_code == 1


def test_folders_that_are_called_like_the_classes_give_an_accuracy(made: Path, tmp_path: Path) -> None:
    found = json.loads(classify(made, "--json", made / "photos").stdout)
    right = sum(record["classes"][0]["name"] == Path(record["image"]).parts[-2] for record in found)
    right += found[2]["classes"][0]["name"] == "cat"
    result = classify(made, made / "photos")
    low, high = (100 * end for end in wilson_interval(right, 4))
    share = f"{100 * right / 4:.1f}% ({low:.1f} to {high:.1f}) of 4 images"
    assert f"Accuracy by the names of the folders: {share}. If the network was trained on some" in result.stdout
    elsewhere = tmp_path / "1.png"
    elsewhere.write_bytes((made / "photos" / "cat" / "1.png").read_bytes())
    assert "Accuracy" not in classify(made, made / "photos", elsewhere).output


def test_progress_is_shown_for_many_images(made: Path, tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    assert "classifying: 20/20" in classify(made, tmp_path).stderr
    assert classify(made, made / "photos").stderr == ""


def test_a_card_of_classes_with_markup_is_printed_as_it_is(made: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    model = tmp_path / "net.onnx"
    model.write_bytes((made / "net.onnx").read_bytes())
    card = ModelCard.read(card_path(made / "net.onnx"))
    replace(card, class_names=("[red]a", "b\x1b[2J", "c")).write(card_path(model))
    result = CliRunner().invoke(main, ["classify", str(model), str(made / "photos" / "cat" / "1.png")])
    assert "[red]a" in result.stdout
    assert "b\\x1b[2J" in result.stdout


def test_an_empty_name_is_not_the_working_directory(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    result = classify(made, "")
    assert result.exit_code == 1
    assert result.stderr == "Error: an image has an empty name; give a file, a folder or a pattern\n"
