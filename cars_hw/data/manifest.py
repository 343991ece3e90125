"""The data facts of a run, frozen by its search: classes, counts, normalisation, splits, a digest of every image.

Training, evaluation, export and report go by them, and never by what a folder holds at the moment. A folder that
was changed since is compared with them, so that a message can say what changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from cars_hw.config.checksummed import checksum
from cars_hw.config.data import DataSource, is_folder
from cars_hw.config.decoding import Decoding
from cars_hw.config.setting import Settings, count, seed_field, setting
from cars_hw.errors import InputError

Files = Mapping[str, Mapping[str, Mapping[str, str]]]
"""The images of a folder: part, class, path below the folder, digest. See :data:`UNDIVIDED`."""

UNDIVIDED: Final = ""
"""The part of images in a folder without parts, before they are divided."""

EXAMPLES: Final = 3
"""So many images of a change are named."""

MENTIONED: Final = 4
"""So many changes are named in one message."""

PARTS: Final = {"train": "training image", "validation": "validation image", "test": "test image"}
"""What an image of each part is called; an image of a folder without parts is an image."""

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Split(Settings):
    """A part of the images: what it is for, the rule and the seed that chose it, its size, and a digest.

    ``use`` weights: these training images train the shared weights; architectures: these evaluate architectures;
    test: these evaluate trained networks. ``digest`` is that of the indices of its images among the training
    images, or of the test images in a folder without parts; None for a part that the source gives, and for the test
    part of a function's data set, which the digest of all images covers. ``seed`` is None where nothing is drawn.
    """

    use: Literal["weights", "architectures", "test"] = setting()
    rule: str = setting()
    seed: int | None = seed_field()
    images: int = count(minimum=1)
    digest: str | None = setting()

    def describe(self) -> str:
        """Return the split in words: ``architectures: 500 images, half of each class (seed 0)``."""
        drawn = "" if self.seed is None else f" (seed {self.seed})"
        return f"{self.images:,} images, {self.rule}{drawn}"


@dataclass(frozen=True)
class DataManifest(Settings):
    """The data of a run, as the search found it.

    ``source`` has absolute paths. ``class_names[i]`` is the name of label ``i``. ``counts`` has for each part
    (train, test, and validation if the source gives one) the number of images of each class. ``mean`` and ``std``
    have one value per channel, for pixel values from 0 to 1. ``files`` has for a folder the digest of every image,
    by part, class and path below the folder: the first 32 digits of the file's SHA-256. ``skipped`` are images
    that could not be read and are in no part, by path. ``digest`` is that of all images and their labels.
    ``decoding`` is how an image file becomes pixels.

    Raises:
        InputError: parts of it do not fit each other.
    """

    created: str
    source: DataSource
    name: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    mean: tuple[float, ...] = setting(minimum=-1e6, maximum=1e6)
    std: tuple[float, ...] = setting(minimum=1e-6, maximum=1e6)
    decoding: Decoding = setting()
    splits: tuple[Split, ...] = setting()
    digest: str = setting()
    files: dict[str, dict[str, dict[str, str]]] | None = setting()
    skipped: dict[str, str] = setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        for problem in self._problems():
            raise InputError(problem)

    def _problems(self) -> Iterator[str]:
        classes, channels = len(self.class_names), self.decoding.channels
        if classes < 2 or len(set(self.class_names)) < classes:
            yield f"class_names must be at least two different names, not {list(self.class_names)}"
        if not {"train", "test"} <= self.counts.keys() <= PARTS.keys():
            yield f"counts must be those of train and test, and of validation if there is one: {list(self.counts)}"
        for part, numbers in self.counts.items():
            if len(numbers) != classes or min(numbers) < 0 or max(numbers) == 0:
                yield f"counts.{part} must be {classes} numbers of images, one for each class"
        if (len(self.mean), len(self.std)) != (channels, channels):
            yield f"mean and std must have {channels} values, one for each channel"
        if "\0" in f"{self.source.source}{self.source.root or ''}":
            yield "source must be the path of a folder or the name of a data set"
        if (self.files is not None) is not is_folder(self.source.source):
            yield "files must be those of a folder"
        if self.files is not None:
            if counts_of(self.files, self.class_names) != self.counts:
                yield "files and counts must agree"
            if files_digest(self.files, self.class_names) != self.digest:
                yield "digest must be that of files"

    @property
    def images(self) -> dict[str, int]:
        """The number of images of each part."""
        return {part: sum(numbers) for part, numbers in self.counts.items()}

    @property
    def test_digest(self) -> str:
        """The digest of the test images and of their labels; for a data set with a name, that of all images."""
        return self.digest if self.files is None else test_digest(self.files, self.class_names)

    def with_splits(self, splits: Sequence[Split]) -> DataManifest:
        """Return the same facts with ``splits`` in place of those of the search."""
        return replace(self, splits=(*(one for one in self.splits if one.use == "test"), *splits))

    @property
    def divided_here(self) -> bool:
        """Whether the folder has no parts, so that cars-hw divided it."""
        return self.files is not None and any(split.use == "test" and split.digest for split in self.splits)


@dataclass(frozen=True)
class Change(Settings):
    """Images of one class that were added, removed or changed since the search; ``examples`` are some of them.

    ``part`` is train, validation or test; it is empty for added images of a folder without parts.
    """

    kind: Kind = setting()
    part: str = setting()
    class_name: str = setting()
    images: int = count(minimum=1)
    examples: tuple[str, ...] = setting()

    def describe(self) -> str:
        """Return the change in words: ``2 test images of cat were removed (cat/1.png, cat/7.png)``."""
        what = PARTS.get(self.part, "image")
        one = self.images == 1
        more = ", ..." if self.images > len(self.examples) else ""
        return (
            f"{self.images} {what}{'' if one else 's'} of {self.class_name} {'was' if one else 'were'} {self.kind} "
            f"({', '.join(self.examples)}{more})"
        )


@dataclass(frozen=True)
class AcceptedChange(Settings):
    """Changes of the images that were accepted with ``--accept-changes``: when, by which step, and what they are.

    ``counts``, ``digest`` and ``test_digest`` are those of the images with the changes.
    """

    time: str
    step: str
    source: str
    changes: tuple[Change, ...]
    counts: dict[str, tuple[int, ...]]
    digest: str
    test_digest: str


@dataclass(frozen=True)
class AcceptedChanges:
    """The content of ``data-changes.json``."""

    accepted: tuple[AcceptedChange, ...]


@dataclass(frozen=True)
class Comparison:
    """How the images of a folder differ from those of a manifest.

    ``problems`` are differences that no network of the run can go on with: other classes or parts. ``changes`` are
    added, removed and changed images. ``files`` are the images now, divided as the manifest says.
    """

    problems: tuple[str, ...]
    changes: tuple[Change, ...]
    files: Files

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.problems and not self.changes

    def describe(self) -> str:
        """Return the differences in words, the first few of them."""
        found = [*self.problems, *(change.describe() for change in self.changes)]
        more = len(found) - MENTIONED
        return "; ".join([*found[:MENTIONED], *([f"and {more} more differences"] if more > 0 else [])])


def compared(manifest: DataManifest, now: Files) -> Comparison:
    """Return how the images ``now``, as a folder holds them, differ from those of ``manifest``.

    The part of ``now`` is :data:`UNDIVIDED` where the folder has no parts: then an image that the manifest knows
    stays in its part, also under another name, and another one is for training. A digest may be empty, which is
    that of any content.
    """
    before = manifest.files or {}
    problems = _differences_of_parts(manifest, now) or _differences_of_classes(before, now)
    if problems:
        return Comparison(tuple(problems), (), now)
    divided: dict[str, dict[str, dict[str, str]]]
    divided = {part: {name: {} for name in manifest.class_names} for part in before}
    known = {path: part for part, classes in before.items() for members in classes.values() for path in members}
    part_of_content = _part_of_content(before)
    found: dict[tuple[str, str, Kind], list[str]] = {}
    for part, classes in now.items():
        for name, members in classes.items():
            for path, digest in members.items():
                if path in manifest.skipped and digest in ("", manifest.skipped[path]):
                    continue
                own = known.get(path, part)
                changed = path in known and digest not in ("", before[own][name][path])
                if path not in known:
                    found.setdefault((part, name, "added"), []).append(path)
                elif changed:
                    found.setdefault((own, name, "changed"), []).append(path)
                if part == UNDIVIDED and (path not in known or changed):
                    own = part_of_content.get(digest, own)
                divided[own or "train"][name][path] = digest
    there = {path for classes in now.values() for members in classes.values() for path in members}
    for part, classes in before.items():
        for name, members in classes.items():
            if gone := [path for path in members if path not in there]:
                found[part, name, "removed"] = gone
    changes = [
        Change(kind, part, name, len(paths), tuple(sorted(paths)[:EXAMPLES]))
        for (part, name, kind), paths in sorted(found.items(), key=lambda one: (one[0][1], one[0]))
    ]
    return Comparison(tuple(_emptied(manifest, divided)), tuple(changes), divided)


def _part_of_content(files: Files) -> dict[str, str]:
    """Return the part of each image by its digest; of copies in several parts, that of the test image."""
    ordered = sorted(files, key=list(PARTS).index)
    return {digest: part for part in ordered for members in files[part].values() for digest in members.values()}


def files_digest(files: Files, class_names: Sequence[str]) -> str:
    """Return the digest of all images of a folder and of their labels."""
    return checksum({"classes": list(class_names), "files": files})


def test_digest(files: Files, class_names: Sequence[str]) -> str:
    """Return the digest of the test images of a folder and of their labels."""
    return files_digest({"test": files["test"]}, class_names)


def counts_of(files: Files, class_names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the number of images of each class, for each part."""
    return {part: tuple(len(classes.get(name, ())) for name in class_names) for part, classes in files.items()}


