"""The checkpoint of a search: one file with a checksum, written in one step and read without executing code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import torch

from cars_hw.config.checksummed import ChecksummedBytes
from cars_hw.config.codec import parse_json
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.search import Search

CHECKPOINT: Final = ChecksummedBytes("cars-hw search checkpoint", 3)

AGAIN: Final = "restore it from a copy, or start the search anew in another folder"


def save(search: Search, path: Path) -> None:
    """Write the state of ``search`` and of its weights to ``path`` in one step."""
    CHECKPOINT.write(path, packed(search))


def packed(search: Search) -> bytes:
    """Return the state of ``search`` and of its weights as bytes, which :func:`restore` takes."""
    state = {
        # JSON keeps every bit of a float and integers of any length, which the random state needs.
        "search": json.dumps(search.state(), allow_nan=False),
        "weights": search.weights.state(),
    }
    # Into memory first: torch reports a full disk as an error of its own.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def content(path: Path) -> bytes:
    """Return the state in the file ``path`` as bytes, which :func:`restore` takes, after its checksum was verified.

    Raises:
        RunError: the file cannot be read, is damaged, or is of another schema.
    """
    try:
        return CHECKPOINT.read(path)
    except OSError as error:
        raise RunError(f"cannot read the checkpoint {path}: {error.strerror}; {AGAIN}") from error
    except InputError as error:
        raise RunError(f"cannot use the checkpoint {path}: {error}; {AGAIN}") from error


def restore(search: Search, source: Path | bytes) -> None:
    """Restore ``search`` and its weights from ``source``, a checkpoint file or its :func:`content`.

    Raises:
        RunError: the file cannot be read, is damaged, or is of another schema.
    """
    state = _state(source)
    try:
        known = parse_json(state["search"])
    except ValueError as error:
        raise RunError(f"cannot use the checkpoint: its state is not JSON: {error}; {AGAIN}") from error
    search.restore(known)
    search.weights.restore(state["weights"])


def supernet_weights(source: Path | bytes) -> dict[str, Any]:
    """Return the SuperNet's weights from ``source``, a checkpoint file or its :func:`content`: those that evaluate
    architectures.

    Raises:
        RunError: the file cannot be read, is damaged, is of another schema, or is of a search without shared
            weights.
    """
    state = _state(source)["weights"]
    # Of an averaged SuperNet, the average evaluates.
    weights: dict[str, Any] | None = state.get("evaluated", state.get("supernet"))
    if weights is None:
        name = f"the checkpoint {source}" if isinstance(source, Path) else "the checkpoint"
        raise RunError(f"{name} is of a search without shared weights")
    return weights


def _state(source: Path | bytes) -> dict[str, Any]:
    known = content(source) if isinstance(source, Path) else source
    state: dict[str, Any] = torch.load(io.BytesIO(known), map_location="cpu", weights_only=True)
    return state
