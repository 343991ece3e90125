"""A search on disk: one file that is whole or not there, read without running anything that it holds."""

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
        # JSON keeps floats to the last bit, and integers of any length, which the random state has.
        "search": json.dumps(search.state(), allow_nan=False),
        "weights": search.weights.state(),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def restore(search: Search, source: Path | bytes) -> None:
    """Bring ``search`` and its weights to the state in ``source``, a file or what is in one.

    Raises:
        RunError: the file cannot be read, or is of another schema.
    """
    content = _read(source)
    search.restore(json.loads(content["search"]))
    search.weights.restore(content["weights"])


def supernet_weights(path: Path) -> dict[str, Any]:
    """Return the SuperNet's weights out of the checkpoint in ``path``.

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
