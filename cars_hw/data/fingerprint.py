"""Digests of the image files in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cars_hw.data.known_digests import Facts, Known, KnownDigests, facts_now, now
from cars_hw.data.manifest import UNDIVIDED, Files
from cars_hw.data.reading import in_threads
from cars_hw.data.scan import FolderScan
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress, silent

DIGITS: Final = 32
"""So many hexadecimal digits of the SHA-256 of a file are kept: 128 bits."""


def files_of(
    scan: FolderScan, *, hashed: bool = True, cache: Path | None = None, progress: Progress = silent
) -> Files:
    """Return the images that ``scan`` found, with the digests of their contents; without ``hashed``, empty ones.

    Files that are as they were when an earlier command hashed them have the digests that are kept in the folder
    ``cache``; without one, all are hashed. ``progress`` counts those that are.

    The part is :data:`~cars_hw.data.manifest.UNDIVIDED` where the folder has no parts. Without a test part, the
    validation part is the test part.

    Raises:
        DatasetError: a file cannot be read.
    """
    digests: Iterator[str] = iter([""] * len(scan.files))
    if hashed:
        digests = iter(_digests(scan, cache, progress))
    found: dict[str, dict[str, dict[str, str]]] = {}
    for part, classes in scan.parts.items():
        used_as = UNDIVIDED if not scan.has_parts else "test" if scan.test is None and part != "train" else part
        found[used_as] = {
            name: {path.relative_to(scan.folder).as_posix(): next(digests) for path in members}
            for name, members in classes.items()
        }
    return found


def _digests(scan: FolderScan, cache: Path | None, progress: Progress) -> list[str]:
    """Return the digest of each of the files of ``scan``, in their order; keep them in ``cache``."""
    known = KnownDigests(scan.folder, cache)
    names = [file.relative_to(scan.folder).as_posix() for file in scan.files]
    found: dict[str, Known] = {}
    if cache is not None:
        for name, file in zip(names, scan.files, strict=True):
            kept = known.find(name, facts_now(file))
            if kept is not None:
                found[name] = kept
    waiting = {name: file for name, file in zip(names, scan.files, strict=True) if name not in found}
    taken = in_threads(_hashed, [*waiting.values()], progress, "checking images")
    found.update(zip(waiting, taken, strict=True))
    known.keep(found)
    return [found[name].digest for name in names]


def _hashed(file: Path) -> Known:
    """Return the digest of ``file``, with what the file system says of it if the digest may be kept."""
    digest = hashlib.sha256()
    if not file.is_file():
        # A pipe would be waited for. It is no image, and a link may lead nowhere.
        return Known("0" * DIGITS, None)
    try:
        with file.open("rb") as content:
            opened = now()
            # Before it is read: what changes it from here on gives it other times.
            facts = Facts.of(os.fstat(content.fileno()))
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}); check its permissions") from error
    return Known(digest.hexdigest()[:DIGITS], facts if facts.settled(opened) else None)
