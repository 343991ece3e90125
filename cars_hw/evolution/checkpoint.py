"""The checkpoint of a search: one file, written in one step and read without executing code from it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cars_hw.config.files import replacing
from cars_hw.errors import RunError
from cars_hw.evolution.search import Search

SCHEMA = 1


def save(search: Search, path: Path) -> None:
    """Write the state of ``search`` and of its weights to ``path`` in one step."""
    content = {
        "schema": SCHEMA,
        # JSON keeps every bit of a float and integers of any length, which the random state needs.
        "search": json.dumps(search.state(), allow_nan=False),
        "weights": search.weights.state(),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def restore(search: Search, source: Path | bytes) -> None:
    """Restore ``search`` and its weights from ``source``, a checkpoint file or its content.

    Raises:
        RunError: the file cannot be read, or is of another schema.
    """
    content = _read(source)
    search.restore(json.loads(content["search"]))
    search.weights.restore(content["weights"])


def supernet_weights(path: Path) -> dict[str, Any]:
    """Return the SuperNet's weights from the checkpoint in ``path``.

    Raises:
        RunError: the file cannot be read, or is of another schema.
    """
    weights: dict[str, Any] = _read(path)["weights"]["supernet"]
    return weights


def _read(source: Path | bytes) -> dict[str, Any]:
    path = source if isinstance(source, Path) else "of another process"
    try:
        file = source if isinstance(source, Path) else io.BytesIO(source)
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        schema = content["schema"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
        raise RunError(f"cannot read the checkpoint {path}; start the search anew in another folder") from error
    if schema != SCHEMA:
        raise RunError(f"the checkpoint {path} has schema {schema}; this version reads {SCHEMA}")
    return content
