"""What an engine is: the narrow seam to Dask, Ray, submitit, or an engine of another package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from cars_hw.config.execution import LOCAL, Execution
from cars_hw.errors import InputError
from cars_hw.plugins import called, load_plugin, plugin_names

GROUP: Final = "cars_hw.executors"
"""The group of the entry points of packages with engines of their own."""

_OWN: Final = {
    "dask": ("distributed", "cars_hw.executors.dask_engine", "open_dask"),
    "ray": ("ray", "cars_hw.executors.ray_engine", "open_ray"),
    "submitit": ("submitit", "cars_hw.executors.submitit_engine", "open_submitit"),
}
"""The package that an engine needs, and the module and function that open it."""

OWN_ENGINES: Final = {
    LOCAL: "processes of this machine",
    "dask": "workers of a Dask cluster, or of this machine",
    "ray": "workers of a Ray cluster, or of this machine",
    "submitit": "jobs of SLURM",
}
"""The executors of cars-hw, in a few words each."""


class Call(NamedTuple):
    """A task on its way to a worker, as plain data.

    Attributes:
        content: the pickled function of a module and its task.
        folder: the folder for messages, which this machine and the worker's share.
        number: the number of the task, from 0.
        threads: the number of torch's threads.
        cwd: the folder in which the task runs; relative paths of the task begin there.
        paths: where modules of the caller are found.
        version: the caller's version of cars-hw.
        needs: what only some workers have, such as a phone: a resource of the engine with this name; or nothing.
    """

    content: bytes
    folder: str
    number: int
    threads: int
    cwd: str
    paths: tuple[str, ...]
    version: str
    needs: str = ""


class Outcome(NamedTuple):
    """How a task ended.

    ``kind`` is ``done``, ``failed`` (the task raised ``error``; ``text`` is its traceback), or ``lost`` (the
    process was killed, which ``text`` says; the task may be begun again).
    """

    kind: str
    error: Exception | None = None
    text: str = ""


class Pending(Protocol):
    """A call that was handed to an engine."""

    def done(self) -> bool:
        """Whether it has ended, in whichever way."""

    def result(self) -> Outcome:
        """Return what :func:`cars_hw.executors.agent.perform` returned; raises whatever if the worker was lost."""

    def cancel(self) -> Any:  # noqa: ANN401 -- engines return what they like
        """Give it up, as far as the engine can."""


class Engine(Protocol):
    """Hands calls to workers."""

    def submit(self, call: Call) -> Pending:
        """Let a worker do ``perform(call)``, now or when one is free."""

    def close(self) -> None:
        """End what this process started, and give up what still waits."""


@dataclass(frozen=True)
class Room:
    """What an engine is opened with.

    Attributes:
        where: what follows the name: an address or a file, or nothing.
        workers: how many tasks run at the same time on this machine.
        threads: threads of each task.
        gpu: whether each task needs a GPU.
        folder: an empty folder for files of the engine; it is removed in the end.
    """

    where: str
    workers: int
    threads: int
    gpu: bool
    folder: Path


def engine_names() -> list[str]:
    """Return the names of all executors: those of cars-hw, and those of installed plug-ins."""
    return [*OWN_ENGINES, *(name for name in plugin_names(GROUP) if name not in OWN_ENGINES)]


def check_engine(name: str) -> None:
    """Check that the executor ``name`` can be opened.

    Raises:
        InputError: its package is not installed, or what the package has there cannot be imported or called.
    """
    if name in _OWN:
        _imported(name)
    elif name != LOCAL:
        make = load_plugin(GROUP, name)
        if not callable(make):
            raise InputError(f"the executor {name} is a {type(make).__name__}, not a function or a class")


def require_engine(execution: Execution) -> None:
    """Check that ``execution`` names an executor, and that its package is installed.

    Raises:
        InputError: it does not, or the package is not installed.
    """
    name = execution.engine
    if name not in engine_names():
        raise InputError(f"unknown executor '{name}'; use one of: {', '.join(engine_names())}")
    if name == LOCAL and execution.where:
        raise InputError(f"the executor '{LOCAL}' has no address: leave '{execution.where}' out")
    if name in _OWN:
        _imported(name)


def open_engine(execution: Execution, room: Room) -> Engine:
    """Return the engine that ``execution`` names.

    Raises:
        InputError: there is none, its package is not installed, or it cannot be reached.
    """
    name = execution.engine
    if name in _OWN:
        _imported(name)
        _, module, function = _OWN[name]
        opener: Callable[[Room], Engine] = getattr(import_module(module), function)
        return opener(room)
    make = load_plugin(GROUP, name)
    engine: Engine = called(f"the executor {name}", lambda: make(room))
    missing = [one for one in ("submit", "close") if not hasattr(engine, one)]
    if missing:
        raise InputError(f"the plug-in {name} is no executor: it has no {', '.join(missing)}")
    return engine


def _imported(name: str) -> None:
    package = _OWN[name][0]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(
            f"the executor {name} needs the package {package}, which is not installed; install it: "
            f"pip install 'cars-hw[{name}]'"
        ) from error
