"""Checkpoints of a training. A file is written in one step, and read without executing code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cars_hw.config.files import replacing
from cars_hw.errors import RunError
from cars_hw.progress import Log

SCHEMA = 1


class TrainingCheckpoint:
    """The checkpoint of one training at ``path``.

    ``about`` identifies the training: all settings that decide its final weights, in plain values. ``log`` gets a
    message that the training resumes, or that it starts again.
    """

    def __init__(self, path: Path, about: Mapping[str, str | float | bool | None], log: Log) -> None:
        self.path = path
        self.about = dict(about)
        self._log = log

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` in one step."""
        with replacing(self.path) as temporary:
            torch.save({"schema": SCHEMA, "about": self.about, "state": state}, temporary)

    def load(self) -> dict[str, Any] | None:
        """Return the state, its tensors on the CPU; None without a checkpoint, or if it is of another training.

        Raises:
            RunError: the file cannot be read, or is of another schema.
        """
        if not self.path.exists():
            return None
        again = "remove it to train from the beginning"
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            schema, about, state = content["schema"], content["about"], content["state"]
            epoch = int(state["epoch"])
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
            raise RunError(f"cannot read the checkpoint {self.path}; {again}") from error
        if schema != SCHEMA:
            raise RunError(f"the checkpoint {self.path} has schema {schema}, this version reads {SCHEMA}; {again}")
        for name in sorted({*about, *self.about}):
            if about.get(name) != self.about.get(name):
                self._log(
                    f"{self.path} is of a training with {name} = {about.get(name)}, not {self.about.get(name)}: "
                    "training starts from the beginning"
                )
                return None
        self._log(f"resumes after epoch {epoch}")
        kept: dict[str, Any] = state
        return kept

    def remove(self) -> None:
        """Remove the checkpoint, and its temporary files if the process was killed during a write."""
        self.path.unlink(missing_ok=True)
        for leftover in self.path.parent.glob(f".{self.path.name}.*"):
            leftover.unlink(missing_ok=True)


def to_bytes(state: dict[str, Any]) -> bytes:
    """Return ``state`` as bytes for another process, which :func:`from_bytes` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the state in ``data``, its tensors on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
