"""What is wrong or worth knowing about a folder of images, all of it at once, before anything is spent on them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cars_hw.data.images import (
    Header,
    Size,
    is_truncated,
    largest_deep_value,
    read_header,
    unreadable,
    upright,
)
from cars_hw.data.limits import SMALLEST_CLASS, SMALLEST_SHARED, VALIDATION_IS_TEST
from cars_hw.data.reading import in_threads
from cars_hw.data.scan import NOT_READ, FolderScan, survey_folder
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress
from cars_hw.progress_line import show

FEW_IMAGES: Final = 10
IMBALANCE: Final = 3.0
"""The largest class has so many times the images of the smallest."""

TINY: Final = 16
"""Pixels of the shorter side, unless a resolution is given."""

DARK: Final = 4096
"""Pixels of 16 bits that all lie below use 12 bits or less, of which the high byte keeps at most 4."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    ``refused`` tells that a search refuses the folder for it. ``files`` are those that it is about, relative to the
    folder; ``copies`` are groups of files with the same content.
    """

    kind: str
    text: str
    refused: bool = False
    files: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class FolderCheck:
    """What a folder holds: images by part and class, and the findings, those first that a search refuses.

    Without parts of its own, a folder has one part, ``train``.
    """

    folder: str
    usable: bool
    images: int
    parts: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]


_NO_HEADER: Final = Header((0, 0), deep=False, animated=False)


@dataclass(frozen=True)
class _Facts:
    """What is known of an image file; ``problem`` is why it cannot be read."""

    file: Path
    digest: str = ""
    problem: str = ""
    truncated: bool = False
    header: Header = _NO_HEADER
    dark: bool = False


def check_folder(
    folder: Path,
    *,
    resolution: Size | None = None,
    skip_unreadable: bool = False,
    progress: Progress = show,
) -> FolderCheck:
    """Look at every file of ``folder`` once, and return everything that was found.

    ``resolution`` is that of the network, height and width in pixels: smaller images are found. With
    ``skip_unreadable`` images that cannot be read are no reason to refuse the folder.

    Raises:
        DatasetError: the folder, or one below it, cannot be read.
    """
    found = survey_folder(folder)
    closed = frozenset(found.unsupported)

    def look(file: Path) -> _Facts:
        return _Facts(file, problem=NOT_READ.format(file)) if file in closed else _facts(file)

    facts = {one.file: one for one in in_threads(look, found.files, progress, "checking images")}
    findings = [
        *(Finding("arrangement", problem, refused=True) for problem in found.problems),
        *_unreadable_files(found, facts, skip_unreadable),
        *_held_out(found, facts),
        *_class_sizes(found, facts),
        *_copies(found, facts),
        *_kinds(found, facts, resolution),
        *_others(found),
    ]
    findings.sort(key=lambda one: not one.refused)
    return FolderCheck(
        folder=str(folder),
        usable=not any(one.refused for one in findings),
        images=len(found.files),
        parts={
            part: {name: len(files) for name, files in classes.items()} for part, classes in found.parts.items()
        },
        findings=tuple(findings),
    )


def _facts(file: Path) -> _Facts:
    try:
        content = file.read_bytes()
    except OSError as error:
        return _Facts(file, problem=str(unreadable(file, error)))
    digest = hashlib.sha256(content).hexdigest()
    try:
        header = read_header(file, content)
        upright(file, content)
    except DatasetError as error:
        return _Facts(file, digest, str(error), is_truncated(error.__cause__))
    largest = largest_deep_value(file, content) if header.deep else None
    return _Facts(file, digest, header=header, dark=largest is not None and largest < DARK)


def _unreadable_files(found: FolderScan, facts: Mapping[Path, _Facts], skip: bool) -> Iterable[Finding]:
    bad = [one for one in facts.values() if one.problem]
    truncated = [one for one in bad if one.truncated]
    others = [one for one in bad if not one.truncated and one.file not in found.unsupported]
    for kind, files, words in (
        ("truncated", [one.file for one in truncated], "truncated"),
        ("unreadable", [one.file for one in others], "unreadable"),
        ("unsupported", list(found.unsupported), "in a format that is not read here, or no regular files"),
    ):
        if files:
            yield _about(found, kind, f"{_images(len(files))} {words}", files, refused=not skip)
    for part, classes in found.parts.items():
        for name, members in classes.items():
            left = sum(not facts[file].problem for file in members)
            least = 1 if found.has_parts else SMALLEST_CLASS
            if members and left < least:
                yield Finding(
                    "few-images",
                    f"class {name}{_in_part(found, part)} has {left} image{'' if left == 1 else 's'} that can be "
                    f"read; at least {least} {'is' if least == 1 else 'are'} needed",
                    refused=True,
                )


def _held_out(found: FolderScan, facts: Mapping[Path, _Facts]) -> Iterable[Finding]:
    """Find a training part that is too small to leave images for the evaluation of architectures."""
    if not found.has_parts or (found.validation is not None and found.test is not None):
        return
    largest = max((sum(not facts[file].problem for file in files) for files in found.train.values()), default=0)
    if 0 < largest < SMALLEST_SHARED:
        yield Finding(
            "few-images",
            f"no class of the training part has {SMALLEST_SHARED} images: none are left to evaluate architectures; "
            "add images, or a validation part",
            refused=True,
        )


def _class_sizes(found: FolderScan, facts: Mapping[Path, _Facts]) -> Iterable[Finding]:
    for part, classes in found.parts.items():
        counts = {name: sum(not facts[file].problem for file in files) for name, files in classes.items()}
        few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_IMAGES]
        if few:
            words = f"classes with fewer than {FEW_IMAGES} images{_in_part(found, part)}"
            yield Finding("few-images", f"{words}: {', '.join(few)}")
        if counts and max(counts.values()) >= IMBALANCE * max(1, min(counts.values())):
            most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
            share = counts[most] / sum(counts.values())
            what = f"the {part} part is" if found.has_parts else "the classes are"
            yield Finding(
                "imbalance",
                f"{what} imbalanced: {most} has {counts[most]} images and {least} {counts[least]}; "
                f"a network that always says {most} is right in {share:.1%} of them",
            )


def _copies(found: FolderScan, facts: Mapping[Path, _Facts]) -> Iterable[Finding]:
    """Find files with the same content: in several parts, in several classes, or in one class."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for one in facts.values():
        if one.digest:
            groups[one.digest].append(one.file)
    part_of = {
        file: (part, name)
        for part, classes in found.parts.items()
        for name, files in classes.items()
        for file in files
    }
    kinds: dict[str, list[list[Path]]] = defaultdict(list)
    for files in groups.values():
        if len(files) < 2:
            continue
        places = [part_of[file] for file in files]
        leaks, contradicts = len({part for part, _ in places}) > 1, len({name for _, name in places}) > 1
        for kind in (["leak"] if leaks else []) + (["contradiction"] if contradicts else []):
            kinds[kind].append(files)
        if not leaks and not contradicts:
            kinds["duplicate"].append(files)
    twice = "" if found.has_parts else "; copies can fall into the training part and the test part that is drawn"
    for kind, words in (
        ("leak", "{} in more than one part: what is tested or judged on was trained on"),
        ("contradiction", "{} in more than one class"),
        ("duplicate", "{} more than once in a class" + twice),
    ):
        if kinds[kind]:
            copies = tuple(tuple(_relative(found, files)) for files in kinds[kind])
            count = len(copies)
            text = words.format(f"{count} image{'s are' if count > 1 else ' is'}")
            yield Finding(kind, text, copies=copies)


