"""The digests of a folder's image files as an earlier command found them, so that only changed files are hashed.

They are kept beside the read images, see :mod:`cars_hw.data.image_cache`, and never in the folder itself. The
digest of a file is used if its size, its times of modification and of change and its inode are what they were when
it was hashed. No program can set the time of change back. What is not noticed is a change that leaves all four as
they were, such as one below the file system. A file system that has no time of change, such as FAT, has that of
modification in its place, which programs can set.

Two changes within one tick of the file system's clock cannot be told apart, as in git's index. So a digest is kept
only if the file had not been changed for :data:`SETTLED_SECONDS` when it was opened: whatever changes it while it
is read, or later, gives it another time.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cars_hw.config.checksummed import ChecksummedBytes
from cars_hw.config.codec import parse_json
from cars_hw.data import image_cache
from cars_hw.data.image_cache import cache_name, remove_unused
from cars_hw.errors import InputError

_LOG: Final = logging.getLogger(__name__)

FORMAT: Final = ChecksummedBytes("cars-hw-digests", 1)
SUFFIX: Final = ".digests"

SETTLED_SECONDS: Final = 4.0
"""Twice the longest tick of a clock of a file system, that of FAT."""


class Facts(NamedTuple):
    """What the file system says of a file: bytes, times of modification and of change in nanoseconds, inode."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, about: os.stat_result) -> Facts:
        """Return those of ``about``."""
        return cls(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)

    def settled(self, now: float) -> bool:
        """Return whether a change at the second ``now`` or later gives the file other times."""
        return max(self.modified, self.changed) / 1e9 < now - SETTLED_SECONDS


class Known(NamedTuple):
    """The digest of a file, and what the file system said of it then; without ``facts``, it is not to be kept."""

    digest: str
    facts: Facts | None


def facts_now(file: Path) -> Facts | None:
    """Return what the file system says of ``file``; None if that is nothing, or if it is no regular file."""
    try:
        return Facts.of(file.stat()) if file.is_file() else None
    except OSError:
        return None


class KnownDigests:
    """What is known of the image files of ``folder``, by their paths below it; nothing without a ``cache``."""

    def __init__(self, folder: Path, cache: Path | None) -> None:
        self._folder = os.fsencode(folder.absolute()).hex()
        self._path = None
        self._kept: Mapping[str, Known] = {}
        if cache is not None:
            name = cache_name(folder, {"folder": self._folder, "resolution": None})
            self._path = cache / f"{name}{SUFFIX}"
            self._kept = self._read(self._path)

    def find(self, name: str, facts: Facts | None) -> Known | None:
        """Return the digest of the file ``name`` if ``facts`` are what they were when it was hashed."""
        kept = self._kept.get(name)
        return kept if kept is not None and facts is not None and kept.facts == facts else None

    def keep(self, found: Mapping[str, Known]) -> None:
        """Write ``found``, all that is known now, unless it is what is kept, or too little to be worth it.

        A disk that is full or must not be written is no error.
        """
        if self._path is None:
            return
        worth = {name: one for name, one in found.items() if one.facts is not None}
        try:
            if worth == self._kept:
                if worth:
                    os.utime(self._path)
                return
            size = sum(one.facts.size for one in worth.values() if one.facts is not None)
            if len(worth) < image_cache.LEAST_FILES and size < image_cache.LEAST_BYTES:
                return
            files = {name: [*one.facts, one.digest] for name, one in worth.items() if one.facts is not None}
            content = json.dumps({"folder": self._folder, "files": files}).encode()
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_unused(self._path.parent, SUFFIX)
            # The names of pictures may be private.
            FORMAT.write(self._path, content, private=True)
        except OSError as error:
            _LOG.debug("digests are not kept in %s: %s", self._path, error)

    def _read(self, path: Path) -> dict[str, Known]:
        """Return what is kept in ``path``; nothing if it is of another folder, or not as it was written."""
        try:
            content: dict[str, Any] = parse_json(FORMAT.read(path))
            if content["folder"] != self._folder:
                return {}
            return {name: Known(one[-1], Facts(*one[:-1])) for name, one in content["files"].items()}
        except (OSError, InputError, ValueError, LookupError, TypeError, AttributeError) as error:
            _LOG.debug("no digests from %s: %s", path, error)
            return {}


def now() -> float:
    """Return the present second of the clock that names the times of files."""
    return time.time()
