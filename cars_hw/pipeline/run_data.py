"""The images of a run: frozen by its search, and the same in every later step, or an error says what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

import torch

from cars_hw.config.checksummed import digest as digest_of
from cars_hw.config.data import DataSource, is_factory, is_folder
from cars_hw.config.decoding import Decoding
from cars_hw.config.files import expanded
from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, load_source
from cars_hw.data.fingerprint import files_of
from cars_hw.data.image_cache import cache_folder
from cars_hw.data.limits import TEST_SHARE
from cars_hw.data.manifest import (
    UNDIVIDED,
    AcceptedChange,
    Change,
    Comparison,
    DataManifest,
    Files,
    Split,
    compared,
    files_digest,
    test_digest,
)
from cars_hw.data.scan import scan_folder, survey_folder
from cars_hw.errors import DataChangedError, DatasetError, InputError, Remedy, RunError
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Progress, silent
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.judging_images import judging_split

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RunData:
    """The images of a run as they are now, with the classes and the normalisation of ``manifest``.

    ``source`` is where they lie. ``digest`` and ``test_digest`` are those of all images and of the test images.
    ``changes`` are those since the search that were accepted before or are by this step; ``new`` tells whether
    :meth:`write_down` has something to write.
    """

    bundle: DataBundle
    manifest: DataManifest
    source: DataSource
    digest: str
    test_digest: str
    changes: tuple[Change, ...] = ()
    new: bool = False

    def at(self, run: RunFolder, resolution: Size) -> RunData:
        """Return the same images at ``resolution``, height and width in pixels, loaded again unless they have it.

        Classes and normalisation stay those of the manifest.

        Raises:
            DataChangedError: the images are no longer the same.
            DatasetError: they are gone.
        """
        if self.bundle.resolution == tuple(resolution):
            return self
        found = load_frozen(run, self.manifest, self.source, resolution, accept=True, download=False)
        require_same(found, self.digest)
        return replace(self, bundle=found.bundle)

    def write_down(self, run: RunFolder, step: str) -> None:
        """Write to ``run`` what ``step`` decides: accepted changes, or the images of a proxy run's networks."""
        if not self.new:
            return
        if not self.changes:
            run.write_target_data(self.manifest)
            return
        counts = bundle_counts(self.bundle)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        run.add_data_change(
            AcceptedChange(now, step, self.source.source, self.changes, counts, self.digest, self.test_digest)
        )


@dataclass(frozen=True, eq=False)
class NewData:
    """Images that no run has frozen yet: ``files`` has the digests of those of a folder."""

    bundle: DataBundle
    source: DataSource
    files: Files | None

    def freeze(self, splits: Sequence[Split] = ()) -> DataManifest:
        """Return the facts of the images; ``splits`` are those of the search."""
        bundle = self.bundle
        files, skipped = (None, {}) if self.files is None else _divided(bundle, self.files)
        return DataManifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=replace(self.source.absolute(), download=False),
            name=bundle.name,
            class_names=bundle.class_names,
            counts=bundle_counts(bundle),
            mean=bundle.mean,
            std=bundle.std,
            decoding=Decoding.of(bundle.channels),
            splits=(self._test_split(files), *splits),
            digest=bundle.digest if files is None else files_digest(files, bundle.class_names),
            files=files,
            skipped=skipped,
        )

    def _test_split(self, files: Files | None) -> Split:
        number = len(self.bundle.test)
        if self.bundle.drawn_test:
            return Split("test", f"{TEST_SHARE:.3g} of each class", 0, number, None)
        if files is None or self.files is None or UNDIVIDED not in self.files:
            return Split("test", "as the source gives them", None, number, None)
        rule = f"{TEST_SHARE:.3g} of each class of the folder"
        return Split("test", rule, 0, number, test_digest(files, self.bundle.class_names))


