"""Data sets that a function of the user's makes: ``--data mypackage.data:make``.

The function takes no arguments. It returns the parts of a data set: a mapping with ``train`` and ``test`` and
perhaps ``validation``, a pair of a training and a test part, or one part, of which a sixth of each class becomes
the test part. A part is a torch ``Dataset``, a Hugging Face ``Dataset``, or anything else whose items can be
listed. An item is a pair of image and label, or a mapping that has both.

A run keeps the name of the function and a digest of what it made. Every later step calls it again, and notices
other images. Of images that are too large for memory and were stored, it notices other numbers of images, and
others among a sample.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cars_hw.data.dataset import Dataset
from cars_hw.data.image_store import SUFFIX, ImageStore, Item, Making, open_or_make
from cars_hw.data.images import Pixels, Size, plain_pixels, resized_pixels
from cars_hw.data.limits import SMALLEST_CLASS, TEST_SHARE, VALIDATION_IS_TEST
from cars_hw.data.splits import stratified_split
from cars_hw.data.streamed import StreamedDataset
from cars_hw.errors import CarsHwError, DatasetError
from cars_hw.formatting import size
from cars_hw.plugins import called, said, with_current_folder
from cars_hw.progress import Log, Progress, counted, silent

PART_NAMES: Final[Mapping[str, str]] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""The part that each key of a mapping is."""

IMAGE_KEYS: Final = ("image", "img", "pixels")
LABEL_KEYS: Final = ("label", "labels", "fine_label", "target")

SAMPLED: Final = 64
"""So many images tell whether a store still has the images of a function."""

EVERY: Final = 64
"""Progress is told after so many images."""


@dataclass(frozen=True, eq=False)
class MadeData:
    """The images that a factory made, by part: in memory, or in a store.

    ``digest`` is that of the pixels as the factory gave them and of the labels. ``drawn`` tells whether the test
    part was drawn here.
    """

    parts: Mapping[str, Dataset]
    class_names: tuple[str, ...]
    digest: str
    drawn: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """What was read of a part: pixels ``(H, W, C)``, labels and digests, an entry for each image.

    Of images in a store, there is the place in it instead of pixels.
    """

    pixels: list[Any]
    labels: list[int | str]
    digests: list[bytes]

    def select(self, places: Iterable[int]) -> _Part:
        chosen = list(places)
        return _Part(
            [self.pixels[place] for place in chosen],
            [self.labels[place] for place in chosen],
            [self.digests[place] for place in chosen],
        )


def call_factory(source: str) -> Any:  # noqa: ANN401 -- whatever the user's function returns
    """Return what the function ``source``, such as ``mypackage.data:make``, returns.

    Its module is imported from where Python finds modules, and after these from the current folder.

    Raises:
        DatasetError: it cannot be imported, is no function, or raises an exception.
    """
    module, _, path = source.partition(":")
    found: Any = _module(source, module)
    for name in path.split("."):
        if not hasattr(found, name):
            raise DatasetError(f"{source}: {module} has no {path}")
        found = getattr(found, name)
    if not callable(found):
        raise DatasetError(f"{source} is no function: it is of the type {type(found).__name__}")
    return called(source, found, DatasetError)


@dataclass(frozen=True)
class Keeping:
    """Where images are kept that take more than ``limit`` bytes in memory; None: nowhere."""

    limit: int
    cache: Path | None
    log: Log


def read_made(
    source: str,
    made: object,
    resolution: Size | None,
    seed: int,
    progress: Progress = silent,
    *,
    keeping: Keeping | None = None,
) -> MadeData:
    """Return the images of ``made``, which the factory ``source`` returned, resized to ``resolution`` if given.

    Images are those of Pillow, arrays (H, W, C) or (H, W), or tensors (C, H, W) or (H, W); of whole numbers from 0
    to 255, or of fractions from 0 to 1. All are grey if all of them have one channel, otherwise in colour. Labels
    are class numbers, or names. Without a test part, the validation part is the test part; without both, a sixth of
    each class, drawn by ``seed``, is.

    Images that take more than ``keeping`` allows are stored there, and read while they are used, if all parts have
    a length and items by index. The store is used again as long as the parts have the same lengths, and a sample of
    :data:`SAMPLED` images the same pixels and labels.

    Raises:
        DatasetError: a part, an image or a label cannot be used; the message says which. Or the images do not fit
            into memory and cannot be stored.
    """
    given = _parts(source, made)
    store = None if keeping is None else _stored(source, given, resolution, keeping, progress)
    if store is None:
        parts = {name: _read_part(source, name, part, resolution, progress) for name, part in given.items()}
    else:
        parts = _of_store(store, given)
    notes: tuple[str, ...] = ()
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
        notes = (f"{source}: {VALIDATION_IS_TEST}",)
    class_names = _class_names(source, given.values(), parts.values())
    drawn = "test" not in parts
    if drawn:
        parts = _divided(source, parts["train"], class_names, seed)
        notes = (f"{source}: {TEST_SHARE:.3g} of each class are the test part",)
    return MadeData(
        _datasets(source, parts, class_names, store),
        class_names,
        _digest(parts, class_names),
        drawn,
        notes,
    )


