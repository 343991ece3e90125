"""Image files that are named by their paths, by folders and by patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cars_hw.data.scan import SUFFIXES, SYSTEM_NAMES


class NotFound(NamedTuple):
    """A name that stands for no image, and why."""

    name: str
    problem: str


def image_files(named: Iterable[str]) -> Iterator[Path | NotFound]:
    """Yield the image files that ``named`` stands for, each once, in the order of ``named``.

    A folder stands for the images in it and below it, in the order of their paths, hidden files and folders left
    out. What does not exist is a pattern with ``*``, ``?``, ``[...]`` and ``**``. For a name that stands for
    no image, a :class:`NotFound` is yielded.
    """
    seen = set()
    for name in named:
        found = False
        for path in _expanded(name):
            found = True
            if path not in seen:
                seen.add(path)
                yield path
        if not found:
            is_folder = Path(name).is_dir()
            yield NotFound(name, f"there are no images in {name}" if is_folder else f"there is no file {name}")


def _expanded(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        yield from _below(path)
    elif path.exists() or not glob.has_magic(name):
        yield from [path] * path.exists()
    else:
        # Path.glob takes no absolute pattern.
        for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207
            yield from _below(Path(match)) if Path(match).is_dir() else [Path(match)]


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        yield from (
            Path(parent, name) for name in sorted(files) if name.lower().endswith(SUFFIXES) and not _is_hidden(name)
        )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
