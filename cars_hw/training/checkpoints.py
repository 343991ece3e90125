"""Checkpoints of a training. A file has a checksum, is written in one step, and is read without executing code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from cars_hw.config.checksummed import ChecksummedBytes
from cars_hw.errors import InputError, RunError
from cars_hw.progress import Log

CHECKPOINT: Final = ChecksummedBytes("cars-hw training checkpoint", 2)


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
        # Into memory first: torch reports a full disk as an error of its own.
        CHECKPOINT.write(self.path, to_bytes({"about": self.about, "state": state}))

    def load(self) -> dict[str, Any] | None:
        """Return the state, its tensors on the CPU; None without a checkpoint, or if it is of another training.

        Raises:
            RunError: the file cannot be read, is damaged, or is of another schema.
        """
        if not self.path.exists():
            return None
        again = "remove it to train from the beginning"
        try:
            content = from_bytes(CHECKPOINT.read(self.path))
        except OSError as error:
            raise RunError(f"cannot read the checkpoint {self.path}: {error.strerror}; {again}") from error
        except InputError as error:
            raise RunError(f"cannot use the checkpoint {self.path}: {error}; {again}") from error
        about, state = content["about"], content["state"]
        for name in sorted({*about, *self.about}):
            if about.get(name) != self.about.get(name):
                self._log(
                    f"{self.path} is of a training with {name} = {about.get(name)}, not {self.about.get(name)}: "
                    "training starts from the beginning"
                )
                return None
        self._log(f"resumes after epoch {state['epoch']}")
        kept: dict[str, Any] = state
        return kept

    def remove(self) -> None:
        """Remove the checkpoint."""
        self.path.unlink(missing_ok=True)


def to_bytes(state: dict[str, Any]) -> bytes:
    """Return ``state`` as bytes for another process, which :func:`from_bytes` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the state in ``data``, its tensors on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
