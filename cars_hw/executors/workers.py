"""Parallel work in several processes, which report their progress."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, TypeVar

import torch

from cars_hw.child_processes import python_command, python_environment
from cars_hw.errors import InputError, RunError
from cars_hw.progress import Log, Progress

Task = TypeVar("Task")

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def default_jobs(device: str, tasks: int) -> int:
    """Return the default number of ``tasks`` that run in parallel: one for each core of a CPU, or one for each GPU.

    A device with a number, such as ``cuda:1``, is that GPU alone.
    """
    if device != "cpu":
        return max(1, min(torch.cuda.device_count(), tasks)) if device == "cuda" else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, tasks))


def share_of_threads(jobs: int) -> int:
    """Return the share of torch's threads that each of ``jobs`` processes has."""
    return max(1, torch.get_num_threads() // jobs)


def side_by_side(
    work: Callable[[Task, Progress, Log], None],
    tasks: Sequence[Task],
    jobs: int,
    progress: Progress,
    log: Log,
    *,
    one_card: bool = True,
    retries: int = 0,
) -> None:
    """Do ``work`` for each of ``tasks`` in ``jobs`` processes, each with its share of torch's threads.

    Of several GPUs, each process sees one, in turn, which is its ``cuda``. Tasks on ``cuda:1`` and the like need
    all of them: then ``one_card`` is False.

    The processes do not import the script that calls this, so it needs no ``if __name__ == "__main__":``. ``work``
    is a function of a module, and tasks can be pickled. An exception of ``work`` is raised here, after the tasks
    that had started; the others are not done. A task whose process was killed is begun again, ``retries`` times at
    most.

    Raises:
        InputError: ``work`` or a task needs something that only the script has, or that cannot be sent.
        RunError: a process ended in the midst of a task, and the task may not be begun again.
    """
    waiting = [_Queued(pickled(work, task)) for task in tasks]
    threads = share_of_threads(jobs)
    cards = _cards(torch.cuda.device_count()) if one_card else []
    with _workers(min(jobs, len(waiting)), threads, cards) as workers:
        idle, busy = list(workers), dict[connection.Connection, tuple[Worker, _Queued]]()
        failure: BaseException | None = None
        while busy or (waiting and failure is None):
            while idle and waiting and failure is None:
                worker, task = idle.pop(), waiting.pop(0)
                worker.start(task.content)
                busy[worker.connection] = worker, task
            for ready in connection.wait(list(busy)):
                worker, task = busy[ready]  # type: ignore[index]  # what is waited for are these connections
                try:
                    message = worker.receive()
                except RunError as error:
                    task.attempts += 1
                    if task.attempts > retries or failure is not None:
                        raise
                    log(f"{error}: the task begins again, attempt {task.attempts + 1} of {retries + 1}")
                    del busy[worker.connection]
                    workers.remove(worker)
                    worker.end()
                    workers.append(Worker(threads, worker.card))
                    idle.append(workers[-1])
                    waiting.insert(0, task)
                    continue
                if message[0] == "progress":
                    progress(*message[1:])
                elif message[0] == "log":
                    log(message[1])
                else:
                    del busy[worker.connection]
                    idle.append(worker)
                    if message[0] == "failed" and failure is None:
                        failure = message[1]
                        failure.__cause__ = InWorkerError(f"\n{message[2]}")
        if failure is not None:
            raise failure


def _cards(count: int) -> list[str]:
    """Return the names of ``count`` GPUs as an environment names them; none if there are not several."""
    if count < 2:
        return []
    visible = os.environ.get(_VISIBLE)
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


@dataclass
class _Queued:
    """A pickled task, and how often its process was killed."""

    content: bytes
    attempts: int = 0


class InWorkerError(Exception):
    """The traceback of an exception in a worker, as text."""


class Worker:
    """A process that does one task after the other.

    It sees the GPU ``card`` only, if one is given. It runs in the folder ``cwd``, by default in that of this
    process, and finds modules in ``paths``, too.
    """

    def __init__(
        self, threads: int, card: str | None = None, *, cwd: str | None = None, paths: Sequence[str] = ()
    ) -> None:
        self.card = card
        self.connection, other = Pipe()
        environment = python_environment(paths)
        if card is not None:
            environment[_VISIBLE] = card
        with other:
            command = [*python_command("cars_hw.executors.worker_process"), str(other.fileno()), str(threads)]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                cwd=cwd,
                env=environment,
            )

    def start(self, content: bytes) -> None:
        """Begin the task in ``content``; a process that has ended is noticed by :meth:`receive`."""
        with suppress(OSError):
            self.connection.send_bytes(content)

    def receive(self) -> tuple[Any, ...]:
        """Return the next message.

        Raises:
            RunError: the process has ended.
        """
        try:
            received: tuple[Any, ...] = self.connection.recv()
        except (EOFError, OSError) as error:
            code = self.process.wait()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            raise RunError(
                f"a worker process {how} in the midst of its task; fewer jobs need less memory"
            ) from error
        return received

    def end(self) -> None:
        """Kill the process if it runs."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def _workers(count: int, threads: int, cards: Sequence[str]) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for number in range(count):
            workers.append(Worker(threads, cards[number % len(cards)] if cards else None))
        yield workers
    finally:
        for worker in workers:
            worker.end()


class _Pickler(ForkingPickler):
    """Refuses functions and classes of the script: another process cannot import them."""

    def reducer_override(self, value: Any) -> Any:  # noqa: ANN401 -- as pickle has it
        if isinstance(value, type | types.FunctionType) and value.__module__ == "__main__":
            raise InputError(
                f"{value.__qualname__} is defined in the script that runs, which other processes cannot import; "
                "define it in a module, or use jobs=1"
            )
        return NotImplemented


def pickled(work: Callable[..., None], task: object) -> bytes:
    """Return ``work`` and ``task`` as another process can read them.

    Raises:
        InputError: something in them is known to the script only, or cannot be sent.
    """
    content = io.BytesIO()
    try:
        _Pickler(content).dump((work, task))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"something that the jobs need cannot be sent to other processes ({error}); define it in a module, "
            "or use jobs=1"
        ) from error
    return content.getvalue()
