"""What runs on the worker of an engine: one task, in a process of its own.

The process is the one of local work, so that a task sees the same threads and the same folder, and ends with the
same result, wherever it runs. It ends with the engine's worker, however that ends.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final

from cars_hw.errors import InputError, RunError
from cars_hw.executors.engine import Call, Outcome
from cars_hw.executors.messages import Caller, messages_path, tell
from cars_hw.executors.workers import Worker
from cars_hw.version import own_version

POLL_SECONDS: Final = 1.0


def perform(call: Call) -> Outcome:
    """Do the task of ``call`` and return how it ended; what it reports goes to its file of messages."""
    call = Call(*call)
    problem = _problem(call)
    if problem is not None:
        return Outcome("failed", InputError(problem))
    path = messages_path(Path(call.folder), call.number)
    tell(path, ("begun", socket.gethostname()))
    worker = Worker(call.threads, cwd=call.cwd, paths=call.paths)
    try:
        return _follow(worker, call, path)
    except RunError as error:
        return Outcome("lost", text=str(error))
    finally:
        worker.end()


def _follow(worker: Worker, call: Call, path: Path) -> Outcome:
    """Pass on the messages of ``worker`` until it has ended, or the caller has.

    Raises:
        RunError: the process was killed.
    """
    caller, asked = Caller(Path(call.folder)), time.monotonic()
    worker.start(call.content)
    while True:
        if worker.connection.poll(POLL_SECONDS):
            message = worker.receive()
            if message[0] == "done":
                return Outcome("done")
            if message[0] == "failed":
                return Outcome("failed", message[1], message[2])
            tell(path, message)
        if time.monotonic() - asked >= POLL_SECONDS:
            asked = time.monotonic()
            if caller.is_gone():
                return Outcome("lost", text=f"a worker on {socket.gethostname()} heard no more of its caller")


def _problem(call: Call) -> str | None:
    """Return why this machine cannot do ``call``; None if it can."""
    host = socket.gethostname()
    if call.version != own_version():
        return (
            f"the worker on {host} has cars-hw {own_version()}, and this is {call.version}: install the same there"
        )
    for folder in (call.folder, call.cwd):
        if not Path(folder).is_dir():
            return f"the worker on {host} sees no folder {folder}: all machines must share it"
    return None
