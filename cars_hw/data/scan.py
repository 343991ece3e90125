"""Which images a folder holds: its parts, classes and files, found without opening a single image.

A folder holds class folders, or parts that each hold class folders. With a folder that is called like a training
part (:data:`PART_NAMES`) the folders are parts, and otherwise those that are called like a part and hold folders
only. Everything below a class folder belongs to the class. What belongs to no class is never passed over in
silence: an image there is a problem, and other files are listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cars_hw.errors import DatasetError

SUFFIXES: Final = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
"""What an image's file name ends in, in either case."""

UNSUPPORTED: Final = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".j2k", ".jp2"),
    *(".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2", ".svg", ".tga"),
)
"""What the names of images end in that are not read here: such a file is an image that cannot be read."""

NOT_READ: Final = "{} is of a format that is not read here; save it as JPEG or PNG"

_LIKE_A_PART: Final = {
    kind: re.compile(rf"(?<![a-z])(?:{names})(?:set|data|images|[^a-z]|$)")
    for kind, names in (("train", "train|training"), ("other", "val|valid|validation|dev|test|testing"))
}
"""How the names of parts are written that are not called as they should be: train2017, test_set, Trainset."""

PartName = Literal["train", "validation", "test"]

PART_NAMES: Final[Mapping[str, PartName]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What the folder of each part may be called, in any case."""

SYSTEM_NAMES: Final = ("__macosx", "desktop.ini", "ehthumbs.db", "thumbs.db", "@eadir", "$recycle.bin")
"""Files and folders that systems leave beside images, in small letters; they are passed over like hidden ones."""

Classes = Mapping[str, tuple[Path, ...]]
"""The image files of each class. Classes are in the order of their names, files in that of their paths."""


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds.

    ``train`` is all there is where a folder has no parts: ``validation`` and ``test`` are None where they are not
    given. ``unsupported`` are the image files among them that are not read here: of another format, or no regular
    files. ``passed_over`` are files that are no images by their names; ``hidden`` are hidden files and folders and
    what systems leave behind. ``problems`` are the reasons why the folder cannot be used, one line each.
    """

    folder: Path
    train: Classes = field(default_factory=dict)
    validation: Classes | None = None
    test: Classes | None = None
    unsupported: tuple[Path, ...] = ()
    passed_over: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[PartName, Classes]:
        """The parts that are given, the training part first."""
        given: dict[PartName, Classes | None] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {name: classes for name, classes in given.items() if classes is not None}

    @property
    def has_parts(self) -> bool:
        """Whether the folder is divided into parts."""
        return self.validation is not None or self.test is not None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their names."""
        return tuple(self.train)

    @property
    def files(self) -> tuple[Path, ...]:
        """All image files: part by part, class by class."""
        return tuple(file for classes in self.parts.values() for members in classes.values() for file in members)


def scan_folder(folder: Path) -> FolderScan:
    """Return what ``folder`` holds; no image is opened.

    Raises:
        DatasetError: the folder cannot be used: see :func:`survey_folder`.
    """
    found = survey_folder(folder)
    if found.problems:
        more = len(found.problems) - 1
        raise DatasetError(found.problems[0] + (f" ({more} more problem{'s' if more > 1 else ''})" if more else ""))
    return found


def survey_folder(folder: Path) -> FolderScan:
    """Return what ``folder`` holds, with everything that is wrong with its arrangement in ``problems``.

    Problems are: no images, fewer than two classes, a class without images, a class whose name is not UTF-8 and
    which a model file can therefore not hold, an image outside of all classes,
    parts without a training part or beside folders that are no part, two folders for one part, parts that differ
    in their classes, and class folders that are arranged like parts.

    Raises:
        DatasetError: a folder cannot be read, or links to a folder above it.
    """
    survey = _Survey(folder)
    survey.run()
    return FolderScan(
        folder,
        survey.parts.get("train", {}),
        survey.parts.get("validation"),
        survey.parts.get("test"),
        tuple(survey.unsupported),
        tuple(survey.passed_over),
        tuple(survey.hidden),
        tuple(survey.problems),
    )


@dataclass(frozen=True)
class _Entries:
    """What lies directly in a folder, in the order of the names."""

    folders: tuple[Path, ...]
    images: tuple[Path, ...]


class _Survey:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: dict[PartName, Classes] = {}
        self.unsupported: list[Path] = []
        self.passed_over: list[Path] = []
        self.hidden: list[Path] = []
        self.problems: list[str] = []
        self._known: dict[Path, _Entries] = {}

    def run(self) -> None:
        top = self._entries(self.folder)
        if not top.folders:
            holds = "holds images but no class folders" if top.images else "is empty"
            if self.passed_over and not top.images:
                holds = "holds no images"
            self.problems.append(f"{self.folder} {holds}; put a folder of images for each class there")
            return
        self._require_none_outside(self.folder, top.images)
        parts = self._parts(top.folders)
        if parts is None:
            self.parts["train"] = self._classes(self.folder)
            self._refuse_disguised_parts(top.folders)
            return
        for name in ("train", "validation", "test"):
            for folder in parts.get(name, ()):
                self._require_none_outside(folder, self._entries(folder).images)
                self.parts[name] = self._classes(folder)
        self._require_parts(parts, top.folders)

    def _parts(self, folders: tuple[Path, ...]) -> dict[PartName, list[Path]] | None:
        """Return the folders of each part; None if ``folders`` are classes."""
        named = {folder: PART_NAMES.get(folder.name.lower()) for folder in folders}
        sure = "train" in named.values() or all(named.values())
        found: dict[PartName, list[Path]] = {}
        for folder, name in named.items():
            entries = self._entries(folder)
            # Classes may be called valid and invalid: then they hold images, while a part holds folders.
            if name is not None and (sure or (entries.folders and not entries.images)):
                found.setdefault(name, []).append(folder)
        return found or None

    def _require_parts(self, parts: Mapping[PartName, list[Path]], folders: tuple[Path, ...]) -> None:
        for name, several in parts.items():
            if len(several) > 1:
                self.problems.append(
                    f"{_names(several)} in {self.folder} are each the {_words(name)} part; leave one of them"
                )
        others = [one for one in folders if all(one not in several for several in parts.values())]
        if others:
            some = ", ".join(one.name for several in parts.values() for one in several)
            self.problems.append(
                f"{self.folder} holds parts ({some}) and beside them {_names(others)}, which is no part; parts are "
                f"called {_allowed()}, and classes lie inside them: if all of these are classes, put them into a "
                "folder called train"
            )
        if "train" not in parts:
            self.problems.append(
                f"{self.folder} has a {' and a '.join(_words(name) for name in parts)} part but no training part; "
                "add a folder called train"
            )
            return
        if len(parts) == 1 and not others:
            # Only a training part: cars-hw divides it, as it divides a folder without parts.
            return
        for name, classes in self.parts.items():
            differing = sorted(self.parts["train"].keys() ^ classes.keys())
            if differing:
                self.problems.append(
                    f"{parts['train'][0]} and {parts[name][0]} must hold the same classes; only one of them has "
                    f"{', '.join(differing)}"
                )

    def _classes(self, folder: Path) -> Classes:
        """Return the images of every class in ``folder``."""
        classes = {one.name: tuple(self._below(one, ())) for one in self._entries(folder).folders}
        if len(classes) < 2:
            only = f" (only {next(iter(classes))})" if classes else ""
            self.problems.append(
                f"{folder} has fewer than two classes{only}; put a folder of images for each class there"
            )
        for name, files in classes.items():
            if not name.isascii() and any("\ud800" <= one <= "\udfff" for one in name):
                self.problems.append(f"the name of the class folder {folder / name} is not UTF-8; rename it")
            if not files:
                self.problems.append(
                    f"class folder {folder / name} holds no images; remove it, or put images into it "
                    f"({', '.join(SUFFIXES)})"
                )
        return classes

    def _below(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """Yield the images in ``folder`` and in all folders below it."""
        try:
            about = folder.stat()
        except OSError as error:
            raise _cannot_read(folder, error) from error
        here = (about.st_dev, about.st_ino)
        if here in above:
            raise DatasetError(f"{folder} links to a folder that it lies in; remove the link")
        entries = self._entries(folder)
        yield from entries.images
        for deeper in entries.folders:
            yield from self._below(deeper, (*above, here))

    def _entries(self, folder: Path) -> _Entries:
        """Return what lies in ``folder``, and note what is passed over."""
        if folder in self._known:
            return self._known[folder]
        folders: list[Path] = []
        images: list[Path] = []
        try:
            with os.scandir(folder) as listing:
                for entry in sorted(listing, key=lambda one: one.name):
                    path, suffix = folder / entry.name, Path(entry.name).suffix.lower()
                    if is_hidden(entry.name):
                        self.hidden.append(path)
                    elif entry.is_dir():
                        folders.append(path)
                    elif suffix in SUFFIXES or suffix in UNSUPPORTED:
                        images.append(path)
                        # A pipe or a device would be waited for, and a link may lead nowhere.
                        if suffix in UNSUPPORTED or not entry.is_file():
                            self.unsupported.append(path)
                    else:
                        self.passed_over.append(path)
        except OSError as error:
            raise _cannot_read(folder, error) from error
        self._known[folder] = _Entries(tuple(folders), tuple(images))
        return self._known[folder]

    def _require_none_outside(self, folder: Path, images: tuple[Path, ...]) -> None:
        if images:
            number = f"{len(images)} images" if len(images) > 1 else "an image"
            self.problems.append(
                f"{number} in {folder} {'are' if len(images) > 1 else 'is'} in no class folder, such as "
                f"{images[0].name}; put every image into the folder of its class"
            )

    def _refuse_disguised_parts(self, classes: tuple[Path, ...]) -> None:
        """Refuse folders that are parts under other names, by their names or by the folders that they hold."""
        kinds = {kind for one in classes for kind, form in _LIKE_A_PART.items() if form.search(one.name.lower())}
        common = self._folders_in_common(classes)
        if len(kinds) > 1:
            reason = "are called like parts"
        elif len(common) > 1:
            reason = f"hold no images but folders called {', '.join(common[:5])}, as parts do"
        else:
            return
        self.problems.append(
            f"{_names(classes)} in {self.folder} {reason}; call parts {_allowed()}; if all of these are classes, "
            "put them into a folder called train"
        )

    def _folders_in_common(self, classes: tuple[Path, ...]) -> list[str]:
        """Return the names of folders with images that all ``classes`` hold, if none holds images directly."""
        if len(classes) < 2 or any(self._entries(one).images for one in classes):
            return []
        inside = [{file.parent.name for file in self.parts["train"][one.name]} for one in classes]
        return sorted(set.intersection(*inside))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder called ``name`` is passed over."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _cannot_read(folder: Path, error: OSError) -> DatasetError:
    return DatasetError(f"{folder} cannot be read ({error.strerror}); check its permissions")


def _allowed() -> str:
    return "train or training, val, valid, validation or dev, test or testing"


def _words(name: PartName) -> str:
    return "training" if name == "train" else name


def _names(folders: Sequence[Path]) -> str:
    names = [one.name for one in folders]
    if len(names) > 5:
        names = [*names[:5], f"{len(names) - 5} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
