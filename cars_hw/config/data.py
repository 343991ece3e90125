"""Settings of the data: where the images come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cars_hw.config.setting import Settings, setting

DATA_SETS: Final = ("fashion-mini", "fashion-mnist", "cifar10")
"""The data sets that have a name; every other source is a folder."""


@dataclass(frozen=True)
class DataSource(Settings):
    """Where the images come from: see :func:`cars_hw.data.load_data`."""

    source: str = setting(
        help="fashion-mini (embedded), fashion-mnist, cifar10, or a folder of class folders.", option="--data"
    )
    root: Path | None = setting(
        None, help="The folder of downloaded sets. [~/.cache/cars-hw/data]", option="--data-root", folder=True
    )
    download: bool = setting(
        False, help="Fetch cifar10 or fashion-mnist if it is missing; nothing is fetched without this option."
    )

    def absolute(self) -> DataSource:
        """Return the same source with absolute paths, so that it is found from any folder."""
        named = self.source in DATA_SETS
        return DataSource(
            self.source if named else str(Path(self.source).expanduser().absolute()),
            None if self.root is None else self.root.expanduser().absolute(),
            self.download,
        )
