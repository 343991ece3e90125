"""The images of a search, at the resolution at which it reads them."""

from __future__ import annotations

from cars_hw.data import DataBundle, load_source
from cars_hw.data.manifest import DataManifest
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_data import load_frozen, load_new, require_fit, require_splits, splits_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Progress, silent


def plan_data(plan: SearchPlan, progress: Progress = silent) -> DataBundle:
    """Load the data of ``plan`` at the network's resolution, and check that it fits the network.

    Raises:
        DatasetError: it cannot be loaded.
        InputError: the channels or classes are not those of the network, and the data is not a proxy.
    """
    data = load_source(plan.data, resolution_of(plan), progress)
    if not plan.proxy:
        require_fit(data, plan.network)
    return data


def run_images(plan: SearchPlan, run: RunFolder, manifest: DataManifest, progress: Progress = silent) -> DataBundle:
    """Load the images of ``manifest``, those of the search of ``run``, to go on with it or to compare with it.

    Raises:
        DataChangedError: they were changed since, or are others; the message says what differs.
        DatasetError: they are gone, or cannot be used.
        RunError: a file of the run is damaged.
    """
    return load_frozen(run, manifest, plan.data, resolution_of(plan), progress).bundle


def resolution_of(plan: SearchPlan) -> tuple[int, int] | None:
    """Return the height and width at which the search of ``plan`` reads images; None is their own.

    If the resolution varies, it is the largest.
    """
    return None if plan.proxy else plan.network.resolution


def images_and_facts(
    plan: SearchPlan, run: RunFolder, manifest: DataManifest | None, progress: Progress
) -> tuple[DataBundle, DataManifest]:
    """Load the images, which are those of ``manifest`` if there is one, and return them with their facts."""
    if manifest is None:
        new = load_new(plan.data, resolution_of(plan), progress)
        if not plan.proxy:
            require_fit(new.bundle, plan.network)
        return new.bundle, new.freeze(splits_of(new.bundle, plan.preset.training, plan.seed))
    data = run_images(plan, run, manifest, progress)
    splits = splits_of(data, plan.preset.training, plan.seed)
    if run.data_path.is_file():
        require_splits(manifest, splits)
    else:
        # The images are those of another run; this one may divide them by another seed.
        manifest = manifest.with_splits(splits)
    return data, manifest
