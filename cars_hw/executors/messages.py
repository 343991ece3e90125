"""What caller and workers tell each other by files of a folder that both see.

Each task has a file of lines in JSON: its progress and its messages. The caller writes ``beat`` anew every few
seconds. A worker whose caller is silent for long, or whose folder was removed, ends its task.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

from cars_hw.progress import Log, Progress

BEAT: Final = "beat"

BEAT_SECONDS: Final = 5.0

PATIENCE_SECONDS: Final = 300.0
"""The silence of a caller after which it is taken for gone. Clocks of machines differ: only changes count."""


class Beat:
    """The caller's sign of life."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / BEAT
        self._number = 0
        self._next = 0.0
        self.keep()

    def keep(self) -> None:
        """Write the file if it is time to; call it often."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + BEAT_SECONDS
            self._number += 1
            self._path.write_text(str(self._number))


class Caller:
    """The caller, as a worker sees it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / BEAT
        self._seen = ""
        self._since = time.monotonic()

    def is_gone(self) -> bool:
        """Whether the caller has ended, or has been silent for too long."""
        try:
            seen = self._path.read_text()
        except OSError:
            return True
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since > PATIENCE_SECONDS


def messages_path(folder: Path, number: int) -> Path:
    """Return the file of the messages of the task with this ``number``."""
    return folder / f"{number}.jsonl"


def tell(path: Path, message: tuple[object, ...]) -> None:
    """Add ``message`` to the file at ``path``."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


class Messages:
    """The messages of a task, as the caller reads them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    @property
    def begun(self) -> bool:
        """Whether a worker has begun the task."""
        return self._path.exists()

    def pass_on(self, progress: Progress, log: Log) -> None:
        """Report what is new; a line that is not complete yet waits for the next time."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._read)
                content = stream.read()
        except FileNotFoundError:
            return
        complete = content[: content.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            kind, *rest = json.loads(line)
            if kind == "progress":
                progress(*rest)
            elif kind == "log":
                log(*rest)
