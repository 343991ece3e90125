"""MLflow as a tracker, in a file of SQLite with a folder of artefacts unless the user names a server.

MLflow keeps its older store of plain files for existing data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cars_hw.callbacks import Tracker
from cars_hw.tracking.trackers import Step, identity_of, place_of, unless_set

FOLDER: Final = "mlflow"
TAG: Final = "cars_hw.step"
MOST_CHARACTERS: Final = 500
"""The length of a setting's text that every version of MLflow stores."""


class MlflowTracker(Tracker):
    """A run of MLflow for each step, in an experiment with the name of the cars-hw run.

    A tag with the step's identity tells it from those of runs whose folders have the same name. A step that goes on
    after an interruption keeps its run of MLflow, in which each scalar is once.
    """

    def __init__(self, step: Step) -> None:
        # Both send reports of use unless they are told not to.
        unless_set(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GIT_PYTHON_REFRESH="quiet")
        import logging

        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        address, artefacts = _store(step)
        self._client: Any = MlflowClient(tracking_uri=address)
        experiment = _experiment(self._client, step.home.name, artefacts)
        identity = identity_of(step)
        before = self._client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{identity}'")
        self._known: dict[str, set[int]] = {}
        if before and not step.fresh:
            self._run: str = before[0].info.run_id
            self._resumed = True
            self._client.update_run(self._run, status="RUNNING")
            return
        self._resumed = False
        for one in before:
            # It was killed before its first checkpoint, or had other settings.
            if one.info.status == "RUNNING":
                self._client.set_terminated(one.info.run_id, status="KILLED")
        made = self._client.create_run(experiment, run_name=step.name, tags={TAG: identity})
        self._run = made.info.run_id

    def settings(self, values: Mapping[str, str | float | bool | None]) -> None:
        """Keep the settings as parameters; those of a step that goes on are there."""
        if not self._resumed:
            for name, value in values.items():
                self._client.log_param(self._run, _name(name), str(value)[:MOST_CHARACTERS])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values`` as metrics, each once for a step."""
        for name, value in values.items():
            key = _name(name)
            if key not in self._known:
                kept = self._client.get_metric_history(self._run, key) if self._resumed else []
                self._known[key] = {one.step for one in kept}
            if step not in self._known[key]:
                self._client.log_metric(self._run, key, value, step=step)
                self._known[key].add(step)

    def artefact(self, path: Path) -> None:
        """Copy the file to the artefacts."""
        self._client.log_artifact(self._run, str(path))

    def figure(self, name: str, path: Path, step: int) -> None:
        """Copy the picture to the artefacts."""
        self._client.log_artifact(self._run, str(path), f"figures/{_name(name)}/{step}")

    def close(self) -> None:
        """Mark the run of MLflow as finished."""
        self._client.set_terminated(self._run)


def _store(step: Step) -> tuple[str, str | None]:
    """Return the address of the store, and where its artefacts lie; None where the server decides."""
    if "://" in step.where:
        return step.where, None
    folder = place_of(step, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artefacts").as_uri()


def _experiment(client: Any, name: str, artefacts: str | None) -> str:  # noqa: ANN401 -- MLflow's own
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=artefacts))
    # Another process may have made it meanwhile.
    except Exception:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _name(text: str) -> str:
    """Return ``text`` as MLflow allows it for a name: letters, digits, and some signs."""
    return "".join(letter if letter.isalnum() or letter in " _-./" else "_" for letter in text)
