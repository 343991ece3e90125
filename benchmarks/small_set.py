"""A small, imbalanced set of images: 450 for training, 20 for validation and 20 for tests, in three classes.

    python benchmarks/small_set.py FOLDER

The images are grey, 14x14, and made of noise from a seed. Rows are brighter in class ``a``, columns in ``b``, and a
square in the middle in ``c``; 60%, 30% and 10% of the images are of these classes. So few test images leave the
accuracy open by twenty percentage points in either direction, which is what the set is for.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PARTS: Final = {"train": 450, "val": 20, "test": 20}
SHARES: Final = {"a": 0.6, "b": 0.3, "c": 0.1}
SIDE: Final = 14


def write(folder: Path, seed: int = 0, contrast: float = 16.0) -> None:
    """Write the set to ``folder``: a folder for each part, and in it one for each class.

    ``contrast`` is how much brighter a pattern is, where the noise has a standard deviation of 60.
    """
    rng = np.random.default_rng(seed)
    for part, images in PARTS.items():
        for name, share in SHARES.items():
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(round(share * images)):
                pixels = rng.normal(110, 60, (SIDE, SIDE)) + contrast * _pattern(name)
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place / f"{number:03d}.png")


def _pattern(name: str) -> NDArray[np.float64]:
    """Return where class ``name`` is brighter: 1, and 0 elsewhere, of shape (SIDE, SIDE)."""
    found = np.zeros((SIDE, SIDE))
    if name == "a":
        found[::2] = 1
    elif name == "b":
        found[:, ::2] = 1
    else:
        found[4:10, 4:10] = 1
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
