"""The tool that makes small image sets: averages, parts and classes, and what it refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scripts import script

from cars_hw.data import load_data
from cars_hw.errors import DatasetError, InputError

COUNTS = {"train": 12, "validation": 4, "test": 6}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("tools/make_small_images", monkeypatch)


def write_images(folder: Path, classes: dict[str, int], first: int = 0) -> None:
    """Write 4x4 images of one grey level each, no level twice."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (first,) * 3).save(folder / name / f"{number}.png")
            first += 1


def levels(folder: Path) -> list[int]:
    """Return the grey level of every image below ``folder``."""
    return [int(np.asarray(Image.open(file))[0, 0, 0]) for file in sorted(folder.rglob("*.png"))]


def test_a_pixel_is_the_mean_of_the_area_that_it_covers(tool: ModuleType, tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"cat": 3, "dog": 3})
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 4
    for name in ("cat", "dog"):
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / "in" / name / f"{number}.png")
    tool.make(tmp_path / "in", tmp_path / "out", 2, {"train": 2, "validation": 2, "test": 2})
    (file, _) = sorted((tmp_path / "out" / "test").rglob("*.png"))
    assert (np.asarray(Image.open(file)) == pixels.reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))).all()


def test_parts_are_stratified_and_no_image_is_in_two_of_them(tool: ModuleType, tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"cat": 20, "dog": 10})
    tool.make(tmp_path / "in", tmp_path / "out", 2, COUNTS)
    parts = {part: levels(tmp_path / "out" / part) for part in ("train", "val", "test")}
    assert [len(parts[part]) for part in ("train", "val", "test")] == [12, 4, 6]
    assert max(Counter(level for part in parts.values() for level in part).values()) == 1
    # Two of three images are of the first class, whose levels are below 20.
    assert [sum(level < 20 for level in part) for part in parts.values()] == [8, 3, 4]


def test_given_parts_stay_apart_and_the_data_can_be_loaded(tool: ModuleType, tmp_path: Path) -> None:
    write_images(tmp_path / "in" / "train", {"cat": 10, "dog": 10})
    write_images(tmp_path / "in" / "test", {"cat": 5, "dog": 5}, first=100)
    tool.make(tmp_path / "in", tmp_path / "out", 2, COUNTS)
    assert min(levels(tmp_path / "out" / "test")) >= 100
    assert max(levels(tmp_path / "out" / "train") + levels(tmp_path / "out" / "val")) < 100
    data = load_data(str(tmp_path / "out"), resolution=(8, 8))
    assert {name: len(part) for name, part in data.parts.items()} == COUNTS


def test_the_seed_decides_which_images_are_drawn(tool: ModuleType, tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"cat": 20, "dog": 20})
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        tool.make(tmp_path / "in", tmp_path / out, 2, COUNTS, seed=seed)
    a, b, c = (levels(tmp_path / out) for out in "abc")
    assert a == b != c


def test_refused(tool: ModuleType, tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"cat": 5, "dog": 5})
    with pytest.raises(InputError, match="22 images are wanted of the train part, which has 10"):
        tool.make(tmp_path / "in", tmp_path / "out", 2, COUNTS)
    (tmp_path / "in" / "dog" / "0.png").write_bytes(b"no image")
    few = {"train": 8, "validation": 1, "test": 1}
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        tool.make(tmp_path / "in", tmp_path / "out", 2, few)
    # Nothing is left of an output that was not finished.
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(InputError, match="exists"):
        tool.make(tmp_path / "in", tmp_path / "in", 2, few)
