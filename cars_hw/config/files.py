"""Files that are never half-written: everything goes to a temporary name and is renamed."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_LOG: Final = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private to its owner; a result is for whoever may read the folder.
        temporary.chmod(0o644)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _LOG.debug("wrote %s", path)
    finally:
        temporary.unlink(missing_ok=True)


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
