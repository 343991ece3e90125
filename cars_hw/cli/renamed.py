"""Commands and options that have another name now: the old name is a usage error that names the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

RENAMED_COMMANDS: Final[Mapping[str, str]] = {
    "run": "classify",
}
"""From old to new names."""

RENAMED_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "baselines": {"--against separate": "--against standalone"},
    "experiment tables": {"--table": "--paper-table"},
    "train": {"--precision": "--training-precision"},
    "validate": {"--random": "--sample"},
}
"""By command (``experiment front`` for one of a group), from old to new options, or an option with its value."""


def renamed_option(command: str, arguments: Sequence[str]) -> str | None:
    """Return what to write instead of an old option of ``command`` among ``arguments``; None without one."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    given = " ".join(["", *words, ""])
    for old, new in RENAMED_OPTIONS.get(command, {}).items():
        if f" {old} " in given:
            return f"'{old}' is now '{new}'"
    return None