def _module(source: str, name: str) -> object:
    try:
        with with_current_folder():
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise DatasetError(
                f"{source} cannot be imported: there is no module {error.name}; install it, put its folder on "
                "PYTHONPATH, or run the command in its folder"
            ) from error
        raise DatasetError(f"{source} cannot be imported: {error}") from error
    except CarsHwError:
        raise
    # The module is the user's, and may raise whatever it likes.
    except Exception as error:
        raise DatasetError(f"{source} cannot be imported: {said(error)}") from error


def _parts(source: str, made: object) -> dict[str, Any]:
    """Return the parts of ``made`` by their names."""
    if isinstance(made, Mapping):
        unknown = [name for name in made if name not in PART_NAMES]
        if unknown or "train" not in made:
            raise DatasetError(
                f"{source} returned a mapping with the keys {', '.join(map(str, made))}; it must have train, and "
                "may have validation and test"
            )
        found: dict[str, Any] = {}
        for name, part in made.items():
            if PART_NAMES[name] in found:
                raise DatasetError(f"{source} returned a mapping with two {PART_NAMES[name]} parts, one is {name}")
            found[PART_NAMES[name]] = part
        return found
    if isinstance(made, tuple):
        if len(made) != 2:
            raise DatasetError(f"{source} returned {len(made)} parts; return a pair of a training and a test part")
        return dict(zip(("train", "test"), made, strict=True))
    if made is None:
        raise DatasetError(f"{source} returned nothing; return a data set, or its parts")
    return {"train": made}


def _read_part(source: str, name: str, part: object, resolution: Size | None, progress: Progress) -> _Part:
    read = _Part([], [], [])
    total = len(part) if hasattr(part, "__len__") else 0
    items = _items(source, part)
    for place in count():
        item = called(source, lambda: next(items, _END), DatasetError)
        if item is _END:
            break
        where = f"{source}: item {place} of the {name} part"
        image, label = _image_and_label(where, item, part)
        pixels = _pixels(where, image)
        read.digests.append(_pixel_digest(pixels))
        read.labels.append(_label(where, label))
        read.pixels.append(pixels if resolution is None else resized_pixels(pixels, resolution))
        if total and place % EVERY == 0:
            progress(f"reading {name} images", min(place, total), total)
    if not read.labels:
        raise DatasetError(f"{source}: the {name} part has no images")
    return read


_END: Final = object()


def _items(source: str, part: object) -> Iterator[Any]:
    """Yield the items of ``part``: by index where it has a length, as torch's data sets need not be iterable."""
    if hasattr(part, "__len__") and hasattr(part, "__getitem__"):
        return (part[index] for index in range(len(part)))
    if isinstance(part, Iterable):
        return iter(part)
    raise DatasetError(f"{source}: a part is of the type {type(part).__name__}, whose items cannot be listed")


def _image_and_label(where: str, item: object, part: object) -> tuple[object, object]:
    if isinstance(item, Mapping):
        keys = [
            _key(item, (*_columns(part, kind), *usual))
            for kind, usual in (("Image", IMAGE_KEYS), ("ClassLabel", LABEL_KEYS))
        ]
        if None in keys:
            raise DatasetError(
                f"{where} has the keys {', '.join(map(str, item))}; an image is looked for under "
                f"{', '.join(IMAGE_KEYS)}, and its label under {', '.join(LABEL_KEYS)}"
            )
        return item[keys[0]], item[keys[1]]
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
        return item[0], item[1]
    raise DatasetError(f"{where} is no pair of image and label: it is of the type {type(item).__name__}")


def _columns(part: object, kind: str) -> tuple[str, ...]:
    """Return the columns of a Hugging Face data set whose feature is of the class ``kind``."""
    features = getattr(part, "features", None)
    if not isinstance(features, Mapping):
        return ()
    return tuple(name for name, feature in features.items() if type(feature).__name__ == kind)


