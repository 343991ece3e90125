"""Figures of searches and trainings for TensorBoard, by the writer that comes with torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from cars_hw.callbacks import EpochFigures, SearchCallback, TrainingCallback
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import CostObjective

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER: Final = "tensorboard"
"""The folder of the events in a run. A trained network has a folder of its own in it."""

FILES: Final = "events.out.tfevents.*"


def require_tensorboard() -> None:
    """Check that events can be written.

    Raises:
        InputError: the package tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise InputError(
            "writing figures for TensorBoard needs the package tensorboard, which is not installed; install it: "
            "pip install 'cars-hw[tensorboard]'"
        )


class Events:
    """The events of one folder. Each pair of name and step is written once, also over several processes.

    The file is created with the first new figure, so that a second writer with nothing new leaves no file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[tuple[str, int]] | None = None
        self._writer: SummaryWriter | None = None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write those of ``figures`` that the folder does not have at ``step``, and flush them to the disk."""
        for name, value in figures.items():
            writer = self._writer_of_new(name, step)
            if writer is not None:
                writer.add_scalar(name, value, step)
        self._flush()

    def write_text(self, name: str, text: str) -> None:
        """Write ``text``, in Markdown, unless the folder has one of this name."""
        # The writer adds to the name.
        writer = self._writer_of_new(f"{name}/text_summary", 0)
        if writer is not None:
            writer.add_text(name, text, 0)
        self._flush()

    def write_picture(self, step: int, name: str, path: Path) -> None:
        """Write the picture at ``path``, unless the folder has it at ``step``."""
        writer = self._writer_of_new(name, step)
        if writer is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as picture:
                writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self._flush()

    def _writer_of_new(self, name: str, step: int) -> SummaryWriter | None:
        """Return what writes ``name`` at ``step``; None if the folder has it."""
        if self._known is None:
            self._known = {(known, at) for known, at, _ in read_events(self._folder)}
        if (name, step) in self._known:
            return None
        self._known.add((name, step))
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        return self._writer

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class SearchEvents(SearchCallback):
    """Writes the figures of every generation of a search to ``folder``, by generation."""

    def __init__(self, folder: Path, objectives: Sequence[CostObjective]) -> None:
        self._events = Events(folder)
        self._objectives = objectives

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write what an earlier process did not write."""
        for record in history:
            self.on_generation(record)

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Write the figures of a generation."""
        self._events.write(record["generation"], generation_figures(record, self._objectives))

    def on_end(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write what is missing of a search that had ended before its events were wanted."""
        self.on_resume(history)

    def close(self) -> None:
        """Close the file of the events."""
        self._events.close()


class TrainingEvents(TrainingCallback):
    """Writes the figures of a training to the folder of the network ``name`` in ``run``, by epoch."""

    def __init__(self, run: Path, name: str) -> None:
        self._events = Events(run / FOLDER / name)

    def on_epoch(self, figures: EpochFigures) -> None:
        """Write the figures of an epoch."""
        scalars = {"loss": figures.loss, "learning rate": figures.learning_rate}
        if figures.held_out_accuracy is not None:
            scalars["accuracy/held out"] = figures.held_out_accuracy
        self._events.write(figures.epoch, scalars)

    def on_end(self, best_epoch: int, accuracy: float) -> None:
        """Write the accuracy on the test images at the epoch of the final weights."""
        self._events.write(best_epoch, {"accuracy/test": accuracy})

    def close(self) -> None:
        """Close the file of the events."""
        self._events.close()


def generation_figures(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> dict[str, float]:
    """Return the figures of one generation of a run's history; costs are those of its population."""
    # Without shared training, there is no loss.
    figures = {
        **({} if record["loss"] is None else {"loss": record["loss"]}),
        "accuracy/best": record["best_accuracy"],
        "hypervolume": record["hypervolume"],
    }
    for index, one in enumerate(objectives):
        costs = [member["costs"][index] for member in record["population"]]
        for name, value in (("least", min(costs)), ("median", median(costs)), ("most", max(costs))):
            figures[f"{one.name} ({one.unit})/{name}"] = value
    return figures


def remove_events(folder: Path) -> None:
    """Remove the events in ``folder``: an earlier step wrote them, such as a training with other settings."""
    for path in folder.glob(FILES):
        path.unlink()


def read_events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield name, step and value of each scalar in ``folder``. A record that a kill truncated ends its file."""
    for path in sorted(folder.glob(FILES)):
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value
