"""TensorBoard as a tracker. Its files hold scalars and pictures; of an artefact they hold the path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cars_hw.callbacks import Tracker
from cars_hw.pipeline.tensorboard import FOLDER, Events, remove_events
from cars_hw.tracking.trackers import SEARCH, Step, folder_name_of, place_of


class TensorBoardTracker(Tracker):
    """Writes events to ``RUN/tensorboard``, those of a training to a folder of its own in it.

    With a place, there is a folder for each run in it: runs whose folders have the same name are told apart. A step
    that begins removes what an earlier one of the same name wrote.
    """

    def __init__(self, step: Step) -> None:
        base = place_of(step, FOLDER) / (folder_name_of(step) if step.where else "")
        folder = base if step.name == SEARCH else base / step.name
        if step.fresh:
            remove_events(folder)
        self._events = Events(folder)

    def settings(self, values: Mapping[str, str | float | bool | None]) -> None:
        """Write a table of the settings as text."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self._events.write_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write ``values``, each once for a step."""
        self._events.write(step, values)

    def artefact(self, path: Path) -> None:
        """Write the path of the file."""
        self._events.write_text(f"files/{path.name}", f"`{path.absolute()}`")

    def figure(self, name: str, path: Path, step: int) -> None:
        """Write the picture."""
        self._events.write_picture(step, name, path)

    def close(self) -> None:
        """Close the file of the events."""
        self._events.close()