def _kinds(found: FolderScan, facts: Mapping[Path, _Facts], resolution: Size | None) -> Iterable[Finding]:
    good = [one for one in facts.values() if not one.problem]
    height, width = resolution or (TINY, TINY)

    def those(kind: str, words: str, wanted: Callable[[_Facts], bool]) -> Iterable[Finding]:
        files = [one.file for one in good if wanted(one)]
        if files:
            yield _about(found, kind, f"{_images(len(files))} {words}", files)

    yield from those("16-bit", "of 16 bits: the high byte is used", lambda one: one.header.deep)
    yield from those(
        "dark-16-bit",
        f"of 16 bits with all pixels below {DARK}: nearly black by the high byte; scale them up, to 8 bits",
        lambda one: one.dark,
    )
    yield from those(
        "animated", "animated or of several pages: the first one is used", lambda one: one.header.animated
    )
    yield from those(
        "tiny",
        f"smaller than {height}x{width} pixels",
        lambda one: one.header.size[0] < height or one.header.size[1] < width,
    )
    sizes = Counter(one.header.size for one in good)
    if len(sizes) > 1:
        heights, widths = zip(*sizes, strict=True)
        ((height, width), count) = sizes.most_common(1)[0]
        yield Finding(
            "sizes",
            f"images have {len(sizes)} sizes, {min(heights)} to {max(heights)} pixels high and {min(widths)} to "
            f"{max(widths)} wide ({count} have {height}x{width}): all are resized, without keeping their aspect",
        )


def _others(found: FolderScan) -> Iterable[Finding]:
    if found.test is None and found.validation is not None:
        yield Finding("parts", VALIDATION_IS_TEST)
    for kind, files, words in (
        ("passed-over", found.passed_over, "other files are passed over"),
        ("hidden", found.hidden, "hidden files, or files of the system, are passed over"),
    ):
        if files:
            yield _about(found, kind, f"{words}: {len(files)}", files)


def _in_part(found: FolderScan, part: str) -> str:
    """Return the words for ``part``; none for a folder without parts, all of whose images the scan calls train."""
    return f" in the {part} part" if found.has_parts else ""


def _images(count: int) -> str:
    return f"{count} images are" if count > 1 else "an image is"


def _about(found: FolderScan, kind: str, text: str, files: Sequence[Path], *, refused: bool = False) -> Finding:
    return Finding(kind, text, refused, tuple(_relative(found, files)))


def _relative(found: FolderScan, files: Iterable[Path]) -> list[str]:
    return [str(file.relative_to(found.folder)) for file in files]
