"""Data sets in memory, and where they come from: the embedded one, torchvision's, or a folder of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cars_hw.config.data import DATA_SETS, DataSource, is_factory, resolved
from cars_hw.data.dataset import LEVELS, Dataset
from cars_hw.data.memory import memory_limit
from cars_hw.errors import DatasetError
from cars_hw.progress import Log, Progress, no_log, silent
from cars_hw.progress_line import show

if TYPE_CHECKING:
    from cars_hw.data.folders import FolderImages

_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True, eq=False)
class DataBundle:
    """A data set: its parts, its classes, and the normalisation of its pixels.

    ``class_names[i]`` is the name of label ``i``. ``mean`` and ``std`` have one value per channel, for pixel values
    from 0 to 1. :func:`load_data` gives all channels the same: mean and standard deviation of all pixels of the
    training part, a deviation of 1 where these are all the same. (MediaPipe refuses models whose channels differ.)

    If a ``validation`` part is given, a search evaluates architectures on it, a training chooses its best epoch by
    it, and all images of ``train`` are trained on. If it is None, a part of the training images takes its place.
    The ``test`` part is for the final accuracies only.

    ``files`` has for a folder the path of every image below it, for each part in the order of the images.
    ``digest`` is that of the pixels and labels of a data set with a name or of a function, before they are resized;
    empty for any other. ``drawn_test`` tells whether the test part was drawn from the images that a function
    returned. ``notes`` tell how a folder was read, in a line each: which part serves as the test part, which images
    are left out, and where the read images are kept. For other data sets, they tell how the test part was made, and
    if images were enlarged.
    """

    name: str
    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: Dataset | None = None
    files: Mapping[str, tuple[str, ...]] | None = None
    digest: str = ""
    drawn_test: bool = False
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Dataset]:
        """The parts by their names: train, test, and validation if there is one."""
        given = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in given.items() if part is not None}

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return self.train.shape[0]

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        _, height, width = self.train.shape
        return height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def load_data(
    source: str,
    *,
    root: Path | None = None,
    download: bool = False,
    resolution: tuple[int, int] | None = None,
    seed: int = 0,
    skip_unreadable: bool = False,
    image_cache: str | None = None,
    memory: int | None = None,
    progress: Progress = show,
    log: Log = show.log,
) -> DataBundle:
    """Load a data set, on the CPU: into memory, or if it is too large for that, into a file that is read in use.

    CIFAR-10 is distributed as pickles. torchvision compares every file with its known MD5 digest before it
    unpickles it. cars-hw unpickles no other file.

    Args:
        source: ``fashion-mini`` (embedded: 5,000 and 1,000 images), ``fashion-mnist``, ``cifar10``, or the
            path of a folder that holds a folder of images for every class, or such folders below ``train/``,
            ``val/`` and ``test/``: :mod:`cars_hw.data.scan` has the rules. A name wins over a folder that is
            called the same; write ``./cifar10`` for the folder. ``package.module:function`` is a function that
            returns a data set: :mod:`cars_hw.data.factories` has the rules. A package gives it a name by an entry
            point of the group ``cars_hw.data``.
        root: where torchvision's sets are kept; ``~/.cache/cars-hw/data`` if None.
        download: fetch one of torchvision's sets if it is not in ``root``. Nothing is fetched otherwise.
        resolution: height and width in pixels to which every image is resized, without keeping its aspect. If
            None, images stay as they are, and those of a folder must all have the same size.
        seed: decides which sixth of each class is the test part of a folder that has no parts.
        skip_unreadable: leave out images of a folder that cannot be read.
        image_cache: the folder in which the read images of a folder are kept, or ``off``; see
            :func:`cars_hw.data.image_cache.cache_folder` for the default.
        memory: the bytes that the images may take in memory; None: a half of the machine's. Images of a folder
            or a function that take more are stored below ``image_cache`` and read from there while they are used.
        progress: counts the images of a folder as they are read.
        log: is told each of the bundle's ``notes``.

    Raises:
        InputError: several packages have a data set of this name.
        DatasetError: there is no such set or folder, it has not been downloaded, it has fewer than two
            classes or too few images, its parts differ in their classes, its images differ in size, or one is
            unreadable.
    """
    if resolution is not None and min(resolution) < 1:
        raise DatasetError(f"{resolution[0]}x{resolution[1]} is no resolution; give at least 1x1 pixels")
    if not source.strip():
        raise DatasetError("no data set and no folder is named: the text is empty")
    source = resolved(source)
    folder = Path(source).expanduser()
    if is_factory(source):
        bundle = _made(source, resolution, seed, image_cache=image_cache, memory=memory, progress=progress)
        for note in bundle.notes:
            log(note)
        return bundle
    if source == "fashion-mini":
        train, test = _fashion_mini()
        names: tuple[str, ...] = _FASHION_CLASSES
    elif source in DATA_SETS:
        train, test = _torchvision(source, root or Path.home() / ".cache" / "cars-hw" / "data", download)
        names = _FASHION_CLASSES if source == "fashion-mnist" else _CIFAR10_CLASSES
    elif folder.is_dir():
        from cars_hw.data.folders import read_folder
        from cars_hw.data.image_cache import cache_folder

        notes: list[str] = []
        images = read_folder(
            folder,
            resolution,
            seed,
            skip_unreadable=skip_unreadable,
            cache=cache_folder(image_cache),
            memory=memory,
            progress=progress,
            log=notes.append,
        )
        for note in notes:
            log(note)
        return _folder_bundle(folder, images, notes)
    else:
        raise DatasetError(
            f"there is no data set and no folder called {source!r}; give one of {', '.join(DATA_SETS)}, "
            "the path of a folder that holds a folder of images for every class, or package.module:function"
        )
    digest = _digest_of(train, test)
    enlarged: tuple[str, ...] = ()
    if resolution is not None:
        height, width = train.images.shape[2:]
        if resolution[0] > height or resolution[1] > width:
            enlarged = (
                f"the images of {source} have {height}x{width} pixels; they are enlarged to "
                f"{resolution[0]}x{resolution[1]}",
            )
            log(enlarged[0])
        train, test = _resized(train, resolution), _resized(test, resolution)
    return replace(_bundle(source, train, test, names), digest=digest, notes=enlarged)


def load_source(
    data: DataSource,
    resolution: tuple[int, int] | None,
    progress: Progress = silent,
    *,
    download: bool = True,
) -> DataBundle:
    """Load ``data``, see :func:`load_data`; ``download=False`` fetches nothing even if ``data`` allows it."""
    return load_data(
        data.source,
        root=data.root,
        download=data.download and download,
        resolution=resolution,
        skip_unreadable=data.skip_unreadable,
        image_cache=data.image_cache,
        memory=data.memory,
        progress=progress,
        log=no_log,
    )


def _made(
    source: str,
    resolution: tuple[int, int] | None,
    seed: int,
    *,
    image_cache: str | None,
    memory: int | None,
    progress: Progress,
) -> DataBundle:
    """Return what the function ``source`` makes, at ``resolution``."""
    from cars_hw.data.factories import Keeping, call_factory, read_made
    from cars_hw.data.image_cache import cache_folder

    made = call_factory(source)
    if isinstance(made, DataBundle):
        return _of_bundle(source, made, resolution)
    told: list[str] = []
    keeping = Keeping(memory_limit(memory), cache_folder(image_cache), told.append)
    read = read_made(source, made, resolution, seed, progress, keeping=keeping)
    return replace(
        _bundle(source, read.parts["train"], read.parts["test"], read.class_names),
        validation=read.parts.get("validation"),
        digest=read.digest,
        drawn_test=read.drawn,
        notes=(*told, *read.notes),
    )


def _of_bundle(source: str, made: DataBundle, resolution: tuple[int, int] | None) -> DataBundle:
    """Return the bundle ``made`` of the function ``source`` at ``resolution``; it keeps its normalisation.

    Raises:
        DatasetError: a part is empty, has a label without a name, or differs in its channels or sizes, or the
            normalisation does not fit.
    """
    for name, part in made.parts.items():
        if not len(part):
            raise DatasetError(f"{source}: the {name} part has no images")
        if not 0 <= int(part.labels.min()) <= int(part.labels.max()) < made.classes:
            raise DatasetError(f"{source}: the {name} part has labels beyond those of {made.classes} classes")
        if part.shape != made.train.shape:
            raise DatasetError(
                f"{source}: the images of the {name} part have another shape than the training images"
            )
    if not (len(made.mean) == len(made.std) == made.channels) or min(made.std) <= 0:
        raise DatasetError(
            f"{source}: mean and std need a number for each of the {made.channels} channels, in std above zero"
        )
    parts = {name: part.to("cpu") for name, part in made.parts.items()}
    digest = _digest_of(*parts.values())
    if resolution is not None:
        parts = {name: _resized(part, resolution) for name, part in parts.items()}
    return replace(
        made,
        name=source,
        train=parts["train"],
        test=parts["test"],
        validation=parts.get("validation"),
        files=None,
        digest=digest,
        drawn_test=False,
        notes=(),
    )


def _folder_bundle(folder: Path, images: FolderImages, notes: Sequence[str]) -> DataBundle:
    given = {"train": images.train, "validation": images.validation, "test": images.test}
    parts = {name: part.dataset for name, part in given.items() if part is not None}
    files = {
        name: tuple(file.relative_to(folder).as_posix() for file in part.files)
        for name, part in given.items()
        if part is not None
    }
    bundle = _bundle(folder.resolve().name, parts["train"], parts["test"], images.class_names)
    return replace(bundle, validation=parts.get("validation"), files=files, notes=tuple(notes))


def _bundle(name: str, train: Dataset, test: Dataset, class_names: tuple[str, ...]) -> DataBundle:
    mean, std = _statistics(train)
    return DataBundle(name, train, test, class_names, mean, std)


def _digest_of(*parts: Dataset) -> str:
    """Return the digest of the pixels and labels of ``parts``."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(("torch.uint8", (len(part), *part.shape))).encode())
        for images in part.pieces():
            found.update(images.contiguous().numpy().data)
        found.update(repr((str(part.labels.dtype), tuple(part.labels.shape))).encode())
        found.update(part.labels.contiguous().numpy().data)
    return f"sha256:{found.hexdigest()}"