def load_new(source: DataSource, resolution: Size | None, progress: Progress = silent) -> NewData:
    """Load the images of ``source`` at ``resolution`` (height, width); see :func:`cars_hw.data.load_data`.

    Raises:
        DatasetError: they cannot be used.
    """
    # Before the images are read: what changes in between is noticed by the next step.
    listed = _is_folder(source) and _folder(source).is_dir()
    cache = cache_folder(source.image_cache)
    files = files_of(scan_folder(_folder(source)), cache=cache, progress=progress) if listed else None
    return NewData(load_source(source, resolution, progress), source, files)


def load_frozen(
    run: RunFolder,
    manifest: DataManifest,
    given: DataSource | None,
    resolution: Size | None,
    progress: Progress = silent,
    *,
    accept: bool | None = None,
    download: bool = True,
) -> RunData:
    """Load the images of ``manifest``, one of ``run``, at ``resolution``; ``given`` is where they lie now.

    Images that changed since the search are an error, unless ``run`` has accepted the same changes or ``accept``
    does. With None changes are never accepted: the step goes on with what the search began.

    Raises:
        DataChangedError: the images are not those of the run; the message says what differs.
        DatasetError: they are gone, or cannot be used.
        RunError: a file of the run is damaged.
    """
    source = _source(manifest, given)
    if _is_folder(source) is not (manifest.files is not None):
        _refuse_others(manifest, source, run)
    found = None if manifest.files is None else _require_known(run, manifest, source, progress, accept=accept)
    bundle = load_source(source, resolution, progress, download=download)
    if found is None:
        if bundle.digest != manifest.digest:
            _refuse_others(manifest, source, run)
        return RunData(_as_frozen(bundle, manifest, None), manifest, source, manifest.digest, manifest.test_digest)
    digest = files_digest(found.files, manifest.class_names)
    return RunData(
        _as_frozen(bundle, manifest, found.files),
        manifest,
        source,
        digest,
        test_digest(found.files, manifest.class_names),
        found.changes,
        new=bool(found.changes) and digest not in _accepted(run),
    )


def load_for_training(
    run: RunFolder,
    given: DataSource | None,
    progress: Progress = silent,
    *,
    accept: bool | None = False,
    download: bool = True,
    resolution: Size | None = None,
) -> RunData:
    """Load the images that networks of ``run`` are trained on, at ``resolution`` (height, width).

    Without a ``resolution``, it is that of the run's network, which is the largest. The images are those of the
    search. The first training of a run whose search was on a proxy may be given others, which are frozen then.

    Raises:
        DataChangedError: the images are not those of the run; the message says what differs.
        DatasetError: they are gone, or cannot be used.
        InputError: they do not fit the network.
        RunError: a file of the run is damaged.
    """
    resolution = resolution or run.network.resolution
    manifest = run.training_data
    if _begins_with_others(run, manifest, given):
        assert given is not None
        new = load_new(given, resolution, progress)
        require_fit(new.bundle, run.network)
        manifest = new.freeze()
        return RunData(new.bundle, manifest, manifest.source, manifest.digest, manifest.test_digest, new=True)
    data = load_frozen(run, manifest, given, resolution, progress, accept=accept, download=download)
    require_fit(data.bundle, run.network)
    return data


def require_same(data: RunData, digest: str) -> None:
    """Check that ``data`` are the images with ``digest``, which were loaded before or by the first process.

    Raises:
        DataChangedError: they are others.
    """
    if data.digest != digest:
        raise DataChangedError(
            f"{data.source.source} was changed while networks are trained, or differs between processes; "
            "run the command again"
        )


def splits_of(bundle: DataBundle, settings: SharedTraining, seed: int) -> tuple[Split, Split]:
    """Return how a search by ``settings`` and ``seed`` divides the training images.

    Raises:
        DatasetError: there are too few to leave some for the evaluation of architectures.
    """
    if bundle.validation is not None:
        return (
            Split("weights", "all training images", None, len(bundle.train), None),
            Split("architectures", "the validation part of the source", None, len(bundle.validation), None),
        )
    share = settings.validation_fraction
    train, valid = judging_split(bundle.train.labels, share, torch.Generator().manual_seed(seed))
    if not len(valid) or not len(train):
        raise DatasetError(
            f"the training part of {bundle.name} has too few images: {share:.3g} of each class are to evaluate "
            "architectures; add images, or a validation part"
        )
    return _drawn("weights", 1 - share, seed, train), _drawn("architectures", share, seed, valid)