def _emptied(manifest: DataManifest, divided: Files) -> list[str]:
    return [
        f"no {PARTS[part]} of {name} is left"
        for part, numbers in counts_of(divided, manifest.class_names).items()
        for name, number, had in zip(manifest.class_names, numbers, manifest.counts[part], strict=True)
        if had and not number
    ]


def _differences_of_parts(manifest: DataManifest, now: Files) -> list[str]:
    had = () if manifest.divided_here else tuple(manifest.counts)
    has = () if UNDIVIDED in now else tuple(now)
    if set(had) == set(has):
        return []
    before, after = (f"the parts {', '.join(parts)}" if parts else "no parts" for parts in (had, has))
    return [f"the folder had {before} and now has {after}"]


def _differences_of_classes(before: Files, now: Files) -> list[str]:
    hashed = any(digest for classes in now.values() for members in classes.values() for digest in members.values())
    had, has = (_contents_of_classes(files, hashed) for files in (before, now))
    gone = [name for name in had if name not in has]
    new = [name for name in has if name not in had]
    problems = []
    for name in gone:
        # Most of its images are there under another name.
        called = next((other for other in new if 2 * (had[name] & has[other]).total() > had[name].total()), None)
        if called is None:
            problems.append(f"class {name} is gone")
        else:
            new.remove(called)
            problems.append(f"class {name} is now called {called}")
    return problems + [f"class {name} is new" for name in new]


def _contents_of_classes(files: Files, hashed: bool) -> dict[str, Counter[str]]:
    """Return what identifies the images of each class, whatever its folder is called: digests, or file names."""
    found: dict[str, Counter[str]] = {}
    for classes in files.values():
        for name, members in classes.items():
            keys = members.values() if hashed else [path.rpartition("/")[2] for path in members]
            found.setdefault(name, Counter()).update(keys)
    return found
