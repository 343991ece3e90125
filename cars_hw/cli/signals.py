"""What SIGTERM and SIGHUP do to a command that measures: it ends as by an exception, and devices are released."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def ends_in_order(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return ``command``, during which SIGTERM and SIGHUP raise SystemExit, so that devices are released.

    A signal that is ignored, as under nohup, or that has a handler stays as it is. A second signal ends the process
    at once. The exit code is 128 plus the number of the signal, as in a shell.
    """

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        owner = os.getpid()

        def end(number: int, _frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_DFL)
            if os.getpid() != owner:
                # A process that was forked meanwhile has no device to release.
                os.kill(os.getpid(), number)
            sys.exit(128 + number)

        replaced = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
        for number in replaced:
            signal.signal(number, end)
        try:
            return command(*args, **kwargs)
        finally:
            for number in replaced:
                signal.signal(number, signal.SIG_DFL)

    return run
