"""How a folder of images may be arranged: a table with one case for each arrangement, and what each is read as."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cars_hw.data import scan_folder, survey_folder
from cars_hw.data.scan import FolderScan
from cars_hw.errors import DatasetError

Found = Mapping[str, Mapping[str, list[str]]]


@dataclass(frozen=True)
class Case:
    """``files`` and what they are read as: ``parts``, or the words of a ``problem`` each."""

    name: str
    files: list[str]
    parts: Found = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def pair(part: str, *more: str) -> list[str]:
    """Return the files of a part with two classes."""
    return [f"{part}/cat/1.png", f"{part}/dog/1.png", *(f"{part}/{one}" for one in more)]


def found(part: str) -> dict[str, list[str]]:
    """Return what :func:`pair` is read as."""
    return {"cat": [f"{part}/cat/1.png"], "dog": [f"{part}/dog/1.png"]}


PARTED = [
    Case(
        f"the parts may be called {train}, {validation} and {test}",
        [*pair(train), *pair(validation), *pair(test)],
        {"train": found(train), "validation": found(validation), "test": found(test)},
    )
    for train, validation, test in [
        ("train", "val", "test"),
        ("training", "valid", "testing"),
        ("Train", "VALIDATION", "Test"),
        ("TRAINING", "Dev", "TESTING"),
    ]
]

READ = [
    Case(
        "classes without parts",
        ["dog/2.png", "dog/1.JPG", "cat/1.jpeg"],
        {"train": {"cat": ["cat/1.jpeg"], "dog": ["dog/1.JPG", "dog/2.png"]}},
    ),
    Case("training and test", [*pair("train"), *pair("test")], {"train": found("train"), "test": found("test")}),
    Case(
        "training and validation",
        [*pair("train"), *pair("valid")],
        {"train": found("train"), "validation": found("valid")},
    ),
    Case("a training part alone", pair("train"), {"train": found("train")}),
    Case(
        "nested folders belong to the class",
        ["cat/b.png", "cat/a/z/2.png", "cat/a/1.png", "dog/far/er/1.png"],
        {"train": {"cat": ["cat/b.png", "cat/a/1.png", "cat/a/z/2.png"], "dog": ["dog/far/er/1.png"]}},
    ),
    Case(
        "nested folders of a part's class",
        [*pair("train", "cat/more/2.png"), *pair("test")],
        {
            "train": {"cat": ["train/cat/1.png", "train/cat/more/2.png"], "dog": ["train/dog/1.png"]},
            "test": found("test"),
        },
    ),
    Case(
        "classes called valid and invalid",
        ["valid/1.png", "invalid/1.png"],
        {"train": {"invalid": ["invalid/1.png"], "valid": ["valid/1.png"]}},
    ),
    Case(
        "a class called train below a training part",
        ["train/bus/1.png", "train/train/1.png", "train/test/1.png"],
        {"train": {"bus": ["train/bus/1.png"], "test": ["train/test/1.png"], "train": ["train/train/1.png"]}},
    ),
    Case(
        "classes that share a folder name and have images of their own",
        ["cat/1.png", "cat/in/2.png", "cat/out/3.png", "dog/in/1.png", "dog/out/2.png"],
        {
            "train": {
                "cat": ["cat/1.png", "cat/in/2.png", "cat/out/3.png"],
                "dog": ["dog/in/1.png", "dog/out/2.png"],
            }
        },
    ),
]

REFUSED = [
    Case("an empty folder", [], problems=("is empty",)),
    Case("texts only", ["labels.csv"], problems=("holds no images",)),
    Case("images without classes", ["1.png", "2.png"], problems=("holds images but no class folders",)),
    Case("a single class", ["cat/1.png"], problems=("fewer than two classes (only cat)",)),
    Case("a folder around the classes", pair("pets"), problems=("fewer than two classes (only pets)",)),
    Case(
        "a class without images",
        ["cat/1.png", "dog/notes.txt"],
        problems=("dog holds no images",),
    ),
    Case(
        "stray images beside classes",
        ["cat/1.png", "dog/1.png", "3.png", "4.png"],
        problems=("2 images in {} are in no class folder, such as 3.png",),
    ),
    Case(
        "stray images beside parts",
        [*pair("train"), *pair("test"), "3.png"],
        problems=("an image in {} is in no class folder, such as 3.png",),
    ),
    Case(
        "stray images beside the classes of a part",
        [*pair("train"), *pair("test", "3.png")],
        problems=("an image in {}/test is in no class folder",),
    ),
    Case(
        "parts without classes are not two classes called train and valid",
        ["train/1.png", "train/2.png", "valid/1.png"],
        problems=(
            "2 images in {}/train are in no class folder",
            "{}/train has fewer than two classes",
            "an image in {}/valid is in no class folder",
            "{}/valid has fewer than two classes",
        ),
    ),
    Case(
        "a training part beside a folder that is no part",
        [*pair("train"), *pair("holdout")],
        problems=("holds parts (train) and beside them holdout, which is no part",),
    ),
    Case(
        "a training part without classes beside a folder that is no part",
        ["train/1.png", "Validierung/1.png"],
        problems=("an image in", "fewer than two classes", "beside them Validierung, which is no part"),
    ),
    Case(
        "a test part beside a folder that is no part",
        [*pair("learn"), *pair("test")],
        problems=("beside them learn", "has a test part but no training part"),
    ),
    Case(
        "parts without a training part",
        [*pair("val"), *pair("test")],
        problems=("has a test and a validation part but no training part",),
    ),
    Case(
        "two folders for one part",
        [*pair("train"), *pair("Training"), *pair("test")],
        problems=("Training and train in {} are each the training part",),
    ),
    Case(
        "parts that differ in their classes",
        [*pair("train"), "test/cat/1.png", "test/fox/1.png"],
        problems=("must hold the same classes; only one of them has dog, fox",),
    ),
    Case(
        "classes that differ in the case of their names",
        [*pair("train"), "test/Cat/1.png", "test/dog/1.png"],
        problems=("only one of them has Cat, cat",),
    ),
    Case("parts with other names", [*pair("train_2017"), *pair("val2017")], problems=("are called like parts",)),
    Case("parts with sets", ["Trainset/1.png", "Testset/1.png"], problems=("are called like parts",)),
    Case(
        "parts with names of their own",
        [*pair("first"), *pair("second")],
        problems=("first and second in {} hold no images but folders called cat, dog, as parts do",),
    ),
    Case(
        "parts with names of their own, nested twice",
        [*pair("first/first"), *pair("second/second")],
        problems=("hold no images but folders called cat, dog",),
    ),
]


def make(folder: Path, files: list[str]) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not opened")


def shown(scan: FolderScan) -> Found:
    return {
        part: {name: [str(file.relative_to(scan.folder)) for file in files] for name, files in classes.items()}
        for part, classes in scan.parts.items()
    }


@pytest.mark.parametrize("case", [*PARTED, *READ], ids=lambda case: case.name)
def test_a_folder_that_is_read(case: Case, tmp_path: Path) -> None:
    make(tmp_path, case.files)
    scan = scan_folder(tmp_path)
    assert shown(scan) == case.parts
    assert list(scan.class_names) == list(case.parts["train"])
    assert len(scan.files) == len(case.files)
    assert [str(file.relative_to(tmp_path)) for file in scan.files] == [
        file for classes in case.parts.values() for files in classes.values() for file in files
    ]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_folder_that_is_refused(case: Case, tmp_path: Path) -> None:
    make(tmp_path, case.files)
    problems = survey_folder(tmp_path).problems
    assert len(problems) == len(case.problems), problems
    for problem, words in zip(problems, case.problems, strict=True):
        assert words.format(tmp_path) in problem
        assert "\n" not in problem
        assert str(tmp_path) in problem
    with pytest.raises(DatasetError) as raised:
        scan_folder(tmp_path)
    assert str(raised.value).startswith(problems[0])
    assert ("more problem" in str(raised.value)) == (len(problems) > 1)


def test_what_is_passed_over_is_listed(tmp_path: Path) -> None:
    make(
        tmp_path,
        [
            *("cat/1.png", "dog/1.png", "README.md", "cat/labels.csv", "cat/without-a-suffix"),
            *(".DS_Store", "cat/._1.png", "__MACOSX/cat/1.png", "dog/Thumbs.db", ".git/config"),
        ],
    )
    scan = scan_folder(tmp_path)
    assert shown(scan) == {"train": {"cat": ["cat/1.png"], "dog": ["dog/1.png"]}}
    relative = [str(one.relative_to(tmp_path)) for one in (*scan.passed_over, *scan.hidden)]
    assert sorted(relative[:3]) == ["README.md", "cat/labels.csv", "cat/without-a-suffix"]
    assert sorted(relative[3:]) == [".DS_Store", ".git", "__MACOSX", "cat/._1.png", "dog/Thumbs.db"]


def test_images_that_cannot_be_read_here_are_images(tmp_path: Path) -> None:
    make(tmp_path, ["cat/1.png", "dog/1.png", "dog/photo.HEIC"])
    (tmp_path / "dog" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    scan = scan_folder(tmp_path)
    assert [file.name for file in scan.train["dog"]] == ["1.png", "nowhere.png", "photo.HEIC"]
    assert sorted(file.name for file in scan.unsupported) == ["nowhere.png", "photo.HEIC", "pipe.png"]


def test_links_to_folders_are_followed_and_circles_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", ["1.png", "2.png"])
    make(tmp_path / "images", ["cat/1.png"])
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "elsewhere")
    assert [len(files) for files in scan_folder(tmp_path / "images").train.values()] == [1, 2]
    (tmp_path / "images" / "cat" / "again").symlink_to(tmp_path / "images" / "cat")
    with pytest.raises(DatasetError, match="cat/again links to a folder that it lies in; remove the link"):
        scan_folder(tmp_path / "images")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cars_hw.data.scan.os.scandir", closed)
    with pytest.raises(DatasetError, match=r"cannot be read \(Permission denied\); check its permissions"):
        scan_folder(tmp_path)


def test_a_class_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    for name in (b"a", b"\xe9"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        (folder / "1.png").touch()
    with pytest.raises(DatasetError, match="is not UTF-8; rename it"):
        scan_folder(tmp_path)
