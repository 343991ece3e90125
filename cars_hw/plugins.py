"""Plug-ins: objects of other packages, which these name as entry points."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, Final, TypeVar

from cars_hw.errors import CarsHwError, InputError

Of = TypeVar("Of")

IMPORTABLE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""The name of an object that can be imported: ``package.module:name``."""


@contextmanager
def with_current_folder() -> Iterator[None]:
    """Let Python look for modules in the current folder, too, after all other places."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def plugin_names(group: str) -> list[str]:
    """Return the names of the plug-ins of ``group``, such as ``cars_hw.costs``; none of them is imported."""
    return sorted({point.name for point in _points(group)})


def plugin_value(group: str, name: str) -> str | None:
    """Return how to import the plug-in ``name`` of ``group``, ``package.module:name``; None if there is none.

    Raises:
        InputError: several packages have one of this name.
    """
    # The same package can be found in two folders of the path.
    found = {point.value for point in _points(group).select(name=name)}
    if len(found) > 1:
        raise InputError(f"several packages have a plug-in '{name}' for {group}: {', '.join(sorted(found))}")
    return next(iter(found), None)


def _points(group: str) -> EntryPoints:
    """Return the entry points of ``group`` of all installed packages."""
    return _points_of(group, tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache(maxsize=64)
def _points_of(group: str, _folders: tuple[tuple[str, int | None], ...]) -> EntryPoints:
    # Python reads a file of each installed package for that, and a command asks several times. Who installs or
    # removes a package changes the folder that it is in.
    return entry_points(group=group)


def _changed(folder: str) -> int | None:
    """Return when something was added to ``folder`` or removed from it; None if there is no such folder."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return None


def load_plugin(group: str, name: str) -> Any:  # noqa: ANN401 -- whatever the package has there
    """Return the plug-in ``name`` of ``group``, or the object that ``name`` says how to import.

    Modules of the current folder are found, too.

    Raises:
        InputError: there is none, several packages have one of this name, or it cannot be imported.
    """
    value = name if IMPORTABLE.fullmatch(name) else plugin_value(group, name)
    if value is None:
        raise InputError(f"there is no plug-in '{name}' for {group}")
    return _loaded(EntryPoint(name, value, group))


def called(name: str, call: Callable[[], Of], error: type[CarsHwError] = InputError) -> Of:
    """Return what ``call`` returns, which runs code of the plug-in ``name``; its exceptions become an ``error``.

    Modules of the current folder are found, too.

    Raises:
        CarsHwError: ``call`` raised it, or ``error`` in place of any other exception.
    """
    try:
        with with_current_folder():
            return call()
    except CarsHwError:
        raise
    # Other people's code may raise whatever it likes.
    except Exception as raised:
        raise error(f"{name} failed: {said(raised)}") from raised


def said(error: Exception) -> str:
    """Return the type of ``error`` and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _loaded(point: EntryPoint) -> Any:  # noqa: ANN401 -- whatever the package has there
    try:
        with with_current_folder():
            value: Any = import_module(point.module)
        for attribute in point.attr.split("."):
            value = getattr(value, attribute)
    # Other people's code may raise whatever it likes.
    except Exception as error:
        raise InputError(f"the plug-in {point.value} cannot be imported: {said(error)}") from error
    return value
