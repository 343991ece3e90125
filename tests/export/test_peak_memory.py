"""Memory and file size before anything is written, beside those of LiteRT and of the files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount

from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS
from cars_hw.export.lower import lower_network
from cars_hw.export.memory import Life, activation_bytes, arena_bytes, file_bytes
from cars_hw.export.quantize import quantize
from cars_hw.export.tflite_memory import runtime_activation_bytes
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import resolve_genotype

SPECS = (
    NetworkSpec(8, 5, (28, 28), 1),
    NetworkSpec(12, 8, (31, 20), 3),
    NetworkSpec(16, 6, (96, 96), 3, classes=100, stem="imagenet"),
)
TFLITE = FORMATS["tflite"]


def cases() -> list[Architecture]:
    rng = np.random.default_rng(3)
    space = SearchSpace()
    drawn = [Architecture(space.sample(rng), spec) for spec in SPECS for _ in range(amount(2, 12))]
    return [Architecture(resolve_genotype("CARS_D"), SPECS[0]), *drawn]


def written(architecture: Architecture, export_format: ExportFormat = TFLITE) -> bytes:
    spec, genotype = architecture.network, architecture.genotype
    return export_format.write(lower_network(seeded(lambda: Network(spec, genotype), "x")))


def arena_of_runtime(model: bytes, folder: Path) -> int:
    (folder / "model.tflite").write_bytes(model)
    return runtime_activation_bytes(folder / "model.tflite")


@pytest.mark.parametrize("architecture", cases(), ids=lambda one: one.network.describe().replace(" ", ""))
def test_memory_and_file_are_those_of_the_runtime(architecture: Architecture, tmp_path: Path) -> None:
    model = written(architecture)
    assert activation_bytes(architecture) == pytest.approx(arena_of_runtime(model, tmp_path), rel=0.05)
    assert file_bytes(architecture) == pytest.approx(len(model), rel=0.03)
    assert file_bytes(architecture) == pytest.approx(len(written(architecture, FORMATS["onnx"])), rel=0.1)


def test_an_int8_model_takes_as_much_as_is_estimated(tmp_path: Path) -> None:
    architecture = Architecture(resolve_genotype("CARS_D"), NetworkSpec(24, 5, (28, 28), 1))
    model = written(architecture)
    feeds = [{"image": np.random.default_rng(0).standard_normal((1, 28, 28, 1), np.float32)}]
    quantised = quantize(model, TFLITE, feeds)
    assert file_bytes(architecture, "int8") == pytest.approx(len(quantised), rel=0.1)
    assert activation_bytes(architecture, "int8") == pytest.approx(arena_of_runtime(quantised, tmp_path), rel=0.1)


def test_tensors_that_live_at_the_same_time_have_places_of_their_own() -> None:
    assert arena_bytes([]) == 0
    assert arena_bytes([Life(100, 0, 0), Life(50, 1, 2)]) == 100
    # 100 bytes are followed by 28 that nothing uses.
    assert arena_bytes([Life(100, 0, 1), Life(50, 1, 2)]) == 128 + 50
    # The small one takes the smallest gap that holds it.
    lives = [Life(640, 0, 9), Life(320, 0, 1), Life(256, 0, 9), Life(64, 2, 3)]
    assert arena_bytes(lives) == 640 + 256 + 320


def test_no_placement_overlaps_and_it_is_at_least_what_lives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = rng.integers(0, 20, 30)
        lives = [Life(int(rng.integers(1, 2000)), int(at), int(at + rng.integers(0, 6))) for at in starts]
        needed = max(sum(one.size for one in lives if one.first <= at <= one.last) for at in range(26))
        assert needed <= arena_bytes(lives) <= sum(-(-one.size // 64) * 64 for one in lives)
    sizes = [arena_bytes([Life(64, 0, 1)] * count) for count in range(1, 9)]
    assert all(later - before == 64 for before, later in pairwise(sizes))
