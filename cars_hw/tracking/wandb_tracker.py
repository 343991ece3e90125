"""Weights & Biases as a tracker, offline: ``wandb sync`` sends a folder if the user wants it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cars_hw.callbacks import Tracker
from cars_hw.tracking.trackers import Step, identity_of, place_of, unless_set

FOLDER: Final = "wandb"


class WandbTracker(Tracker):
    """An offline run for each step, in a project with the name of the cars-hw run.

    A step that goes on after an interruption has a further folder with the same identifier, so that both become
    one run when they are sent.
    """

    def __init__(self, step: Step) -> None:
        folder = place_of(step, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        unless_set(
            WANDB_ERROR_REPORTING="false",
            WANDB_DATA_DIR=str(folder),
            WANDB_CACHE_DIR=str(folder / "cache"),
            WANDB_CONFIG_DIR=str(folder / "config"),
        )
        import wandb

        self._wandb: Any = wandb
        self._name = step.name
        self._run: Any = wandb.init(
            mode="offline",
            project=step.home.name,
            name=step.name,
            id=identity_of(step),
            dir=str(folder),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )

    def settings(self, values: Mapping[str, str | float | bool | None]) -> None:
        """Keep the settings as the run's configuration."""
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values``; what is told again for an earlier step is left out by Weights & Biases."""
        self._run.log(dict(values), step=step)

    def artefact(self, path: Path) -> None:
        """Copy the file to the run as an artefact."""
        name = "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in path.name)
        artefact = self._wandb.Artifact(name, type="file")
        artefact.add_file(str(path))
        self._run.log_artifact(artefact)

    def figure(self, name: str, path: Path, step: int) -> None:
        """Copy the picture to the run."""
        self._run.log({name: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()