def _statistics(part: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of all pixels of ``part`` in units of [0, 1], once for each channel.

    ``part`` has at least one image. Pixels that are all the same have a standard deviation of 1.
    """
    levels = torch.arange(LEVELS, dtype=torch.float64) / (LEVELS - 1)
    channels = part.shape[0]
    # Counting the 256 levels is exact and needs no floating-point copy of the data set.
    counts = part.levels()
    share = counts.double() / int(counts.sum())
    mean = float(share @ levels)
    variance = float(share @ (levels - mean).square())
    deviation = variance**0.5 if int((share > 0).sum()) > 1 else 1.0
    return (mean,) * channels, (deviation,) * channels


def _fashion_mini() -> tuple[Dataset, Dataset]:
    with (
        resources.files("cars_hw.data").joinpath("fashion_mini.npz").open("rb") as handle,
        np.load(handle, allow_pickle=False) as arrays,
    ):
        parts = [
            Dataset(
                torch.from_numpy(arrays[f"{part}_images"]).unsqueeze(1),
                torch.from_numpy(arrays[f"{part}_labels"]).long(),
            )
            for part in ("train", "test")
        ]
    return parts[0], parts[1]


def _torchvision(source: str, root: Path, download: bool) -> tuple[Dataset, Dataset]:
    from torchvision.datasets import CIFAR10, FashionMNIST

    def part(train: bool) -> Dataset:
        if source == "cifar10":
            cifar = CIFAR10(root, train=train, download=download)
            images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2).contiguous()
            return Dataset(images, torch.tensor(cifar.targets, dtype=torch.int64))
        fashion = FashionMNIST(root, train=train, download=download)
        return Dataset(fashion.data.unsqueeze(1), fashion.targets.long())

    try:
        return part(True), part(False)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        # torchvision tells a missing set from a damaged one, or from a failed download, only in its wording.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if download:
            message = f"{source} could not be fetched into {root} ({reason}); check the network and try again"
            raise DatasetError(message) from error
        raise DatasetError(f"{source} is not in {root}, or is damaged there", remedy="download") from error


def _resized(dataset: Dataset, resolution: tuple[int, int]) -> Dataset:
    """Return ``dataset`` at ``resolution``, height and width in pixels: by the filter that resizes files."""
    from cars_hw.data.images import resized_pixels

    pixels = dataset.images.permute(0, 2, 3, 1).contiguous().numpy()
    resized = np.empty((len(pixels), *resolution, pixels.shape[-1]), np.uint8)
    for index, image in enumerate(pixels):
        resized[index] = resized_pixels(image, resolution)
    return Dataset(torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous(), dataset.labels)
