from __future__ import annotations

import pytest

from cars_hw.devices import Measurement
from cars_hw.latency.predictor import Prediction
from cars_hw.latency.validate import compare
from cars_hw.zoo import zoo


def test_the_figures_by_hand() -> None:
    genotypes = [published.genotype for published in zoo().values()][:4]
    predicted = [Prediction(ms, ms * 1.1) for ms in (10.4, 20.0, 27.6, 43.6)]
    measured = [
        Measurement(ms, (ms,), spread) for ms, spread in ((10.0, 0.01), (25.0, 0.02), (24.0, 0.03), (40.0, 0.04))
    ]
    result = compare(genotypes, predicted, measured, 0.9)
    # The relative errors are 4%, -20%, 15% and 9%.
    assert [row.error for row in result.rows] == pytest.approx([0.04, -0.20, 0.15, 0.09])
    assert result.mean_error == pytest.approx(0.12)
    assert result.bias == pytest.approx(0.02)
    assert result.within_5 == 0.25
    assert result.within_10 == pytest.approx(0.5)
    # Of six pairs one is in the wrong order: 20 before 27.6, and 25 after 24.
    assert result.kendall_tau == pytest.approx((5 - 1) / 6)
    # Only the 25 are above their bound, 22.
    assert result.coverage == 0.75
    assert (result.level, result.noise) == (0.9, 0.025)


def test_a_single_network_has_no_order() -> None:
    only = compare([zoo()["CARS_A"].genotype], [Prediction(1.0, 1.1)], [Measurement(1.0, (1.0,), 0.0)], 0.95)
    assert only.kendall_tau is None
    assert only.drift is None
    assert only.to_dict()["kendall_tau"] is None
