"""The table of export formats. Importing it loads neither torch nor a runtime nor a format's library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cars_hw.errors import InputError
from cars_hw.export.format import ExportFormat
from cars_hw.export.onnx import ONNX
from cars_hw.export.tflite import TFLITE

FORMATS: Final[dict[str, ExportFormat]] = {one.name: one for one in (ONNX, TFLITE)}
"""Every format by its name. A new format is a module like :mod:`cars_hw.export.onnx` and an entry here."""


def export_format(name: str) -> ExportFormat:
    """Return the format called ``name``.

    Raises:
        InputError: there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise InputError(f"unknown format '{name}'; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def export_formats(names: Iterable[str]) -> tuple[ExportFormat, ...]:
    """Return the formats called ``names``, each once.

    Raises:
        InputError: one is unknown, or there is no name.
    """
    found = tuple(export_format(name) for name in dict.fromkeys(names))
    if not found:
        raise InputError(f"no format is named; known: {', '.join(FORMATS)}")
    return found


def format_of_file(model: Path) -> ExportFormat:
    """Return the format of the file ``model``, by the end of its name.

    Raises:
        InputError: no format's files end so; the message lists the known ends.
    """
    for one in FORMATS.values():
        if model.suffix == one.suffix:
            return one
    known = ", ".join(one.suffix for one in FORMATS.values())
    raise InputError(f"{model} is no model file of a known format; known: {known}")
