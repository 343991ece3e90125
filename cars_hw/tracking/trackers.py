"""Trackers by name: ``mlflow``, or with a place behind it, ``mlflow:/data/mlflow``."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from cars_hw.callbacks import Tracker
from cars_hw.errors import InputError
from cars_hw.plugins import called, load_plugin, plugin_names, said

_LOG: Final = logging.getLogger(__name__)

GROUP: Final = "cars_hw.trackers"
"""The group of the entry points of packages with trackers of their own."""

SEARCH: Final = "search"
"""The name of a search among the steps of its run."""

_OWN: Final = {
    "tensorboard": (("tensorboard",), "cars_hw.tracking.tensorboard_tracker", "TensorBoardTracker"),
    "mlflow": (("mlflow", "sqlalchemy"), "cars_hw.tracking.mlflow_tracker", "MlflowTracker"),
    "wandb": (("wandb",), "cars_hw.tracking.wandb_tracker", "WandbTracker"),
}
"""The packages that a tracker needs, and the module and the class of it."""

OWN_TRACKERS: Final = {
    "tensorboard": "event files of TensorBoard",
    "mlflow": "runs of MLflow, in a file or on a server",
    "wandb": "runs of Weights & Biases, offline",
}
"""The trackers of cars-hw, in a few words each."""


@dataclass(frozen=True)
class Step:
    """What is tracked: a step of a run, such as ``search`` or the training of ``net-01``.

    Attributes:
        home: the folder of the run, or of what belongs to a table; its name is that of the experiment.
        name: the name of the step.
        where: what the user wrote behind the name of the tracker, nothing by default.
        fresh: whether the step begins. Otherwise it goes on, and what was kept before stays.
    """

    home: Path
    name: str
    where: str
    fresh: bool


def tracker_names() -> list[str]:
    """Return the names of all trackers: those of cars-hw, and those of installed plug-ins."""
    return [*_OWN, *(name for name in plugin_names(GROUP) if name not in _OWN)]


def require_trackers(texts: Sequence[str]) -> None:
    """Check that ``texts`` name trackers whose packages are installed.

    Raises:
        InputError: one does not, or a package is not installed.
    """
    for text in texts:
        name = text.partition(":")[0]
        if name not in tracker_names():
            raise InputError(f"unknown tracker '{name}'; use one of: {', '.join(tracker_names())}")
        if name in _OWN:
            _require_packages(name)


def check_tracker(name: str) -> None:
    """Check that the tracker ``name`` can be opened.

    Raises:
        InputError: a package that it needs is not installed, or what a package has there cannot be imported or
            called.
    """
    if name in _OWN:
        _require_packages(name)
        return
    make = load_plugin(GROUP, name)
    if not callable(make):
        raise InputError(f"the tracker {name} is a {type(make).__name__}, not a function or a class")


def _require_packages(name: str) -> None:
    for package in _OWN[name][0]:
        if find_spec(package) is None:
            raise InputError(
                f"the tracker {name} needs the package {package}, which is not installed; install it: "
                f"pip install 'cars-hw[{name}]'"
            )


def open_trackers(texts: Sequence[str], home: Path, name: str, *, fresh: bool) -> Trackers:
    """Return the trackers that ``texts`` name, for the step ``name`` of ``home``; one that fails is left out."""
    return Trackers({text: _opener(text, home, name, fresh=fresh) for text in texts})


def _opener(text: str, home: Path, name: str, *, fresh: bool) -> Callable[[], Tracker]:
    kind, _, where = text.partition(":")
    step = Step(home.absolute(), name, where, fresh)

    def open_one() -> Tracker:
        if kind in _OWN:
            _, module, cls = _OWN[kind]
            made: Tracker = getattr(import_module(module), cls)(step)
            return made
        make = load_plugin(GROUP, kind)
        found: Tracker = called(f"the tracker {kind}", lambda: make(step))
        return found

    return open_one


class Trackers(Tracker):
    """Hands everything to several trackers, each opened when it is first needed.

    A tracker that raises an error is left out from then on, which the log tells: no training ends because of it.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Tracker]]) -> None:
        self._openers = dict(openers)
        self._open: dict[str, Tracker] = {}

    def settings(self, values: Mapping[str, str | float | bool | None]) -> None:
        """Keep the settings of the step."""
        self._each(lambda tracker: tracker.settings(values))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values`` at ``step``."""
        self._each(lambda tracker: tracker.scalars(step, values))

    def artefact(self, path: Path) -> None:
        """Keep the file at ``path``."""
        self._each(lambda tracker: tracker.artefact(path))

    def figure(self, name: str, path: Path, step: int) -> None:
        """Keep the picture at ``path``."""
        self._each(lambda tracker: tracker.figure(name, path, step))

    def close(self) -> None:
        """Close those that are open."""
        self._openers = {name: self._openers[name] for name in self._open}
        self._each(lambda tracker: tracker.close())
        self._openers, self._open = {}, {}

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, opener in list(self._openers.items()):
            try:
                if name not in self._open:
                    self._open[name] = opener()
                call(self._open[name])
            # Each package has errors of its own, those of the network and of a full disk among them.
            except Exception as error:  # noqa: BLE001
                _LOG.warning("nothing more is tracked with %s: %s", name, said(error))
                del self._openers[name]
                self._open.pop(name, None)


def place_of(step: Step, name: str) -> Path:
    """Return the folder of the tracker ``name`` for ``step``: the one that the user named, or one in the run."""
    return Path(step.where).expanduser().absolute() if step.where else step.home / name


def identity_of(step: Step) -> str:
    """Return what tells ``step`` from all others in a store that several runs share: 12 hexadecimal digits.

    Folders of runs may have the same name, so the whole path counts.
    """
    return _digest(f"{step.home}\n{step.name}", 12)


def folder_name_of(step: Step) -> str:
    """Return a name for the run of ``step`` in a folder that several runs share: its own, and a digest."""
    return f"{step.home.name}-{_digest(str(step.home), 8)}"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]


def copy_in(path: Path, folder: Path) -> None:
    """Copy the file at ``path`` into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / path.name)


def unless_set(**values: str) -> None:
    """Set environment variables that the user has not set: packages read them when they are imported."""
    for name, value in values.items():
        os.environ.setdefault(name, value)
