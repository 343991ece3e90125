"""The images of a final stage, divided as the search divided them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import torch

from cars_hw.config.data import DataSource
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import DataChangedError
from cars_hw.pipeline.run_data import load_frozen
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.training.judging_images import judging_parts

RESOLUTIONS: Final = 8
"""A process keeps the images of so many resolutions in memory."""


class ImagesOf(NamedTuple):
    """What is needed to load the images of a search and to divide them as the search did."""

    run: Path
    source: DataSource
    resolution: tuple[int, int] | None
    share: float
    seed: int


@lru_cache(maxsize=RESOLUTIONS)
def load_images(of: ImagesOf) -> tuple[DataBundle, Dataset]:
    """Return the images as the search divided them, and those of them that evaluate architectures.

    They are kept for the next network of this resolution that this process trains.

    Raises:
        DataChangedError: they are not those of the search.
    """
    run = RunFolder(of.run)
    manifest = run.data
    found = load_frozen(run, manifest, of.source, of.resolution, download=False)
    if found.digest != manifest.digest and not found.changes:
        raise DataChangedError(f"{found.source.source} was changed while the search runs; run the command again")
    train, judged = judging_parts(found.bundle, of.share, torch.Generator().manual_seed(of.seed))
    return replace(found.bundle, train=train, validation=None), judged
