"""How many processes do the work, and how Python processes are started that see the modules of this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cars_hw.errors import InputError

_RENDEZVOUS: Final = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets beside ``WORLD_SIZE``, and without which its processes do not find each other."""


def python_command(module: str) -> list[str]:
    """Return the command of a new process that runs ``module``; start it with :func:`python_environment`."""
    # -P: the folder that the process starts in has no modules for it, unless it has some for this process.
    return [sys.executable, "-P", "-m", module]


def python_environment(further: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment in which a new process finds modules where this one does, and in ``further`` folders.

    A script that extended ``sys.path``, such as by a source tree that was not installed, has its workers find the
    same modules.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 -- an empty one is where we are
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([*folders, *further]))}


def launched() -> int:
    """Return the number of processes that torchrun has started; 1 without torchrun.

    Raises:
        InputError: ``WORLD_SIZE`` says that there are several, and the rest of what torchrun sets is missing.
    """
    size = os.environ.get("WORLD_SIZE", "")
    # Templates of job scripts set it to nothing, or to a word.
    world = max(1, int(size)) if size.isdecimal() else 1
    missing = [name for name in _RENDEZVOUS if not os.environ.get(name)]
    if world > 1 and missing:
        raise InputError(
            f"WORLD_SIZE is {world}, as for one of {world} processes, but {missing[0]} is not set: unset "
            "WORLD_SIZE, or start the processes with torchrun"
        )
    return world
