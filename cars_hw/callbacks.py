"""Callbacks: what follows a search, a training or a profile, such as the live view or a tracker of experiments.

The base classes do nothing, so that a callback defines only the methods that it needs. A :class:`Tracker` takes
scalars, artefacts and figures; :mod:`cars_hw.tracking` has callbacks that hand it those of each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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

    def close(self) -> None:
        """Called last by ``cars-hw search``, also after an error: close files."""


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

    def on_saved(self, files: Sequence[Path]) -> None:
        """Called once when the weights and their record are on disk, with their files.

        Only by :func:`~cars_hw.pipeline.train.train_run`: a network that is trained without a run has no files.
        """

    def close(self) -> None:
        """Called last, also after an error, by :func:`~cars_hw.pipeline.train.train_run`: close files."""


class ProfileCallback:
    """Follows the profile of one device. A table is a :class:`~cars_hw.latency.LatencyTable`."""

    def on_start(self, device: str, conditions: Mapping[str, Any]) -> None:
        """Called once before the first measurement, with the name and the conditions of the device."""

    def on_operations(self, table: Any) -> None:  # noqa: ANN401 -- this module imports no other
        """Called once when the operations are measured, with the table so far; it has no predictor yet."""

    def on_end(self, table: Any, path: Path | None) -> None:  # noqa: ANN401 -- this module imports no other
        """Called once with the finished table, when it is on disk at ``path``; None if it is not written."""

    def close(self) -> None:
        """Called last, also after an error, by :func:`~cars_hw.latency.side_by_side.profile_all`: close files."""


class Tracker:
    """Keeps what a step of a run comes to: its settings, scalars, artefacts and figures.

    A step may report a scalar again with the same value after it was killed. Methods may raise anything: the step
    goes on without the tracker.
    """

    def settings(self, values: Mapping[str, str | float | bool | None]) -> None:
        """Keep the settings of the step, by name."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values`` by name at ``step``: a generation or an epoch; 0 for what belongs to none."""

    def artefact(self, path: Path) -> None:
        """Keep the file at ``path``, such as a table, a model or a report."""

    def figure(self, name: str, path: Path, step: int) -> None:
        """Keep a picture, the PNG file at ``path``, under ``name`` at ``step``. The file is temporary."""

    def close(self) -> None:
        """Called last, also after an error: write what is left, close files."""
