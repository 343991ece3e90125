"""The warning of commands that need no images: those of the run are no longer what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cars_hw.cli.verbosity import note

if TYPE_CHECKING:
    from cars_hw.pipeline.run_folder import RunFolder


def warn_of_changed_images(run: RunFolder) -> None:
    """Warn if images of ``run`` were renamed, added or removed since its search; no image is opened."""
    from cars_hw.pipeline.seen_changes import seen_changes

    changes = seen_changes(run)
    if changes is not None:
        note(f"Warning: {changes}. This command goes by the images of the search: {run.training_data_path.name}.")
