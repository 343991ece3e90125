"""The facts of a run's images, for tests whose run was not searched."""

from __future__ import annotations

from cars_hw.config.data import DataSource
from cars_hw.data.manifest import DataManifest
from cars_hw.pipeline.run_data import load_new, splits_of
from cars_hw.pipeline.run_folder import RunFolder


def freeze(run: RunFolder, source: DataSource) -> DataManifest:
    """Write what the search of ``run`` would have written about the images of ``source``, and return it."""
    configuration = run.configuration
    new = load_new(source, run.network.resolution)
    manifest = new.freeze(splits_of(new.bundle, configuration.training, configuration.seed))
    run.write_data(manifest)
    return manifest
