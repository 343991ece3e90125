"""What worker processes do in tests; they import this module."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from cars_hw.errors import InputError
from cars_hw.progress import Log, Progress


def write(path: Path, progress: Progress, log: Log) -> None:
    """Write a file, and tell what the main module of this process is."""
    progress(path.name, 1, 1)
    print("on standard output")
    path.write_text("done")
    log(f"{path.name} {Path(sys.modules['__main__'].__file__ or '').name}")


def fail(task: str, progress: Progress, log: Log) -> None:
    """Fail, be killed, or write a file after a while."""
    if task == "fail":
        raise InputError("it failed", remedy="zoo")
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "unpicklable":
        raise OddError(1, 2)
    time.sleep(1)
    Path(task).write_text("done")


class OddError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
