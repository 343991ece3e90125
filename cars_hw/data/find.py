"""Image files that are named by their paths, by folders and by patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cars_hw.data.scan import NOT_READ, SUFFIXES, UNSUPPORTED, is_hidden


class NotFound(NamedTuple):
    """A name that stands for no image that can be read, and why."""

    name: str
    problem: str


def image_files(named: Iterable[str]) -> Iterator[Path | NotFound]:
    """Yield the image files that ``named`` stands for, each once, in the order of ``named``.

    A folder stands for the images in it and below it, in the order of their paths, hidden files and folders left
    out; links to folders are followed, as where a data set is read. What does not exist is a pattern with ``*``,
    ``?``, ``[...]`` and ``**``. A :class:`NotFound` is yielded for a name that stands for no image, for a folder
    that cannot be read, and for an image that cannot be: of another format, or no regular file.
    """
    seen = set()
    for name in named:
        found = False
        for one in _expanded(name):
            found = True
            if one not in seen:
                seen.add(one)
                yield one
        if not found:
            is_folder = Path(name).is_dir()
            yield NotFound(name, f"there are no images in {name}" if is_folder else f"there is no file {name}")


def _expanded(name: str) -> Iterator[Path | NotFound]:
    path = Path(name)
    if not name:
        # An empty path would be the working directory: a variable of a shell that has no value.
        yield NotFound(name, "an image has an empty name; give a file, a folder or a pattern")
    elif path.exists():
        yield from _at(path)
    elif glob.has_magic(name):
        # Path.glob takes no absolute pattern.
        for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207
            yield from _at(Path(match))


def _at(path: Path) -> Iterator[Path | NotFound]:
    if path.is_dir():
        yield from _below(path, ())
    else:
        yield _regular(path)


def _regular(path: Path) -> Path | NotFound:
    # A pipe or a device would be waited for.
    return path if path.is_file() or not path.exists() else NotFound(str(path), f"{path} is no regular file")


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path | NotFound]:
    """Yield the images in ``folder``, and then those of the folders below it."""
    try:
        about = folder.stat()
        paths = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        yield NotFound(str(folder), f"{folder} cannot be read ({error.strerror}); check its permissions")
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        yield NotFound(str(folder), f"{folder} links to a folder that it lies in; remove the link")
        return
    for path in paths:
        suffix = path.suffix.lower()
        if path.is_dir():
            continue
        if suffix in SUFFIXES:
            yield _regular(path)
        elif suffix in UNSUPPORTED:
            yield NotFound(str(path), NOT_READ.format(path))
    for path in paths:
        if path.is_dir():
            yield from _below(path, (*above, here))
