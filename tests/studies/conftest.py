"""A folder of small images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from few_descents import descend_once
from PIL import Image


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 40 grey images of 8x8: dark, light, and dark above light; with noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, upper, lower in (("dark", 20, 20), ("light", 180, 180), ("both", 20, 180)):
        (folder / name).mkdir()
        for number in range(40):
            pixels = rng.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[:4] += upper
            pixels[4:] += lower
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_descent() -> Iterator[None]:
    """Let each search of a module descend once to its smallest network, also in the fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        descend_once(patch)
        yield
