"""Settings of the data: where the images come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from cars_hw.config.files import expanded
from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError
from cars_hw.plugins import IMPORTABLE, plugin_value

DATA_SETS: Final = ("fashion-mini", "fashion-mnist", "cifar10")
"""The data sets that have a name."""


GROUP: Final = "cars_hw.data"
"""The group of the entry points of packages with data sets of their own."""


def resolved(source: str) -> str:
    """Return ``source``, or the function that a package calls by this name: ``package.module:function``.

    Raises:
        InputError: several packages have the name.
    """
    if source in DATA_SETS or is_factory(source):
        return source
    return plugin_value(GROUP, source) or source


def is_factory(source: str) -> bool:
    """Return whether ``source`` is the name of a function that makes a data set: ``mypackage.data:make``."""
    return IMPORTABLE.fullmatch(source) is not None


def is_folder(source: str) -> bool:
    """Return whether ``source`` is the path of a folder: neither the name of a data set nor a function."""
    return source not in DATA_SETS and not is_factory(resolved(source))


NO_CACHE: Final = "off"
"""The ``image_cache`` that keeps no images."""


@dataclass(frozen=True)
class DataSource(Settings):
    """Where the images come from: see :func:`cars_hw.data.load_data`.

    ``image_cache`` is the folder in which the read images of a folder and their digests are kept, or ``off``. A
    network that is trained does not depend on it. Of ``memory``, it depends only on whether the images fit: larger
    data sets are shuffled by blocks, see :mod:`cars_hw.data.streamed`.
    """

    source: str = setting(
        help="fashion-mini (embedded), fashion-mnist, cifar10, a folder of class folders, or "
        "package.module:function, a Python function that returns a data set.",
        option="--data",
    )
    root: Path | None = setting(
        None, help="The folder of downloaded sets. [~/.cache/cars-hw/data]", option="--data-root", folder=True
    )
    download: bool = setting(
        False, help="Fetch cifar10 or fashion-mnist if it is missing; nothing is fetched without this option."
    )
    skip_unreadable: bool = setting(
        False, help="Leave out the images of a folder that cannot be read, and print their number."
    )
    image_cache: str | None = setting(
        None,
        help="The folder that keeps decoded images and the digests of files for the next command; off: nothing is "
        "kept, and all files are read and hashed anew. [~/.cache/cars-hw/images]",
        metavar="FOLDER|off",
    )
    memory: int | None = setting(
        None,
        help="Memory that the images may take, such as 2GB. A larger data set is stored in the folder of "
        "--image-cache once, and read from there in use. [half of the machine's memory]",
        option="--data-memory",
        unit="bytes",
        minimum=1,
        maximum=10**15,
        kind="memory",
    )

    ADDED: ClassVar = frozenset({"memory"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source.strip():
            # An empty path would be the working directory: a variable of a shell that has no value.
            raise InputError("source must name a data set or a folder; it is empty")

    def absolute(self) -> DataSource:
        """Return the same source with absolute paths, so that it is found from any folder.

        The name of a package's data set becomes that of its function.
        """
        source = resolved(self.source)
        named = not is_folder(source)
        cache = self.image_cache
        return replace(
            self,
            source=source if named else str(expanded(self.source).absolute()),
            root=None if self.root is None else expanded(self.root).absolute(),
            image_cache=cache if cache in (None, NO_CACHE) else str(expanded(cache).absolute()),
        )