def _key(item: Mapping[Any, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in item), None)


def _pixels(where: str, image: object) -> Pixels:
    """Return ``image`` as pixels (H, W, C) of one or three channels."""
    if isinstance(image, Image.Image):
        return plain_pixels(image, where)
    if isinstance(image, Tensor):
        values = image.detach().cpu().numpy()
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise DatasetError(
            f"{where} has an image of the type {type(image).__name__}; give pixels, or one of Pillow's"
        )
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or 0 in values.shape:
        layout = "(C, H, W)" if isinstance(image, Tensor) else "(H, W, C)"
        raise DatasetError(
            f"{where} has an image of the shape {tuple(image.shape)}; a single image {layout} of 1 or 3 channels "
            "is needed"
        )
    return np.ascontiguousarray(_bytes(where, values))


def _bytes(where: str, values: Any) -> Pixels:  # noqa: ANN401 -- an array of any type
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        # NaN is neither.
        if not (values.min() >= 0 and values.max() <= 1):
            raise DatasetError(f"{where} has fractions beyond 0 and 1; give the pixels before they are normalised")
        return np.asarray(np.rint(values * 255), np.uint8)
    if np.issubdtype(values.dtype, np.integer) and values.min() >= 0 and values.max() <= 255:
        return np.asarray(values, np.uint8)
    raise DatasetError(f"{where} has pixels of the type {values.dtype}; give bytes, or fractions from 0 to 1")


def _label(where: str, label: object) -> int | str:
    if isinstance(label, str):
        return label
    if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and int(label) >= 0:
        return int(label)
    raise DatasetError(f"{where} has the label {label!r}; a class number from 0 or a name is needed")


def _class_names(source: str, given: Iterable[Any], parts: Iterable[_Part]) -> tuple[str, ...]:
    """Return the names of the classes: as the data set gives them, otherwise the labels themselves."""
    labels = {label for part in parts for label in part.labels}
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        raise DatasetError(f"{source}: some labels are numbers, and others are names")
    numbers = sorted(label for label in labels if isinstance(label, int))
    named = [found for part in given if (found := _names_of(part))]
    names = named[0] if named else None
    if numbers and len(set(named)) > 1:
        raise DatasetError(
            f"{source}: the parts have different classes, such as {list(named[0])} and "
            f"{next(list(one) for one in named if one != named[0])}, so their numbers differ in meaning"
        )
    if not numbers:
        names = tuple(sorted(label for label in labels if isinstance(label, str)))
    elif names is None:
        # Ten classes whatever is missing in between: numbers of published sets have a meaning.
        names = tuple(map(str, range(numbers[-1] + 1)))
    elif numbers[-1] >= len(names):
        raise DatasetError(f"{source}: there is a label {numbers[-1]}, and {len(names)} class names")
    if len(names) < 2 or len(set(names)) < len(names):
        raise DatasetError(f"{source}: at least two classes of different names are needed, not {list(names)}")
    return names


def _names_of(part: object) -> tuple[str, ...] | None:
    """Return the class names that a data set has: Hugging Face's features, or ``classes`` as torchvision's have."""
    for column in _columns(part, "ClassLabel"):
        features: Any = getattr(part, "features", {})
        return tuple(map(str, features[column].names))
    classes = getattr(part, "classes", None)
    if isinstance(classes, Sequence) and not isinstance(classes, str) and classes:
        return tuple(map(str, classes))
    # torch's Subset, and wrappers like it.
    inner = getattr(part, "dataset", None)
    return None if inner is None else _names_of(inner)


def _divided(source: str, part: _Part, class_names: tuple[str, ...], seed: int) -> dict[str, _Part]:
    labels = _numbers(part.labels, class_names)
    for name, images in zip(class_names, torch.bincount(labels, minlength=len(class_names)).tolist(), strict=True):
        if images < SMALLEST_CLASS:
            raise DatasetError(
                f"{source}: class {name} has too few images to split ({images}); give it at least "
                f"{SMALLEST_CLASS}, or return a training and a test part"
            )
    generator = torch.Generator().manual_seed(seed)
    chosen = stratified_split(labels, (1 - TEST_SHARE, TEST_SHARE), generator)
    return {name: part.select(places.tolist()) for name, places in zip(("train", "test"), chosen, strict=True)}


