"""The seam: tasks are spread over processes of this machine, or over the workers of an engine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Final, TypeVar

from cars_hw.config.execution import HERE, LOCAL, Execution
from cars_hw.errors import CarsHwError, RunError
from cars_hw.executors.engine import Call, Engine, Outcome, Pending, Room, open_engine, require_engine
from cars_hw.executors.messages import Beat, Messages, messages_path
from cars_hw.executors.workers import InWorkerError, default_jobs, pickled, share_of_threads, side_by_side
from cars_hw.plugins import said
from cars_hw.progress import Log, Progress
from cars_hw.version import own_version

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Work = Callable[[Task, Progress, Log], None]

PREFIX: Final = ".executor-"
"""How the names of the folders for messages begin."""

POLL_SECONDS: Final = 0.1

IDLE_SECONDS: Final = 60.0
"""How long no worker is at a task until the log says so."""


@dataclass(frozen=True)
class Spread:
    """How tasks are spread.

    Attributes:
        folder: the folder of the results, which all machines share. No other process may spread tasks there.
        device: ``cpu``, ``cuda`` or one GPU such as ``cuda:1``: what every task computes on.
        jobs: how many tasks run at the same time; None: one for each core, or one for each GPU. A cluster that is
            not on this machine gets all tasks at once.
        execution: the executor.
    """

    folder: Path
    device: str
    jobs: int | None = None
    execution: Execution = HERE

    def __post_init__(self) -> None:
        require_engine(self.execution)

    def side(self, tasks: int) -> int:
        """Return how many of ``tasks`` run at the same time on this machine, or at most on another."""
        return self.jobs or default_jobs(self.device, tasks)

    def here(self, tasks: int) -> bool:
        """Whether ``tasks`` need no process besides this one."""
        return self.execution.engine == LOCAL and self.side(tasks) == 1


def spread(
    work: Work[Task],
    tasks: Sequence[Task],
    how: Spread,
    progress: Progress,
    log: Log,
    *,
    of: int | None = None,
    needs: Sequence[str] = (),
    costs: Sequence[float] = (),
) -> None:
    """Do ``work`` for each of ``tasks``, as ``how`` says. ``of`` is the number of all tasks, if some are done.

    ``needs`` has a resource for each task that only some workers of the engine have, see :class:`Call`. ``costs``
    has the cost of each task, in any unit. With it, tasks that run side by side begin with the most expensive one,
    so that no long task is left alone at the end (the rule of the longest processing time, Graham, 1969).

    ``work`` is a function of a module, and tasks are plain data that can be pickled. Results are files. A task
    whose worker was killed is begun again, as often as ``how`` allows. An exception of ``work`` is raised here,
    after the tasks that had started; the others are not done.

    Raises:
        InputError: ``work`` or a task cannot be sent, or the engine is unknown, not installed or out of reach.
        RunError: the worker of a task was killed too often.
    """
    if not tasks:
        return
    side = how.side(of or len(tasks))
    if how.here(of or len(tasks)):
        for task in tasks:
            work(task, progress, log)
        return
    if costs:
        order = sorted(range(len(tasks)), key=lambda number: -costs[number])
        tasks = [tasks[number] for number in order]
        needs = [needs[number] for number in order] if needs else ()
    if how.execution.engine == LOCAL:
        one_card = how.device == "cuda"
        side_by_side(work, tasks, side, progress, log, one_card=one_card, retries=how.execution.retries)
    else:
        _Spreading(work, tasks, how, side, progress, log, needs).run()


@dataclass
class _Running:
    """A task at an engine, for the ``attempt``-th time."""

    pending: Pending
    messages: Messages


@dataclass
class _Spreading:
    """The tasks of one call of :func:`spread` and an engine."""

    work: Callable[..., None]
    tasks: Sequence[object]
    how: Spread
    side: int
    progress: Progress
    log: Log
    needs: Sequence[str] = ()
    attempts: dict[int, int] = field(default_factory=dict)
    running: dict[int, _Running] = field(default_factory=dict)
    failure: BaseException | None = None
    idle_since: float | None = None

    def run(self) -> None:
        waiting = list(range(len(self.tasks)))
        execution = self.how.execution
        threads = execution.threads or share_of_threads(self.side)
        contents = [pickled(self.work, task) for task in self.tasks]
        # A cluster has a queue of its own.
        limit = len(waiting) if execution.elsewhere and self.how.jobs is None else self.side
        with _messages_folder(self.how.folder) as folder:
            beat = Beat(folder)
            room = Room(execution.where, min(self.side, len(waiting)), threads, self.how.device != "cpu", folder)
            with _opened(execution, room, self.log) as engine:
                self.idle_since = monotonic()
                while self.running or (waiting and self.failure is None):
                    while waiting and self.failure is None and len(self.running) < limit:
                        number = waiting.pop(0)
                        self._submit(engine, folder, number, contents[number], threads)
                    sleep(POLL_SECONDS)
                    beat.keep()
                    self._tell_idle(threads)
                    waiting[:0] = self._ended()
        if self.failure is not None:
            raise self.failure

    def _submit(self, engine: Engine, folder: Path, number: int, content: bytes, threads: int) -> None:
        self.attempts[number] = self.attempts.get(number, 0) + 1
        # Messages of an earlier attempt were passed on.
        path = messages_path(folder, number)
        path.unlink(missing_ok=True)
        paths = tuple(os.path.abspath(one) for one in sys.path)  # noqa: PTH100 -- an empty one is where we are
        needs = self.needs[number] if self.needs else ""
        call = Call(content, str(folder), number, threads, str(Path.cwd()), paths, own_version(), needs)
        self.running[number] = _Running(self._reached(lambda: engine.submit(call)), Messages(path))

    def _reached(self, ask: Callable[[], Answer]) -> Answer:
        """Return what ``ask`` returns; each engine has errors of its own for a scheduler that has died."""
        try:
            return ask()
        except CarsHwError:
            raise
        except Exception as error:
            raise RunError(
                f"{self.how.execution.executor} takes no more tasks ({said(error)}); repeat the command when it "
                "runs again: finished work is kept"
            ) from error

    def _tell_idle(self, threads: int) -> None:
        """Say once if no worker has been at a task for long: there may be none that has what a task needs."""
        if self.idle_since is None:
            return
        now = monotonic()
        if any(one.messages.begun for one in self.running.values()):
            self.idle_since = now
        elif now - self.idle_since > IDLE_SECONDS:
            self.idle_since = None
            resources = sorted({self.needs[number] for number in self.running if self.needs and self.needs[number]})
            needed = [
                f"{threads} {'thread' if threads == 1 else 'threads'}",
                *(["a GPU"] if self.how.device != "cpu" else []),
                *([f"the resource {' or '.join(resources)}"] if resources else []),
            ]
            self.log(
                f"no worker of {self.how.execution.executor} has begun a task for {IDLE_SECONDS:g} seconds: each "
                f"task needs a worker with {' and '.join(needed)}; see threads in [execution]"
            )

    def _ended(self) -> list[int]:
        """Pass on messages, take note of the tasks that have ended, and return those to begin again."""
        again = []
        for number, one in list(self.running.items()):
            # Asked before: what was told until then is there.
            done = self._reached(one.pending.done)
            one.messages.pass_on(self.progress, self.log)
            if not done:
                continue
            del self.running[number]
            outcome = _outcome(one.pending)
            if outcome.kind == "lost" and self.failure is None and self._may_try_again(number, outcome):
                again.append(number)
            elif outcome.kind == "lost":
                self._fail(RunError(outcome.text))
            elif outcome.error is not None:
                outcome.error.__cause__ = InWorkerError(f"\n{outcome.text}")
                self._fail(outcome.error)
        return again

    def _may_try_again(self, number: int, outcome: Outcome) -> bool:
        attempts, most = self.attempts[number], 1 + self.how.execution.retries
        if attempts >= most:
            return False
        self.log(f"{outcome.text}: the task begins again, attempt {attempts + 1} of {most}")
        return True

    def _fail(self, error: BaseException) -> None:
        """Keep the first ``error``, and give up the tasks that no worker has begun."""
        if self.failure is not None:
            return
        self.failure = error
        for number, one in list(self.running.items()):
            if not one.messages.begun:
                # What cannot be cancelled ends when its folder of messages is gone.
                with suppress(Exception):
                    one.pending.cancel()
                del self.running[number]


def _outcome(pending: Pending) -> Outcome:
    try:
        return Outcome(*pending.result())
    # Each engine has exceptions of its own for a worker that was killed.
    except Exception as error:  # noqa: BLE001
        return Outcome("lost", text=f"a worker was lost ({said(error)})")


@contextmanager
def _opened(execution: Execution, room: Room, log: Log) -> Iterator[Engine]:
    engine = open_engine(execution, room)
    try:
        yield engine
    finally:
        try:
            engine.close()
        # Nothing is lost: results are files. An error that ends the tasks must not be hidden by this one.
        except Exception as error:  # noqa: BLE001
            log(f"{execution.executor} was not closed: {said(error)}")


@contextmanager
def _messages_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in ``parent``; those of callers that were killed are removed, which ends their workers."""
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{PREFIX}*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).absolute()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
