"""Three simpler predictors, with which that of a latency table is compared.

Each is fitted to the same data, the table and its calibration networks, and sees none of the evaluated networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cars_hw.latency.fit import FloatArray
from cars_hw.latency.keys import genotype_keys, key_counts
from cars_hw.latency.table import LatencyTable
from cars_hw.nn.cost import network_cost
from cars_hw.space.genotype import Genotype

PENALTIES: Final = tuple(float(penalty) for penalty in np.logspace(-4, 3, 15))


def baselines(table: LatencyTable, genotypes: Sequence[Genotype]) -> dict[str, list[float]]:
    """Return, by baseline, the latency in milliseconds that it predicts for each of ``genotypes``.

    ``multiply-adds`` is the best affine function of a network's multiply-adds, ``table sum`` the sum of the
    isolated operations as they were measured, and ``operation counts`` a ridge regression on how often a network
    runs each operation, its penalty chosen by leave-one-out.
    """
    known = [network.genotype for network in table.calibration]
    measured = np.array([network.measured.ms for network in table.calibration])
    # Like the predictor, they are fitted by relative error.
    weights = measured**-2.0 / np.mean(measured**-2.0)
    return {
        "multiply-adds": _affine(table, known, measured, weights, genotypes),
        "table sum": [
            sum(table.entries[str(placed.key)].ms for placed in genotype_keys(table.spec, genotype))
            for genotype in genotypes
        ],
        "operation counts": _counted(table, known, measured, weights, genotypes),
    }


def _affine(
    table: LatencyTable,
    known: Sequence[Genotype],
    measured: FloatArray,
    weights: FloatArray,
    genotypes: Sequence[Genotype],
) -> list[float]:
    from sklearn.linear_model import LinearRegression

    def millions(of: Sequence[Genotype]) -> FloatArray:
        return np.array([[network_cost(table.spec, genotype).multiply_adds / 1e6] for genotype in of])

    model = LinearRegression().fit(millions(known), measured, sample_weight=weights)
    return [float(ms) for ms in model.predict(millions(genotypes))]


def _counted(
    table: LatencyTable,
    known: Sequence[Genotype],
    measured: FloatArray,
    weights: FloatArray,
    genotypes: Sequence[Genotype],
) -> list[float]:
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(key_counts(table.spec, known))
    model = RidgeCV(alphas=PENALTIES).fit(
        scaler.transform(key_counts(table.spec, known)), measured, sample_weight=weights
    )
    return [float(ms) for ms in model.predict(scaler.transform(key_counts(table.spec, genotypes)))]
