"""The table of export formats, and those of plug-ins.

Importing it loads neither torch nor a runtime nor a format's library.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cars_hw.errors import InputError
from cars_hw.export.format import ExportFormat
from cars_hw.export.onnx import ONNX
from cars_hw.export.tflite import TFLITE
from cars_hw.plugins import load_plugin, plugin_names

GROUP: Final = "cars_hw.formats"
"""The group of the entry points of packages with formats of their own."""

FORMATS: Final[dict[str, ExportFormat]] = {one.name: one for one in (ONNX, TFLITE)}
"""Every format of cars-hw by its name. A new one is a module like :mod:`cars_hw.export.onnx` and an entry here."""


def format_names() -> list[str]:
    """Return the names of all formats: those of cars-hw, and those of installed plug-ins."""
    return [*FORMATS, *(name for name in plugin_names(GROUP) if name not in FORMATS)]


def export_format(name: str) -> ExportFormat:
    """Return the format called ``name``.

    Raises:
        InputError: there is none; the message lists those that there are.
    """
    if name in FORMATS:
        return FORMATS[name]
    if name not in plugin_names(GROUP):
        raise InputError(f"unknown format '{name}'; known: {', '.join(format_names())}")
    return _plugin_format(name)


def _plugin_format(name: str) -> ExportFormat:
    """Return the format ``name`` of another package.

    Raises:
        InputError: it cannot be imported, is no format, has another name, or the files of a format of cars-hw.
    """
    found = load_plugin(GROUP, name)
    if not isinstance(found, ExportFormat):
        raise InputError(f"the format {name} is a {type(found).__name__}, not a cars_hw.ExportFormat")
    # Model cards and devices know a format by its own name.
    if found.name != name:
        raise InputError(f"the format {name} calls itself {found.name}")
    if any(found.suffix == one.suffix for one in FORMATS.values()):
        raise InputError(f"files of the format {name} end in {found.suffix}, as those of cars-hw")
    return found


def export_formats(names: Iterable[str]) -> tuple[ExportFormat, ...]:
    """Return the formats called ``names``, each once.

    Raises:
        InputError: one is unknown, or there is no name.
    """
    found = tuple(export_format(name) for name in dict.fromkeys(names))
    if not found:
        raise InputError(f"no format is named; known: {', '.join(format_names())}")
    return found


def format_of_file(model: Path) -> ExportFormat:
    """Return the format of the file ``model``, by the end of its name.

    Raises:
        InputError: no format's files end so; the message lists the known ends.
    """
    found = dict(FORMATS)
    for name in plugin_names(GROUP):
        if model.suffix in (one.suffix for one in found.values()):
            break
        # A package that cannot be used must not stand in the way of the files of others.
        with suppress(InputError):
            found.setdefault(name, export_format(name))
    for one in found.values():
        if model.suffix == one.suffix:
            return one
    known = ", ".join(one.suffix for one in found.values())
    raise InputError(f"{model} is no model file of a known format; known: {known}")
