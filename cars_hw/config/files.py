"""Files that are never half-written: everything goes to a temporary name and is renamed.

A process that is killed leaves its temporary file. Such files are swept: those of a run when the run is locked,
those beside another file when the file is written again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cars_hw.errors import InputError

_LOG: Final = logging.getLogger(__name__)

SUFFIX: Final = ".cars-hw-part"
"""What the names of temporary files end with."""

STALE_SECONDS: Final = 3600.0
"""A temporary file that was not written for so long is of a process that was killed."""

_TEMPORARY: Final = re.compile(rf"\.(?P<target>.+)\.[a-z0-9_]{{8}}{re.escape(SUFFIX)}")


@contextmanager
def replacing(path: Path, *, private: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    Only the owner can read a ``private`` file; any other is readable for whoever may read the folder. If the power
    fails, a ``durable`` file is whole or not there. For a file that is needed only as long as the process, waiting
    for the disk would take milliseconds for nothing.

    Raises:
        OSError: the file cannot be written, such as on a full disk; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".*{SUFFIX}"):
        if _target(leftover) == path.name and _is_stale(leftover):
            leftover.unlink(missing_ok=True)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=SUFFIX, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes the file private to its owner.
        if not private:
            temporary.chmod(0o644)
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
        _LOG.debug("wrote %s", path)
    except OSError as error:
        if error.errno is None or not (error.filename is None or str(error.filename).endswith(SUFFIX)):
            raise
        # A write that fails does not know its file, and nobody knows the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path, keep: str) -> None:
    """Remove the temporary files in ``folder`` and below, except those of files called ``keep``.

    No other process may be writing other files there.
    """
    for path in folder.rglob(f".*{SUFFIX}"):
        if _target(path) not in (None, keep):
            path.unlink(missing_ok=True)


def _target(temporary: Path) -> str | None:
    """Return the name of the file that ``temporary`` was to become; None for a file of another origin."""
    found = _TEMPORARY.fullmatch(temporary.name)
    return found["target"] if found else None


def _is_stale(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def require_writable(path: Path) -> None:
    """Check that ``path`` can be written, its folder made if there is none: before the work whose result it is.

    Nothing is left behind.

    Raises:
        OSError: it cannot; the error names ``path``.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def expanded(path: str | Path) -> Path:
    """Return ``path`` with the home folder in place of a leading ``~``.

    Raises:
        InputError: there is no such user, or the present one has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: there is no such home folder; give the whole path") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step.

    A byte of a path that is not UTF-8 is written as ``\\udcXX``: in JSON, that is the escape that reads back as it.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def to_json(value: Any) -> str:  # noqa: ANN401 -- whatever json can hold
    """Return ``value`` as JSON for people: indented, in the given order, NaN refused."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 -- whatever json can hold
    """Write ``value`` to ``path`` as JSON in one step."""
    write_text(path, to_json(value))
