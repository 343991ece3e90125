"""A lock that one process holds at a time, and that ends with the process, however it ends."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cars_hw.errors import RunError

_LOG: Final = logging.getLogger(__name__)

UNSUPPORTED: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without locks answers."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; it is removed afterwards. Errors call it ``what``.

    On a file system without locks nothing is held, which the log tells.

    Raises:
        RunError: another process holds it.
    """
    handle = _acquire(path, what)
    try:
        yield
    finally:
        if handle is not None:
            # Removed while it is held: who waits for this file finds that it has gone, and makes a new one.
            path.unlink(missing_ok=True)
            _release(handle)


def _acquire(path: Path, what: str) -> int | None:
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 100).decode("ascii", "replace").strip()
            os.close(handle)
            by = f" (process {holder})" if holder.isdecimal() else ""
            raise RunError(f"another cars-hw{by} writes to {what}; wait until it has finished") from error
        except OSError as error:
            os.close(handle)
            if error.errno not in UNSUPPORTED:
                raise
            _LOG.warning("%s: the file system has no locks", path)
            return None
        if _is_at(handle, path):
            # On a full disk the file stays empty, and holds as well.
            with suppress(OSError):
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            return handle
        # The holder before removed the file between opening and locking it.
        os.close(handle)


def _release(handle: int) -> None:
    import fcntl

    # A process that was forked meanwhile has the handle as well, and closing it here would not end the lock.
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
