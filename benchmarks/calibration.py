"""Shared losses that are calibrated by size: a regression from a few networks that were trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from truth_table import Agreement, agreement

from cars_hw.latency.validation import kendall_tau

FEW = 8
"""Networks that are trained for a calibration in a search."""

DRAWS = 200


def left_out(shared: Sequence[float], costs: Sequence[float], trained: Sequence[float]) -> Agreement:
    """Return how far the trained losses agree with those that a regression on all other networks predicts.

    The regression is linear in the shared loss and the logarithm of the cost.
    """
    predicted = left_out_losses(shared, costs, trained)
    return agreement([-one for one in predicted], [-one for one in trained])


def left_out_losses(shared: Sequence[float], costs: Sequence[float], trained: Sequence[float]) -> list[float]:
    """Return for each network the trained loss that the regression on all other networks predicts."""
    features, target = _features(shared, costs), np.array(trained)
    places = np.arange(len(target))
    return [float(_predicted(features, target, places != place)[place]) for place in places]


def from_few(
    shared: Sequence[float], costs: Sequence[float], trained: Sequence[float]
) -> tuple[float, float] | None:
    """Return two means of Kendall's tau over draws of :data:`FEW` trained networks, taken over the others.

    The first is that of the regression from the drawn ones, the second that of the shared losses as they are. None,
    if there are too few networks.
    """
    if len(trained) < 2 * FEW:
        return None
    features, target = _features(shared, costs), np.array(trained)
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(DRAWS):
        known = np.zeros(len(target), dtype=bool)
        known[rng.choice(len(target), FEW, replace=False)] = True
        orders = (_predicted(features, target, known), np.array(shared))
        taus.append([kendall_tau(list(order[~known]), list(target[~known])) or 0.0 for order in orders])
    calibrated, plain = np.mean(taus, axis=0)
    return float(calibrated), float(plain)


def _features(shared: Sequence[float], costs: Sequence[float]) -> np.ndarray:
    columns = [np.ones(len(costs)), np.array(shared), np.log(np.array(costs, dtype=float))]
    return np.stack(columns, axis=1)


def _predicted(features: np.ndarray, target: np.ndarray, known: np.ndarray) -> np.ndarray:
    weights, *_ = np.linalg.lstsq(features[known], target[known], rcond=None)
    return features @ weights
