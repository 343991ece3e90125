"""Whether the images of a run are still what they were, by their names alone: without PyTorch."""

from __future__ import annotations

from cars_hw.config.files import expanded
from cars_hw.data.fingerprint import files_of
from cars_hw.data.manifest import Comparison, DataManifest, compared
from cars_hw.data.scan import survey_folder
from cars_hw.errors import DatasetError
from cars_hw.pipeline.run_folder import RunFolder


def seen_changes(run: RunFolder) -> str | None:
    """Return what differs by name between the images of ``run`` and its folder now, for a step that reads none.

    None where nothing does or the run has accepted the same changes, and where the folder is gone or cannot be
    read. No image is opened.

    Raises:
        RunError: a file of the run is damaged.
    """
    manifest = run.training_data
    found = differences_by_name(manifest)
    if found is None:
        return None
    accepted = [tuple(one for one in change.changes if one.kind != "changed") for change in run.data_changes()]
    if found.same or (not found.problems and found.changes in accepted):
        return None
    folder = expanded(manifest.source.source)
    return f"{folder} has changed since the search: {found.describe()}"


def differences_by_name(manifest: DataManifest) -> Comparison | None:
    """Return how the folder of ``manifest`` differs from it by names; no image is opened.

    None where the images are those of a data set with a name, and where the folder is gone or cannot be read.
    """
    folder = expanded(manifest.source.source)
    if manifest.files is None or not folder.is_dir():
        return None
    try:
        return compared(manifest, files_of(survey_folder(folder), hashed=False))
    except DatasetError:
        return None