def _drawn(use: Literal["weights", "architectures"], share: float, seed: int, chosen: torch.Tensor) -> Split:
    indices = chosen.numpy().astype("<i8").tobytes()
    return Split(use, f"{share:.3g} of each class of the training images", seed, len(chosen), digest_of(indices))


def require_splits(manifest: DataManifest, splits: Sequence[Split]) -> None:
    """Check that the training images are divided by ``splits`` as they were by the search.

    Raises:
        RunError: they are not, since random numbers differ between versions.
    """
    for split in splits:
        if split not in manifest.splits:
            raise RunError(
                f"the images for {split.use} are not those of the search: this version of torch draws other random "
                "numbers; use the version of the search, which run.json names"
            )


def require_fit(data: DataBundle, network: NetworkSpec) -> None:
    """Check that ``data`` has the channels and classes of ``network``.

    Raises:
        InputError: it has other channels or classes.
    """
    for name, has, wants in (
        ("channels", data.channels, network.in_channels),
        ("classes", data.classes, network.classes),
    ):
        if has != wants:
            raise InputError(
                f"{data.name} has {has} {name}, the network {wants}",
                remedy="fit-channels" if name == "channels" else "fit-classes",
                number=has,
            )


def bundle_counts(bundle: DataBundle) -> dict[str, tuple[int, ...]]:
    """Return the number of images of each class, for each part."""
    return {
        part: tuple(torch.bincount(dataset.labels, minlength=bundle.classes).tolist())
        for part, dataset in bundle.parts.items()
    }


def _source(manifest: DataManifest, given: DataSource | None) -> DataSource:
    """Return where the images lie: as in ``manifest``, apart from what ``given`` says."""
    own = manifest.source
    if given is None:
        return own
    # What decides which images there are is that of the search.
    skips = own.skip_unreadable or given.skip_unreadable
    root, memory = given.absolute().root or own.root, given.memory or own.memory
    return replace(given.absolute(), root=root, skip_unreadable=skips, memory=memory)


def _is_folder(source: DataSource) -> bool:
    return is_folder(source.source)


def _folder(source: DataSource) -> Path:
    return expanded(source.source)


def _begins_with_others(run: RunFolder, manifest: DataManifest, given: DataSource | None) -> bool:
    """Whether ``given`` are the images that the networks of a proxy run are to be trained on, given first now."""
    if given is None or not run.configuration.proxy or run.target_data_path.is_file() or run.trained():
        return False
    return given.absolute().source != manifest.source.source


def _require_known(
    run: RunFolder, manifest: DataManifest, source: DataSource, progress: Progress, *, accept: bool | None
) -> Comparison:
    """Return how the folder of ``source`` differs from ``manifest``, where the step can go on with that."""
    folder = _folder(source)
    if not folder.is_dir():
        raise DatasetError(f"{folder}, the images of {run.path}, is not there", remedy="moved-images")
    scan = survey_folder(folder)
    cache = cache_folder(source.image_cache)
    found = compared(manifest, files_of(scan, cache=cache, progress=progress))
    what = f"{folder} has changed since the search of {run.path}: {found.describe()}"
    if folder != _folder(manifest.source):
        what = f"{folder} does not hold the images of {run.path}: {found.describe()}"
    if found.problems:
        raise DataChangedError(what, remedy="restore-images")
    if found.changes and not accept:
        known = accept is not None and files_digest(found.files, manifest.class_names) in _accepted(run)
        if not known:
            remedy: Remedy = "restore-images" if accept is None else "accept-changes"
            raise DataChangedError(what, remedy=remedy, run=run.path)
    # A folder that changed may be none that can be read.
    scan_folder(folder)
    return found


