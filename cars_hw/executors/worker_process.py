"""What runs in a worker process of :mod:`cars_hw.executors.workers`.

It is started as a module of its own. So it never imports the script that started it, which would begin its work
anew unless it guards it with ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

from cars_hw.progress import Log, Progress

Work = Callable[[Any, Progress, Log], None]

SECONDS_BETWEEN_MESSAGES: Final = 0.2
"""The time between progress messages of a worker: a message costs as much as a step of a small network."""


def serve(connection: Connection, threads: int) -> None:
    """Do what comes over ``connection``, pairs of a function and its task, until it is closed.

    Messages go back: ``("progress", stage, done, total)``, ``("log", line)``, and at the end of each task
    ``("done",)`` or ``("failed", exception, traceback)``.
    """
    # Ctrl-C reaches all processes of a terminal; the one that started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    prepared = False
    while True:
        content = received.get()
        try:
            work, task = ForkingPickler.loads(content)
            if not prepared:
                _prepare(threads)
                prepared = True
            work(task, _progress(connection), lambda line: connection.send(("log", line)))
        # Whatever ends a task is told to the process that waits for it.
        except Exception as error:  # noqa: BLE001
            connection.send(("failed", _sendable(error), traceback.format_exc()))
        else:
            connection.send(("done",))


def _receive(connection: Connection, received: queue.SimpleQueue[bytes]) -> None:
    """Pass on what arrives, and end this process as soon as the one that started it has ended."""
    while True:
        try:
            received.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)


def _prepare(threads: int) -> None:
    import torch

    from cars_hw.training.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()


def _progress(connection: Connection) -> Progress:
    sent = -SECONDS_BETWEEN_MESSAGES

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal sent
        now = time.monotonic()
        if done == total or now - sent >= SECONDS_BETWEEN_MESSAGES:
            sent = now
            connection.send(("progress", stage, done, total))

    return progress


def _sendable(error: Exception) -> Exception:
    """Return ``error``, or its text in an error that can be sent if it cannot."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    # Pickling calls the methods of the error.
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main(arguments: list[str]) -> None:
    """Serve the connection whose file descriptor and number of threads are ``arguments``."""
    descriptor, threads = map(int, arguments)
    # What a task prints is no result of the command that the workers work for.
    sys.stdout.flush()
    os.dup2(2, 1)
    # As in the command: see cars_hw.cli.main.
    warnings.filterwarnings("ignore", module="PIL")
    serve(Connection(descriptor), threads)


if __name__ == "__main__":
    main(sys.argv[1:])
