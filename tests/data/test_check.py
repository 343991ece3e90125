"""What a check finds in a folder: each kind of finding, and whether a search refuses the folder for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cars_hw.data import load_data
from cars_hw.data.check import Finding, FolderCheck, check_folder
from cars_hw.errors import DatasetError


def picture(path: Path, seed: int, size: tuple[int, int] = (20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with twelve images each, in which nothing is found."""
    for number in range(12):
        picture(tmp_path / "cat" / f"{number:02}.png", number)
        picture(tmp_path / "dog" / f"{number:02}.png", 100 + number)
    return tmp_path


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    for place, part in enumerate(("train", "val", "test")):
        for number in range(10):
            picture(tmp_path / part / "cat" / f"{number}.png", 1000 * place + number)
            picture(tmp_path / part / "dog" / f"{number}.png", 1000 * place + 100 + number)
    return tmp_path


def kinds(found: FolderCheck) -> list[str]:
    return [one.kind for one in found.findings]


def only(found: FolderCheck, *, refused: bool = False) -> Finding:
    """Return the only finding, by which a search refuses the folder or does not."""
    (finding,) = found.findings
    assert finding.refused is refused
    assert found.usable is not refused
    return finding


def test_a_folder_in_which_nothing_is_found(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = check_folder(folder, progress=lambda *step: steps.append(step))
    assert found == FolderCheck(str(folder), True, 24, {"train": {"cat": 12, "dog": 12}}, ())
    assert steps == [("checking images", done, 24) for done in range(25)]


def test_parts_are_counted(parted: Path) -> None:
    found = check_folder(parted)
    ten = {"cat": 10, "dog": 10}
    assert (found.parts, found.images, found.findings) == ({"train": ten, "validation": ten, "test": ten}, 60, ())


def test_unreadable_and_truncated_images_are_told_apart(folder: Path) -> None:
    whole = (folder / "dog" / "03.png").read_bytes()
    (folder / "dog" / "03.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "01.png").write_bytes(b"no image")
    (folder / "cat" / "02.png").write_bytes(b"")
    found = check_folder(folder)
    assert [(one.kind, one.files, one.refused) for one in found.findings] == [
        ("truncated", ("dog/03.png",), True),
        ("unreadable", ("cat/01.png", "cat/02.png"), True),
    ]
    assert not found.usable
    with pytest.raises(DatasetError):
        load_data(str(folder), resolution=(8, 8))
    found = check_folder(folder, skip_unreadable=True)
    assert found.usable
    assert kinds(found) == ["truncated", "unreadable"]
    assert len(load_data(str(folder), resolution=(8, 8), skip_unreadable=True).train) == 17


def test_formats_that_are_not_read_are_found_without_opening_them(folder: Path) -> None:
    (folder / "cat" / "photo.HEIC").write_bytes(b"anything")
    os.mkfifo(folder / "cat" / "pipe.png")
    finding = only(check_folder(folder), refused=True)
    assert (finding.kind, finding.files) == ("unsupported", ("cat/photo.HEIC", "cat/pipe.png"))


def test_a_class_with_too_few_readable_images_is_refused_even_without_the_others(folder: Path) -> None:
    for number in range(3, 12):
        (folder / "dog" / f"{number:02}.png").write_bytes(b"no image")
    found = check_folder(folder, skip_unreadable=True)
    assert not found.usable
    refused = [one for one in found.findings if one.refused]
    assert [one.text for one in refused] == ["class dog has 3 images that can be read; at least 4 are needed"]
    with pytest.raises(DatasetError, match=r"class dog in .* has too few images to split"):
        load_data(str(folder), resolution=(8, 8), skip_unreadable=True)


def test_16_bit_images_are_found_and_those_that_would_be_black(folder: Path) -> None:
    values = np.arange(480, dtype=np.uint16).reshape(20, 24)
    Image.fromarray(values * 100).save(folder / "cat" / "bright.png")
    Image.fromarray(values).save(folder / "dog" / "dark.tif")
    deep, dark = check_folder(folder).findings
    assert (deep.kind, deep.files) == ("16-bit", ("cat/bright.png", "dog/dark.tif"))
    assert (dark.kind, dark.files) == ("dark-16-bit", ("dog/dark.tif",))


def test_animations_are_found(folder: Path) -> None:
    frames = [Image.fromarray(np.full((20, 24), value, np.uint8)) for value in (10, 200)]
    frames[0].save(folder / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "cat" / "still.gif")
    finding = only(check_folder(folder))
    assert (finding.kind, finding.files) == ("animated", ("cat/moving.gif",))


def test_a_preview_beside_a_photograph_is_no_animation(folder: Path) -> None:
    frames = [Image.fromarray(np.full((20, 24, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(folder / "cat" / "phone.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert check_folder(folder).findings == ()


def test_copies_in_one_class(folder: Path) -> None:
    shutil.copy(folder / "cat" / "00.png", folder / "cat" / "copy.png")
    shutil.copy(folder / "cat" / "00.png", folder / "cat" / "again.png")
    finding = only(check_folder(folder))
    assert (finding.kind, finding.copies) == ("duplicate", (("cat/00.png", "cat/again.png", "cat/copy.png"),))
    assert "can fall into the training part and the test part" in finding.text


def test_copies_in_two_classes(folder: Path) -> None:
    shutil.copy(folder / "cat" / "00.png", folder / "dog" / "copy.png")
    finding = only(check_folder(folder))
    assert (finding.kind, finding.copies) == ("contradiction", (("cat/00.png", "dog/copy.png"),))


def test_copies_in_two_parts(parted: Path) -> None:
    shutil.copy(parted / "train" / "cat" / "0.png", parted / "test" / "cat" / "copy.png")
    shutil.copy(parted / "val" / "dog" / "0.png", parted / "test" / "cat" / "both.png")
    leak, contradiction = check_folder(parted).findings
    assert (leak.kind, leak.copies) == (
        "leak",
        (("train/cat/0.png", "test/cat/copy.png"), ("val/dog/0.png", "test/cat/both.png")),
    )
    assert (contradiction.kind, contradiction.copies) == (
        "contradiction",
        (("val/dog/0.png", "test/cat/both.png"),),
    )


def test_tiny_images_by_default_and_for_a_resolution(folder: Path) -> None:
    picture(folder / "cat" / "small.png", 50, (16, 15))
    tiny, sizes = check_folder(folder).findings
    assert (tiny.kind, tiny.files, tiny.refused) == ("tiny", ("cat/small.png",), False)
    assert tiny.text == "an image is smaller than 16x16 pixels"
    assert sizes.kind == "sizes"
    assert "2 sizes, 16 to 20 pixels high and 15 to 24 wide (24 have 20x24)" in sizes.text
    assert len(check_folder(folder, resolution=(20, 25)).findings[0].files) == 25
    assert kinds(check_folder(folder, resolution=(16, 15))) == ["sizes"]


def test_images_are_measured_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(folder / "cat" / "side.png", 60, (24, 20))
    Image.open(folder / "cat" / "side.png").save(folder / "cat" / "side.png", exif=exif)
    assert check_folder(folder).findings == ()


def test_few_images_in_a_class(folder: Path) -> None:
    for number in range(9, 12):
        (folder / "dog" / f"{number:02}.png").unlink()
    finding = only(check_folder(folder))
    assert finding.text == "classes with fewer than 10 images: dog (9)"
    for number in range(3, 9):
        (folder / "dog" / f"{number:02}.png").unlink()
    assert not check_folder(folder).usable


def test_imbalance(folder: Path) -> None:
    for number in range(20, 43):
        picture(folder / "cat" / f"{number}.png", number)
    assert check_folder(folder).findings == ()
    picture(folder / "cat" / "43.png", 43)
    finding = only(check_folder(folder))
    assert finding.kind == "imbalance"
    assert "cat has 36 images and dog 12; a network that always says cat is right in 75.0%" in finding.text


def test_files_that_are_passed_over(folder: Path) -> None:
    (folder / "labels.csv").write_text("x")
    (folder / "cat" / ".hidden.png").write_text("x")
    passed, hidden = check_folder(folder).findings
    assert (passed.kind, passed.files) == ("passed-over", ("labels.csv",))
    assert (hidden.kind, hidden.files) == ("hidden", ("cat/.hidden.png",))


def test_an_arrangement_that_is_refused_is_checked_all_the_same(folder: Path) -> None:
    shutil.copy(folder / "cat" / "00.png", folder / "stray.png")
    (folder / "fox").mkdir()
    (folder / "dog" / "01.png").write_bytes(b"no image")
    found = check_folder(folder)
    assert [(one.kind, one.refused) for one in found.findings] == [
        ("arrangement", True),
        ("arrangement", True),
        ("unreadable", True),
        ("few-images", False),
        ("imbalance", False),
    ]
    assert "stray.png" in found.findings[0].text
    assert "fox holds no images" in found.findings[1].text


@pytest.mark.parametrize("name", ["empty", "stray"])
def test_a_folder_without_classes(tmp_path: Path, name: str) -> None:
    if name == "stray":
        picture(tmp_path / "1.png", 0)
    found = check_folder(tmp_path)
    assert not found.usable
    assert kinds(found) == ["arrangement"]


def test_a_validation_part_that_is_the_test_part_is_told(parted: Path) -> None:
    shutil.rmtree(parted / "test")
    finding = only(check_folder(parted))
    assert finding.kind == "parts"
    assert finding.text == "there is no test part: the validation part is the test part, and decides nothing else"


def test_a_training_part_must_leave_images_to_evaluate_architectures(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            for number in range(2):
                path = tmp_path / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (20, 20), number + 2 * (name == "b") + 4 * (part == "test")).save(path)
    found = check_folder(tmp_path)
    assert not found.usable
    assert found.findings[0].text.startswith("no class of the training part has 3 images")
    for name in ("a", "b"):
        Image.new("L", (20, 20), 50 + (name == "b")).save(tmp_path / "train" / name / "2.png")
    assert check_folder(tmp_path).usable
