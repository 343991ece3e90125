"""The ranges that int8 tells values apart in, and the bias that is taken off the classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS
from cars_hw.export.graph import Graph
from cars_hw.export.int8_refinement import _logits, best_range, refine
from cars_hw.export.lower import lower_network
from cars_hw.export.quantize import quantize
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo


def rendering_error(values: np.ndarray, low: float, high: float) -> float:
    """Return the mean squared error of 256 levels between ``low`` and ``high``, the plain way."""
    step = (high - low) / 255
    levels = np.round(low / step) * step + step * np.arange(256)
    above = np.clip(np.searchsorted(levels, values), 1, 255)
    nearest = np.minimum(np.abs(values - levels[above]), np.abs(values - levels[above - 1]))
    return float((nearest**2).mean())


def test_evenly_spread_values_keep_their_whole_range() -> None:
    values = np.linspace(-1, 3, 5000, dtype=np.float32)
    assert best_range(values, -1.0, 3.0) == (-1.0, 3.0)


def test_a_rare_outlier_is_clipped_and_the_rest_told_apart_better() -> None:
    # By hand: cutting the one at 2 off at 1 costs 1/N, a step of 1/255 instead of 2/255 gains 3 / (12 * 255**2),
    # which is more from N = 260,100 on.
    for count, clipped in ((20_000, False), (2_000_000, True)):
        values = np.append(np.random.default_rng(0).uniform(0, 1, count), 2.0).astype(np.float32)
        low, high = best_range(values, 0.0, 2.0)
        assert low == 0.0
        assert (high < 1.1) == clipped
        assert (high > 1.9) != clipped
        if clipped:
            assert rendering_error(values, low, high) < 0.7 * rendering_error(values, 0.0, 2.0)


def test_a_symmetric_range_has_zero_in_its_middle() -> None:
    assert best_range(np.linspace(0, 3, 5000, dtype=np.float32), 0.0, 3.0, "symmetric") == (-3.0, 3.0)
    assert best_range(np.linspace(-4, 1, 5000, dtype=np.float32), -4.0, 1.0, "symmetric") == (-4.0, 4.0)
    assert best_range(np.zeros(10, np.float32), 0.0, 0.0, "symmetric") == (0.0, 0.0)
    # A rare outlier is clipped, on both sides alike.
    values = np.append(np.random.default_rng(0).uniform(-1, 1, 2_000_000), -3.0).astype(np.float32)
    low, high = best_range(values, -3.0, 1.0, "symmetric")
    assert low == -high
    assert 0.9 < high < 1.6


def test_what_is_one_sided_or_constant_still_has_zero_in_its_range() -> None:
    assert best_range(np.full(10, 2.0, np.float32), 2.0, 2.0)[0] == 0.0
    assert best_range(np.zeros(10, np.float32), 0.0, 0.0) == (0.0, 0.0)
    low, high = best_range(np.linspace(-2, -1, 100, dtype=np.float32), -2.0, -1.0)
    assert low < -1.0
    assert high == 0.0


@pytest.fixture(scope="module")
def graph() -> Graph:
    network = seeded(lambda: Network(NetworkSpec(4, 3, (8, 8), 1, classes=5), zoo()["CARS_A"].genotype), "refine")
    return lower_network(network)


def made(graph: Graph, export_format: ExportFormat) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    """Return the float model, and images with a rare bright pixel that spoils the extremes."""
    images = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    images[::7, 0, 0, 0] *= 12
    if export_format.layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    return export_format.write(graph), [{"image": image[None].copy()} for image in images]


@pytest.mark.parametrize("export_format", FORMATS.values(), ids=FORMATS)
def test_the_bias_and_nothing_else_is_taken_off_the_logits(graph: Graph, export_format: ExportFormat) -> None:
    model, feeds = made(graph, export_format)
    less = np.array([1.0, -2.0, 0.5, 0.0, 3.0], np.float32)
    before, after = (
        _logits(each, export_format, feeds[:3]) for each in (model, export_format.subtract_bias(model, less))
    )
    np.testing.assert_allclose(before - after, np.tile(less, (3, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("export_format", FORMATS.values(), ids=FORMATS)
def test_refined_logits_are_right_on_average(graph: Graph, export_format: ExportFormat) -> None:
    model, feeds = made(graph, export_format)
    truth = _logits(model, export_format, feeds)
    plain = _logits(quantize(model, export_format, feeds), export_format, feeds) - truth
    refined = _logits(refine(model, export_format, feeds), export_format, feeds) - truth
    assert np.linalg.norm(refined) < np.linalg.norm(plain)
    assert np.linalg.norm(refined.mean(axis=0)) < 0.6 * np.linalg.norm(plain.mean(axis=0))
