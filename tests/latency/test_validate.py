from __future__ import annotations

import pytest

from cars_hw.config.codec import unstructure
from cars_hw.devices import Measurement, Sample
from cars_hw.latency.predictor import Prediction
from cars_hw.latency.validation import compare
from cars_hw.space.zoo import zoo


def test_the_figures_by_hand() -> None:
    genotypes = [published.genotype for published in zoo().values()][:4]
    predicted = [Prediction(ms, ms * 1.1) for ms in (10.4, 20.0, 27.6, 43.6)]
    measured = [
        Measurement(ms, (Sample(ms),), spread)
        for ms, spread in ((10.0, 0.01), (25.0, 0.02), (24.0, 0.03), (40.0, 0.04))
    ]
    result = compare(genotypes, predicted, measured, 0.9)
    # The relative errors are 4%, -20%, 15% and 9%.
    assert [row.error for row in result.rows] == pytest.approx([0.04, -0.20, 0.15, 0.09])
    assert result.accuracy.mean_error == pytest.approx(0.12)
    assert result.accuracy.bias == pytest.approx(0.02)
    assert result.accuracy.within_5 == 0.25
    assert result.accuracy.within_10 == pytest.approx(0.5)
    # Of six pairs one is in the wrong order: 20 before 27.6, and 25 after 24.
    assert result.accuracy.kendall_tau == pytest.approx((5 - 1) / 6)
    # Only the 25 are above their bound, 22.
    assert result.coverage == 0.75
    assert (result.level, result.noise) == (0.9, 0.025)


def test_a_single_network_has_no_order() -> None:
    only = compare(
        [zoo()["CARS_A"].genotype], [Prediction(1.0, 1.1)], [Measurement(1.0, (Sample(1.0),), 0.0)], 0.95
    )
    assert only.accuracy.kendall_tau is None
    assert only.drift is None
    assert only.noise_floor is None
    assert unstructure(only)["accuracy"]["kendall_tau"] is None


def test_the_noise_floor_is_how_far_two_measurements_differ() -> None:
    genotypes = [published.genotype for published in zoo().values()][:2]
    first, second = (
        [Measurement(ms, (Sample(ms),), 0.0) for ms in times] for times in ((10.0, 20.0), (11.0, 19.0))
    )
    result = compare(genotypes, [Prediction(10.0, 10.5), Prediction(20.0, 21.0)], first, 0.95, again=second)
    assert [row.again_ms for row in result.rows] == [11.0, 19.0]
    assert result.noise_floor == pytest.approx((0.1 + 0.05) / 2)
    # Predictions are held against the first.
    assert result.accuracy.mean_error == 0.0
