"""Three simpler predictors, with which that of a latency table is compared.

Each is fitted to the same data, the table and its calibration networks, and sees none of the evaluated networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cars_hw.latency.keys import counts_of, keys_of
from cars_hw.latency.line import FloatArray
from cars_hw.latency.table import LatencyTable
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture import Architecture

PENALTIES: Final = tuple(float(penalty) for penalty in np.logspace(-4, 3, 15))


def baselines(table: LatencyTable, networks: Sequence[Architecture]) -> dict[str, list[float]]:
    """Return, by baseline, the latency in milliseconds that it predicts for each of ``networks``.

    ``multiply-adds`` is the best affine function of a network's multiply-adds, ``table sum`` the sum of the
    isolated operations as they were measured, and ``operation counts`` a ridge regression on how often a network
    runs each operation, its penalty chosen by leave-one-out.
    """
    known = table.calibrated
    measured = np.array([network.measured.ms for network in table.calibration])
    # Like the predictor, they are fitted by relative error.
    weights = measured**-2.0 / np.mean(measured**-2.0)
    return {
        "multiply-adds": _affine(known, measured, weights, networks),
        "table sum": _sums(table, networks),
        "operation counts": _counted(known, measured, weights, networks),
    }


def _sums(table: LatencyTable, networks: Sequence[Architecture]) -> list[float]:
    keys = keys_of(networks)
    isolated = table.operation_costs.of(keys) + table.overhead_ms
    return [float(ms) for ms in counts_of(keys, networks) @ isolated]


def _affine(
    known: Sequence[Architecture], measured: FloatArray, weights: FloatArray, networks: Sequence[Architecture]
) -> list[float]:
    from sklearn.linear_model import LinearRegression

    def millions(of: Sequence[Architecture]) -> FloatArray:
        return np.array([[network_cost(network, genotype).multiply_adds / 1e6] for genotype, network in of])

    model = LinearRegression().fit(millions(known), measured, sample_weight=weights)
    return [float(ms) for ms in model.predict(millions(networks))]


def _counted(
    known: Sequence[Architecture], measured: FloatArray, weights: FloatArray, networks: Sequence[Architecture]
) -> list[float]:
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    keys = keys_of([*known, *networks])
    scaler = StandardScaler().fit(counts_of(keys, known))
    model = RidgeCV(alphas=PENALTIES).fit(scaler.transform(counts_of(keys, known)), measured, sample_weight=weights)
    return [float(ms) for ms in model.predict(scaler.transform(counts_of(keys, networks)))]
