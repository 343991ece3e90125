"""Errors of a device that say what a model is: its file has gone when somebody reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cars_hw.errors import DeviceError


@contextmanager
def naming(names: Mapping[Path, str]) -> Iterator[None]:
    """Let errors of a device have the ``names`` of models in the place of their paths."""
    try:
        yield
    except DeviceError as error:
        text = str(error)
        for path, name in names.items():
            text = text.replace(str(path), name)
        raise type(error)(text, remedy=error.remedy, **error.about) from error