def _numbers(labels: Sequence[int | str], class_names: tuple[str, ...]) -> Tensor:
    place = {name: number for number, name in enumerate(class_names)}
    return torch.tensor([place[one] if isinstance(one, str) else one for one in labels], dtype=torch.int64)


def _datasets(
    source: str, parts: Mapping[str, _Part], class_names: tuple[str, ...], store: ImageStore | None
) -> dict[str, Dataset]:
    labels = {name: _numbers(part.labels, class_names) for name, part in parts.items()}
    if store is not None:
        rows = torch.from_numpy(store.row_of)
        return {
            name: StreamedDataset(store, rows[torch.tensor(part.pixels)], labels[name])
            for name, part in parts.items()
        }
    channels = max(pixels.shape[-1] for part in parts.values() for pixels in part.pixels)
    return {name: Dataset(_stacked(source, part, channels), labels[name]) for name, part in parts.items()}


def _stored(
    source: str, given: Mapping[str, Any], resolution: Size | None, keeping: Keeping, progress: Progress
) -> ImageStore | None:
    """Return the store of all images; None if they fit into memory, or cannot be read by index."""
    if not all(hasattr(part, "__len__") and hasattr(part, "__getitem__") for part in given.values()):
        return None
    places = [(name, index) for name, part in given.items() for index in range(len(part))]
    if not places:
        return None

    def read(place: int) -> Item:
        name, index = places[place]
        part = given[name]
        where = f"{source}: item {index} of the {name} part"
        image, label = _image_and_label(where, called(source, lambda: part[index], DatasetError), part)
        pixels = _pixels(where, image)
        about = [_label(where, label), _pixel_digest(pixels).hex()]
        return Item(pixels if resolution is None else resized_pixels(pixels, resolution), about)

    first = read(0).pixels
    assert first is not None
    needed = len(places) * first.size
    if needed <= keeping.limit:
        return None
    taken = f"the images of {source} take {size(needed)}, and the limit of memory is {size(keeping.limit)}"
    if keeping.cache is None:
        raise DatasetError(
            f"{taken}: they must be stored, and there is no folder to store them in", remedy="store-images"
        )
    keeping.log(f"{taken}: they are stored in {keeping.cache}, and read from there")
    sample = sorted({len(places) * one // SAMPLED for one in range(SAMPLED)} | {len(places) - 1})
    about = {
        "factory": source,
        "resolution": resolution,
        "images": {name: len(part) for name, part in given.items()},
        "sample": [read(place).about for place in sample],
    }
    key = hashlib.sha256(repr((source, resolution)).encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", source)[:40]
    order, before = [], 0
    for number, part in enumerate(given.values()):
        order.append(before + np.random.default_rng(number).permutation(len(part)))
        before += len(part)
    making = Making(
        keeping.cache / f"{name}-{key}{SUFFIX}",
        about,
        np.concatenate(order),
        # One after the other: other people's data sets need not be made for threads.
        lambda wanted, told: (read(place) for place in counted(wanted, told, "storing images")),
        lambda place: "item {1} of the {0} part".format(*places[place]),
        grey=first.shape[-1] == 1,
    )
    return open_or_make(making, progress, keeping.log)


def _of_store(store: ImageStore, given: Mapping[str, Any]) -> dict[str, _Part]:
    parts, before = {}, 0
    for name, part in given.items():
        places = list(range(before, before + len(part)))
        labels, digests = zip(*(store.abouts[place] for place in places), strict=True)
        parts[name] = _Part(places, list(labels), [bytes.fromhex(one) for one in digests])
        before += len(part)
    return parts


def _pixel_digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _stacked(source: str, part: _Part, channels: int) -> Tensor:
    sizes = {pixels.shape[:2] for pixels in part.pixels}
    if len(sizes) > 1:
        first, second, *_ = sorted(sizes)
        raise DatasetError(
            f"{source}: images differ in size, such as {first[0]}x{first[1]} and {second[0]}x{second[1]} pixels",
            remedy="resize",
        )
    ((height, width),) = sizes
    stacked = np.empty((len(part.pixels), height, width, channels), np.uint8)
    for place, pixels in enumerate(part.pixels):
        # One channel becomes three of the same.
        stacked[place] = pixels
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def _digest(parts: Mapping[str, _Part], class_names: tuple[str, ...]) -> str:
    found = hashlib.sha256(repr(class_names).encode())
    for name in sorted(parts):
        found.update(name.encode())
        for label, digest in zip(parts[name].labels, parts[name].digests, strict=True):
            found.update(repr(label).encode() + digest)
    return f"sha256:{found.hexdigest()}"
