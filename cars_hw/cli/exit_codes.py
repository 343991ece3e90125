"""What the exit codes of ``cars-hw`` mean, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from cars_hw.errors import BudgetError


class ExitCode(IntEnum):
    """The exit codes of every command."""

    SUCCESS = 0
    ERROR = 1
    USAGE = 2
    MISSED = 3
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.SUCCESS: "success",
    ExitCode.ERROR: "the command failed; one line on standard error says why",
    ExitCode.USAGE: "a usage error: an option, an argument or a command that does not exist or has a wrong value",
    ExitCode.MISSED: "a latency budget is missed or impossible; with --strict also an unreliable measurement",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C",
}


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code of a command that ended with ``error``, which is one that a user can cause."""
    return ExitCode.MISSED if isinstance(error, BudgetError) else ExitCode.ERROR
