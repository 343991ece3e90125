"""Settings of the data: where the images come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cars_hw.config.setting import Settings, setting


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
