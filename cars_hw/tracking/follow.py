"""Callbacks that hand a tracker what a search, a training or a profile comes to."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from cars_hw.callbacks import EpochFigures, ProfileCallback, SearchCallback, Tracker, TrainingCallback
from cars_hw.evolution.objectives import CostObjective
from cars_hw.pipeline.tensorboard import generation_figures
from cars_hw.plugins import said
from cars_hw.tracking.trackers import SEARCH, open_trackers

if TYPE_CHECKING:
    from cars_hw.latency import LatencyTable

_LOG: Final = logging.getLogger(__name__)

SEARCH_FILES: Final = ("config.toml", "history.jsonl", "final.json", "front.json")
"""What a search leaves for a tracker."""

Opener = Callable[[bool], Tracker]
"""Opens a tracker for a step that begins (True) or goes on."""

Settings = Mapping[str, str | float | bool | None]


class TrackedSearch(SearchCallback):
    """Tracks a search: figures of each generation, and at the end the front as a picture and the run's files."""

    def __init__(self, opener: Opener, run: Path, objectives: Sequence[CostObjective], settings: Settings) -> None:
        self._opener, self._run, self._objectives, self._settings = opener, run, objectives, settings
        self._tracker: Tracker | None = None

    def on_resume(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Track what an earlier process did not."""
        tracker = self._opened(fresh=False)
        for record in history:
            tracker.scalars(record["generation"], generation_figures(record, self._objectives))

    def on_generation(self, record: Mapping[str, Any]) -> None:
        """Track the figures of a generation."""
        self._opened(fresh=True).scalars(record["generation"], generation_figures(record, self._objectives))

    def on_end(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Track what is missing, the front and the files."""
        self.on_resume(history)
        tracker = self._opened(fresh=False)
        members = history[-1]["population"]
        cost = self._objectives[0]
        points = [(member["costs"][0], 100 * member["accuracy"]) for member in members]
        generation = history[-1]["generation"]

        def draw(path: Path) -> None:
            from cars_hw.report.plot_file import write_points

            title = f"generation {generation}"
            write_points(path, points, f"{cost.name} ({cost.unit})", "accuracy in the search, %", title)

        _track_picture(tracker, "population", generation, draw)
        for name in SEARCH_FILES:
            if (self._run / name).is_file():
                tracker.artefact(self._run / name)

    def close(self) -> None:
        """Close the tracker."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None

    def _opened(self, *, fresh: bool) -> Tracker:
        if self._tracker is None:
            self._tracker = self._opener(fresh)
            self._tracker.settings(self._settings)
        return self._tracker


class TrackedTraining(TrainingCallback):
    """Tracks the training of a network: figures of each epoch, the test accuracy, and the files of the network."""

    def __init__(self, opener: Opener, settings: Settings) -> None:
        self._opener, self._settings = opener, settings
        self._tracker = Tracker()

    def on_start(self, epochs_done: int) -> None:
        """Open the tracker."""
        self._tracker = self._opener(not epochs_done)
        self._tracker.settings(self._settings)

    def on_epoch(self, figures: EpochFigures) -> None:
        """Track the figures of an epoch."""
        scalars = {"loss": figures.loss, "learning rate": figures.learning_rate}
        if figures.held_out_accuracy is not None:
            scalars["accuracy/held out"] = figures.held_out_accuracy
        self._tracker.scalars(figures.epoch, scalars)

    def on_end(self, best_epoch: int, accuracy: float) -> None:
        """Track the accuracy on the test images at the epoch of the final weights."""
        self._tracker.scalars(best_epoch, {"accuracy/test": accuracy})

    def on_saved(self, files: Sequence[Path]) -> None:
        """Track the weights and their record."""
        for path in files:
            self._tracker.artefact(path)

    def close(self) -> None:
        """Close the tracker."""
        self._tracker.close()


class TrackedProfile(ProfileCallback):
    """Tracks the profile of a device: figures of the table, predicted beside measured latencies, and the table."""

    def __init__(self, opener: Callable[[str], Tracker]) -> None:
        self._opener = opener
        self._tracker = Tracker()

    def on_start(self, device: str, conditions: Mapping[str, Any]) -> None:
        """Open the tracker, and track the conditions."""
        self._tracker = self._opener(device)
        self._tracker.settings({"device": device, **{name: _plain(value) for name, value in conditions.items()}})

    def on_operations(self, table: LatencyTable) -> None:
        """Track the latencies of the operations."""
        latencies = [one.ms for one in table.entries.values()]
        self._tracker.scalars(0, {"operations": float(len(latencies)), "operations/median (ms)": median(latencies)})

    def on_end(self, table: LatencyTable, path: Path | None) -> None:
        """Track figures, a picture, and the table."""
        from cars_hw.latency import Predictor

        measured = [network.measured.ms for network in table.calibration]
        figures = {
            "networks/fastest (ms)": min(measured),
            "networks/slowest (ms)": max(measured),
            "noise": table.noise,
            "quiet share": table.machine.quiet_share,
        }
        if table.predictor is not None:
            figures |= {f"left-out error/{name}": value for name, value in table.predictor.left_out_error.items()}
        self._tracker.scalars(0, figures)
        predictor = Predictor(table)
        predicted = [predictor.at(one.network).predict(one.genotype).ms for one in table.calibrated]

        def draw(picture: Path) -> None:
            from cars_hw.report.plot_file import write_scatter

            points = list(zip(measured, predicted, strict=True))
            title = f"{len(points)} networks on {table.device}, which the predictor was fitted to"
            write_scatter(picture, points, "measured latency, ms", "predicted latency, ms", title)

        _track_picture(self._tracker, "prediction", 0, draw)
        if path is not None:
            self._tracker.artefact(path)

    def close(self) -> None:
        """Close the tracker."""
        self._tracker.close()


def tracked_search(
    run: Path, trackers: Sequence[str], objectives: Sequence[CostObjective], settings: Settings
) -> TrackedSearch:
    """Return what tracks the search in the folder ``run``."""
    return TrackedSearch(lambda fresh: open_trackers(trackers, run, SEARCH, fresh=fresh), run, objectives, settings)


def tracked_training(home: Path, trackers: Sequence[str], settings: Settings, name: str) -> TrackedTraining:
    """Return what tracks the training of the network ``name`` of the run ``home``."""
    return TrackedTraining(lambda fresh: open_trackers(trackers, home, name, fresh=fresh), settings)


def tracked_profile(trackers: Sequence[str], table: Path) -> TrackedProfile:
    """Return what tracks the profile whose result is ``table``; its files are in a folder beside it."""
    home = table.with_name(f"{table.stem}-tracked")
    return TrackedProfile(lambda device: open_trackers(trackers, home, f"profile {device}", fresh=True))


def _plain(value: Any) -> str | float | bool | None:  # noqa: ANN401 -- JSON's own types
    return value if value is None or isinstance(value, str | float | bool | int) else str(value)


def _track_picture(tracker: Tracker, name: str, step: int, draw: Callable[[Path], None]) -> None:
    """Hand ``tracker`` the picture that ``draw`` writes; none without matplotlib, which the extra ``plot`` brings.

    A picture that cannot be drawn is a warning: the step whose figures it shows is done.
    """
    if find_spec("matplotlib") is None:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            path = Path(folder) / f"{name}.png"
            draw(path)
            tracker.figure(name, path, step)
    # Matplotlib has errors of its own, for its settings and fonts among others; the disk may be full.
    except Exception as error:  # noqa: BLE001
        _LOG.warning("no picture is tracked: %s", said(error))
