"""Callbacks: what follows a search or a training, such as the live view or TensorBoard.

Both base classes do nothing, so that a callback defines only the methods that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class EpochFigures(NamedTuple):
    """The figures of one epoch of a training.

    Attributes:
        epoch: its number, from 1.
        loss: the mean over its steps.
        learning_rate: that of its last step.
        held_out_accuracy: a fraction of the held-out images; None where no images are held out.
    """

    epoch: int
    loss: float
    learning_rate: float
    held_out_accuracy: float | None


class SearchCallback:
    """Follows a search. A record is one generation as ``history.jsonl`` has it."""

    def on_note(self, text: str) -> None:
        """Called once the images are loaded, with one line: see ``notes`` of :class:`cars_hw.DataBundle`."""

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Called once, before the search resumes, with the records of the generations that are finished."""

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Called after every generation, when its record and the checkpoint are on disk."""

    def on_final_stage(self, text: str) -> None:
        """Called when the final stage begins and after each of its rungs, with one line for people."""

    def on_time(self, text: str) -> None:
        """Called when the search is slower than the estimate that its length was chosen by, with one line."""

    def on_end(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Called once with all records when the front is on disk, also if it was there before."""


class TrainingCallback:
    """Follows the training of one network."""

    def on_start(self, epochs_done: int) -> None:
        """Called once before the first step; ``epochs_done`` is 0, or more if a training resumes."""

    def on_epoch(self, figures: EpochFigures) -> None:
        """Called after every epoch, before its checkpoint is written.

        After a kill between the two the epoch is trained again, and this is called again with the same figures.
        """

    def on_end(self, best_epoch: int, accuracy: float) -> None:
        """Called once with the epoch of the final weights and their accuracy, a fraction of the test images."""

    def close(self) -> None:
        """Called last, also after an error, by :func:`~cars_hw.pipeline.train.train_run`: close files."""
