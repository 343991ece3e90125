"""A small network and a table of the fake device for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_descents import descend_once
from PIL import Image

from cars_hw.callbacks import ProfileCallback
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.space.network_spec import NetworkSpec

TINY = NetworkSpec(4, 3, (8, 8), 1, classes=3)


class Followed(ProfileCallback):
    """Keeps what a profile tells, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def on_start(self, device: str, conditions: Mapping[str, Any]) -> None:
        self.told.append(("start", device, conditions))

    def on_operations(self, table: LatencyTable) -> None:
        self.told.append(("operations", table))

    def on_end(self, table: LatencyTable, path: Path | None) -> None:
        assert path is not None
        self.told.append(("end", table, path, path.exists()))


@pytest.fixture(scope="session")
def tiny_profile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Followed]:
    """A table of the fake device for a network of 4 channels and 3 cells on 8x8 images, and what was told."""
    path, followed = tmp_path_factory.mktemp("tables") / "tiny.json", Followed()
    profile_device(FakeDevice(), TINY, calibration=8, out=path, plan=MeasurePlan(sessions=1), callbacks=[followed])
    return path, followed


@pytest.fixture(scope="session")
def tiny_table(tiny_profile: tuple[Path, Followed]) -> Path:
    """A table of the fake device for a network of 4 channels and 3 cells on 8x8 images."""
    return tiny_profile[0]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 classes of 64 grey images of 8x8: striped along, striped across, plain; with noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("across", "along", "plain"):
        (folder / name).mkdir()
        for number in range(64):
            pixels = rng.integers(0, 90, (8, 8), dtype=np.uint8)
            pixels[::2, :] += 140 * (name == "across")
            pixels[:, ::2] += 140 * (name == "along")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def table(tiny_table: Path) -> LatencyTable:
    """The same, read."""
    return LatencyTable.read(tiny_table)


@pytest.fixture(autouse=True, scope="module")
def one_descent() -> Iterator[None]:
    """Let each search of a module descend once to its smallest network, also in the fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        descend_once(patch)
        yield
