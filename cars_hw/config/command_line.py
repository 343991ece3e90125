"""The command line that a step was given by, for the run that keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_GIVEN: Final[ContextVar[tuple[str, ...] | None]] = ContextVar("command_line", default=None)


@contextmanager
def command_line(arguments: Sequence[str] | None) -> Iterator[None]:
    """Within the block, :func:`given_command_line` returns ``arguments``, which follow the program's name."""
    token = _GIVEN.set(None if arguments is None else tuple(arguments))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given_command_line() -> tuple[str, ...] | None:
    """Return the arguments of the command that runs now, None where a step is called from Python."""
    return _GIVEN.get()