def _accepted(run: RunFolder) -> set[str]:
    return {change.digest for change in run.data_changes()}


def _refuse_others(manifest: DataManifest, source: DataSource, run: RunFolder) -> NoReturn:
    if source.source == manifest.source.source and is_factory(source.source):
        raise DataChangedError(
            f"{source.source} returns other images, labels or classes than in the search of {run.path}; it must "
            "return the same each time, without random changes",
            remedy="restore-images",
        )
    raise DataChangedError(
        f"{source.source} is not the data of {run.path}, which is {manifest.source.source}", remedy="other-images"
    )


def _as_frozen(bundle: DataBundle, manifest: DataManifest, files: Files | None) -> DataBundle:
    """Return ``bundle`` with the classes, the normalisation and the parts of ``manifest``."""
    if bundle.channels != manifest.decoding.channels:
        raise DataChangedError(
            f"the images of {bundle.name} have {bundle.channels} channels now, those of the run "
            f"{manifest.decoding.channels}",
            remedy="restore-images",
        )
    if bundle.class_names != manifest.class_names:
        raise DataChangedError(f"the classes of {bundle.name} are not those of the run", remedy="restore-images")
    frozen = replace(bundle, mean=manifest.mean, std=manifest.std)
    return frozen if files is None else _divided_as(frozen, manifest, files)


def _divided_as(bundle: DataBundle, manifest: DataManifest, files: Files) -> DataBundle:
    """Return ``bundle`` with every image in the part where ``files`` has it, and no others.

    Raises:
        DataChangedError: an image of ``manifest`` that has not changed was left out, since it cannot be read here.
    """
    assert bundle.files is not None
    part_of, known = _by_path(files), _by_path(manifest.files or {})
    read = {path for paths in bundle.files.values() for path in paths}
    lost = sorted(
        path for path, (_, digest) in part_of.items() if path not in read and known.get(path, ("", ""))[1] == digest
    )
    if lost:
        raise DataChangedError(
            f"{len(lost)} images of the run, which have not changed, cannot be read here, such as {lost[0]}; use "
            "the version of Pillow that the search used"
        )
    if all(part_of.get(path, ("",))[0] == part for part, paths in bundle.files.items() for path in paths):
        return bundle
    paths = [path for members in bundle.files.values() for path in members]
    first, *others = bundle.parts.values()
    everything = first.joined(others)
    places = {
        part: [place for place, path in enumerate(paths) if part_of.get(path, ("",))[0] == part]
        for part in bundle.parts
    }
    divided = {part: everything.select(torch.tensor(chosen)) for part, chosen in places.items()}
    named = {part: tuple(paths[place] for place in chosen) for part, chosen in places.items()}
    return replace(
        bundle,
        train=divided["train"],
        test=divided["test"],
        validation=divided.get("validation"),
        files=named,
    )


def _by_path(files: Files) -> dict[str, tuple[str, str]]:
    """Return the part and the digest of every image by its path."""
    return {
        path: (part, digest)
        for part, classes in files.items()
        for members in classes.values()
        for path, digest in members.items()
    }


def _divided(bundle: DataBundle, found: Files) -> tuple[dict[str, dict[str, dict[str, str]]], dict[str, str]]:
    """Return the files of ``bundle`` by part and class with their digests, and those that it left out."""
    assert bundle.files is not None
    digests = {path: digest for path, (_, digest) in _by_path(found).items()}
    divided: dict[str, dict[str, dict[str, str]]] = {}
    for part, paths in bundle.files.items():
        classes = divided[part] = {name: {} for name in bundle.class_names}
        labels = bundle.parts[part].labels.tolist()
        for path, label in sorted(zip(paths, labels, strict=True)):
            classes[bundle.class_names[label]][path] = digests.pop(path)
    return divided, digests
