"""Digests of the image files in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cars_hw.data.manifest import UNDIVIDED, Files
from cars_hw.data.reading import in_threads
from cars_hw.data.scan import FolderScan
from cars_hw.errors import DatasetError
from cars_hw.progress import Progress, silent

DIGITS: Final = 32
"""So many hexadecimal digits of the SHA-256 of a file are kept: 128 bits."""


def files_of(scan: FolderScan, *, hashed: bool = True, progress: Progress = silent) -> Files:
    """Return the images that ``scan`` found, with the digests of their contents; without ``hashed``, empty ones.

    The part is :data:`~cars_hw.data.manifest.UNDIVIDED` where the folder has no parts. Without a test part, the
    validation part is the test part.

    Raises:
        DatasetError: a file cannot be read.
    """
    digests: Iterator[str] = iter([""] * len(scan.files))
    if hashed:
        digests = iter([*in_threads(_digest, scan.files, progress, "checking images")])
    found: dict[str, dict[str, dict[str, str]]] = {}
    for part, classes in scan.parts.items():
        used_as = UNDIVIDED if not scan.has_parts else "test" if scan.test is None and part != "train" else part
        found[used_as] = {
            name: {path.relative_to(scan.folder).as_posix(): next(digests) for path in members}
            for name, members in classes.items()
        }
    return found


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    if not file.is_file():
        # A pipe would be waited for. It is no image, and a link may lead nowhere.
        return "0" * DIGITS
    try:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}); check its permissions") from error
    return found.hexdigest()[:DIGITS]
