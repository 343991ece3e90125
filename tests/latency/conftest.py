from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cars_hw.devices import Measurement, Sample
from cars_hw.latency import CalibrationNetwork, LatencyTable, spec_keys
from cars_hw.latency.predictor import fit_coefficients
from cars_hw.latency.sums import OperationSums
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(channels=4, layers=5, resolution=(9, 8), in_channels=1)

MakeTable = Callable[..., LatencyTable]


def exactly(ms: float) -> Measurement:
    return Measurement(ms, (Sample(ms), Sample(ms)), 0.0)


@pytest.fixture
def make_table() -> MakeTable:
    """Make a table of random operations whose networks take ``slope * sum + intercept``, give or take ``noise``."""

    def make(
        *, slope: float = 0.8, intercept: float = 0.3, noise: float = 0.0, networks: int = 12, seed: int = 0
    ) -> LatencyTable:
        rng = np.random.default_rng(seed)
        overhead = 0.01
        entries = {str(key): exactly(overhead + round(float(rng.uniform(0.01, 0.1)), 6)) for key in spec_keys(SPEC)}
        table = LatencyTable(
            device="fake",
            precision="fp32",
            threads=1,
            spec=SPEC,
            created="2000-01-01T00:00:00+00:00",
            conditions={"processor": "none", "load": [0.5, 0.25, 0.125]},
            plan={"sessions": 2},
            overhead=exactly(overhead),
            entries=entries,
        )
        sums = OperationSums(SPEC, table.costs())
        calibration = []
        for _ in range(networks):
            genotype = SearchSpace().sample(rng)
            ms = (slope * sums.total(genotype) + intercept) * float(np.exp(noise * rng.standard_normal()))
            calibration.append(CalibrationNetwork(genotype, exactly(ms)))
        return replace(table, calibration=tuple(calibration), predictor=fit_coefficients(table, calibration))

    return make


@pytest.fixture
def genotypes() -> list[Genotype]:
    rng = np.random.default_rng(3)
    return [SearchSpace().sample(rng) for _ in range(40)]
