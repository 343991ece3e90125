"""How work reports its progress and its messages: the two kinds of function that every long task accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of its steps that are done, and the number of all its steps."""

Log = Callable[[str], None]
"""Called with a message for people: one line, without its line break."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore a progress report; the default :data:`Progress`."""


def no_log(line: str) -> None:
    """Ignore a message; the default :data:`Log`."""


def as_stage(progress: Progress, stage: str) -> Progress:
    """Return a :data:`Progress` that reports every stage to ``progress`` under the name ``stage``."""
    return lambda _stage, done, total: progress(stage, done, total)


def prefixed(progress: Progress, prefix: str) -> Progress:
    """Return a :data:`Progress` that puts ``prefix`` and a colon before the name of every stage."""
    return lambda stage, done, total: progress(f"{prefix}: {stage}", done, total)


def prefixed_log(log: Log, prefix: str) -> Log:
    """Return a :data:`Log` that puts ``prefix`` and a colon before every message."""
    return lambda line: log(f"{prefix}: {line}")


def once(log: Log) -> Log:
    """Return a :data:`Log` that passes every message to ``log`` the first time only."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            log(line)

    return say


def counted(items: Sequence[Item], progress: Progress, stage: str) -> Iterator[Item]:
    """Yield ``items``, and report before each of them and after the last how many are done."""
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        yield item
    progress(stage, len(items), len(items))
