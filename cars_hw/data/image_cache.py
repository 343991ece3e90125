"""The read images of a folder, kept for the next start, so that its files are decoded once.

A file of the cache has the pixels of one folder at one size. It is used only if nothing has changed since it was
written: the list of image files, each file's size, time of modification and time of change, the rules by which
images are decoded, and the versions of the libraries that decode them. A checksum covers all of it.

A file that was replaced by one of the same size, with its time of modification set back, has another time of
change, which no program can set. Two changes within one tick of the file system's clock cannot be told apart:
images are therefore not kept while one of them is younger than :data:`SETTLED_SECONDS`. What is not noticed is a
change that leaves all three as they were, such as one below the file system.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cars_hw.config.codec import parse_json
from cars_hw.config.data import NO_CACHE
from cars_hw.config.files import expanded, replacing
from cars_hw.data.images import Size, decoder
from cars_hw.data.reading import ReadImages, read_images
from cars_hw.data.scan import FolderScan
from cars_hw.errors import InputError
from cars_hw.formatting import size
from cars_hw.progress import Log, Progress, no_log, silent

_LOG: Final = logging.getLogger(__name__)

VARIABLE: Final = "CARS_HW_IMAGE_CACHE"
"""The environment variable that replaces the default folder, or is ``off``."""

LEAST_FILES: Final = 2000
LEAST_BYTES: Final = 20_000_000
"""Fewer images in smaller files are read in about a second, and are not kept."""

SETTLED_SECONDS: Final = 2.0
UNUSED_SECONDS: Final = 30 * 86400.0
"""A file that was not used for so long is removed when another one is written."""

_NAME: Final = "cars-hw-images"
_VERSION: Final = 1
_SUFFIX: Final = ".images"
_LONGEST_LINE: Final = 1 << 28


def cache_folder(chosen: str | None) -> Path | None:
    """Return the folder that ``chosen``, a setting, means; None where images are not kept."""
    wanted = chosen or os.environ.get(VARIABLE)
    if wanted == NO_CACHE:
        return None
    if wanted:
        return expanded(wanted)
    try:
        return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cars-hw" / "images"
    except InputError:
        # A user without a home folder, as in a container.
        return None


def read_cached(
    found: FolderScan,
    resolution: Size | None,
    cache: Path | None,
    progress: Progress = silent,
    log: Log = no_log,
) -> ReadImages:
    """Return the images of ``found`` at ``resolution``, from ``cache`` if they are there as they are now.

    Otherwise they are read and, if there are enough of them, kept. ``log`` tells where, and why not. A disk that is
    full is no error.

    Raises:
        DatasetError: ``resolution`` is None and the images differ in size.
    """

    def read() -> ReadImages:
        return read_images(found.files, resolution, progress, unsupported=found.unsupported)

    if cache is None:
        return read()
    begun = time.time()
    listing = _Listing.of(found)
    if len(found.files) < LEAST_FILES and listing.bytes < LEAST_BYTES:
        return read()
    about = {
        "folder": os.fsencode(found.folder.absolute()).hex(),
        "resolution": resolution,
        "listing": listing.digest,
        "decoder": decoder(),
    }
    path = cache / f"{cache_name(found.folder, about)}{_SUFFIX}"
    kept = _load(path, about, len(found.files), log)
    if kept is not None:
        return kept
    images = read()
    if _Listing.of(found).digest != listing.digest or listing.newest > begun - SETTLED_SECONDS:
        _LOG.debug("%s is changing: its images are not kept", found.folder)
    elif images.read:
        _keep(path, about, images, log)
    return images


@dataclass(frozen=True)
class _Listing:
    """The image files of a folder as the file system describes them.

    ``newest`` is the latest time at which one was written or changed, in seconds.
    """

    digest: str
    bytes: int
    newest: float

    @classmethod
    def of(cls, found: FolderScan) -> _Listing:
        total, newest = 0, 0
        entries = hashlib.sha256()
        for file in found.files:
            try:
                about = file.stat()
                facts = (about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            except OSError:
                # A link that leads nowhere; that it is unreadable is known from the scan.
                facts = (-1, 0, 0)
            total, newest = total + max(facts[0], 0), max(newest, *facts[1:])
            entries.update(os.fsencode(file.relative_to(found.folder)) + b"\0%d %d %d\n" % facts)
        return cls(f"sha256:{entries.hexdigest()}", total, newest / 1e9)


def listing_of(found: FolderScan) -> str:
    """Return the digest of the image files of ``found`` as the file system describes them."""
    return _Listing.of(found).digest


def cache_name(folder: Path, about: Mapping[str, Any]) -> str:
    """Return a name for each folder and size: newer images of them replace the older ones."""
    key = hashlib.sha256(json.dumps([about["folder"], about["resolution"]]).encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', folder.absolute().name)[:40]}-{key}"


def _load(path: Path, about: Mapping[str, Any], files: int, log: Log) -> ReadImages | None:
    """Return the images in ``path``; None if there are none, of other files, or not as they were written."""
    try:
        content, pixels = _read(path)
        if any(content[name] != json.loads(json.dumps(value)) for name, value in about.items()):
            return None
        images = ReadImages(
            pixels.reshape(content["shape"]),
            tuple(content["read"]),
            tuple((place, reason) for place, reason in content["failed"]),
        )
        if len(images.read) != len(images.pixels) or len(images.read) + len(images.failed) != files:
            raise InputError("it has images of other files")
    except FileNotFoundError:
        return None
    except (OSError, InputError, ValueError, KeyError, TypeError) as error:
        log(f"the kept images in {path} cannot be used ({error}); the images are read again")
        return None
    _LOG.debug("images from %s", path)
    _touch(path)
    return images


def _read(path: Path) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return the header and the pixels of ``path``, after their checksum was verified.

    Raises:
        InputError: they are not as they were written; the message does not name the file.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        name, _, stored = file.readline(200).decode("ascii", "replace").strip().rpartition(" ")
        if name != f"{_NAME} {_VERSION}":
            raise InputError("they are of another version")
        head = file.readline(_LONGEST_LINE)
        pixels = np.fromfile(file, np.uint8)
    if stored != _digest(head, pixels):
        raise InputError("they were changed or damaged: checksum mismatch")
    content: dict[str, Any] = parse_json(head)
    return content, pixels


def _digest(head: bytes, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    sums = hashlib.sha256(head)
    sums.update(pixels.data)
    return f"sha256:{sums.hexdigest()}"


def _keep(path: Path, about: Mapping[str, Any], images: ReadImages, log: Log) -> None:
    pixels = np.ascontiguousarray(images.pixels)
    content = {**about, "shape": pixels.shape, "read": images.read, "failed": images.failed}
    head = json.dumps(content).encode() + b"\n"
    taken = size(pixels.nbytes)
    try:
        # Pictures may be private, and this is a copy of them.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_unused(path.parent, _SUFFIX)
        free = shutil.disk_usage(path.parent).free
        if free < 2 * pixels.nbytes:
            log(f"the read images are not kept: they take {taken}, and {path.parent} has {size(free)} left")
            return
        with replacing(path, private=True) as temporary, temporary.open("wb") as file:
            file.write(f"{_NAME} {_VERSION} {_digest(head, pixels)}\n".encode())
            file.write(head)
            file.write(pixels.data)
    except OSError as error:
        log(f"the read images are not kept in {path.parent}: {error.strerror or error}")
        return
    log(f"the read images are kept in {path} for the next start ({taken})")


def remove_unused(folder: Path, suffix: str) -> None:
    """Remove the files in ``folder`` with this ``suffix`` that were not used for long."""
    for path in folder.glob(f"*{suffix}"):
        try:
            if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()
        except OSError as error:
            # Another process may have removed it.
            _LOG.debug("%s: %s", path, error)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError as error:
        _LOG.debug("%s: %s", path, error)
