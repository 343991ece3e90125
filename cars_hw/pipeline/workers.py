"""Parallel work in several processes, which report their progress."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import connection
from multiprocessing.managers import SyncManager
from typing import Any, Final, TypeVar

import torch

from cars_hw.progress import Log, Progress
from cars_hw.training.memory import keep_freed_memory

Task = TypeVar("Task")

SECONDS_BETWEEN_MESSAGES: Final = 0.2
"""The time between progress messages of a worker: a message costs as much as a step of a small network."""


def default_jobs(device: str, tasks: int) -> int:
    """Return the default number of ``tasks`` that run in parallel: one for each core, and one on a GPU."""
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, tasks))


def side_by_side(
    work: Callable[[Task, Progress, Log], None], tasks: Sequence[Task], jobs: int, progress: Progress, log: Log
) -> None:
    """Do ``work`` for each of ``tasks`` in ``jobs`` processes, each with its share of torch's threads.

    ``work`` is a function of a module, and tasks can be pickled. An exception of ``work`` is raised here, and
    cancels the tasks that have not started.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    # The thread pools of a forked torch may hang, so the workers are new processes.
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(_end_with_parent)
    with manager:
        messages: Any = manager.Queue()
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
            futures = [pool.submit(_in_worker, work, task, threads, messages) for task in tasks]
            try:
                _listen(futures, messages, progress, log)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _listen(futures: Sequence[Future[None]], messages: Any, progress: Progress, log: Log) -> None:  # noqa: ANN401 -- a proxy
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=0.2)
        while True:
            try:
                message = messages.get_nowait()
            except queue.Empty:
                break
            if isinstance(message, str):
                log(message)
            else:
                progress(*message)
        for future in finished:
            future.result()


def _end_with_parent() -> None:
    """End this process as soon as its parent process has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_end() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _in_worker(
    work: Callable[[Task, Progress, Log], None],
    task: Task,
    threads: int,
    messages: Any,  # noqa: ANN401 -- a proxy
) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    sent = -SECONDS_BETWEEN_MESSAGES

    def progress(name: str, done: int, total: int) -> None:
        nonlocal sent
        now = time.monotonic()
        if done == total or now - sent >= SECONDS_BETWEEN_MESSAGES:
            sent = now
            messages.put((name, done, total))

    work(task, progress, messages.put)
