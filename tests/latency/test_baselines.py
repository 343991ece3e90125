from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cars_hw.devices import Measurement, Sample
from cars_hw.latency import LatencyTable, genotype_keys
from cars_hw.latency.simple_predictors import baselines
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype

MakeTable = Callable[..., LatencyTable]


def networks(table: LatencyTable, genotypes: list[Genotype]) -> list[Architecture]:
    return [Architecture(genotype, table.spec) for genotype in genotypes]


def retimed(table: LatencyTable, latency: Callable[[Genotype], float]) -> LatencyTable:
    """Return ``table`` as if its calibration networks had taken what ``latency`` says."""
    calibration = tuple(
        replace(network, measured=Measurement(ms, (Sample(ms),), 0.0))
        for network in table.calibration
        for ms in [latency(network.genotype)]
    )
    return replace(table, calibration=calibration)


def test_each_is_right_about_a_device_that_is_as_it_assumes(
    make_table: MakeTable, genotypes: list[Genotype]
) -> None:
    table = make_table(networks=40)

    def by_multiply_adds(genotype: Genotype) -> float:
        return 0.5 + 3e-6 * network_cost(table.spec, genotype).multiply_adds

    found = baselines(retimed(table, by_multiply_adds), networks(table, genotypes))
    assert found["multiply-adds"] == pytest.approx([by_multiply_adds(genotype) for genotype in genotypes])

    def by_counts(genotype: Genotype) -> float:
        placed = genotype_keys(table.spec, genotype)
        return sum(0.1 if "conv" in one.key.kind else 0.02 for one in placed)

    found = baselines(retimed(table, by_counts), networks(table, genotypes))
    guesses, truth = np.array(found["operation counts"]), np.array([by_counts(genotype) for genotype in genotypes])
    assert np.abs(guesses / truth - 1).mean() < 0.02


def test_the_table_sum_is_of_what_was_measured_overhead_and_all(
    make_table: MakeTable, genotypes: list[Genotype]
) -> None:
    table = make_table()
    for genotype, ms in zip(genotypes, baselines(table, networks(table, genotypes))["table sum"], strict=True):
        placed = genotype_keys(table.spec, genotype)
        assert ms == pytest.approx(sum(table.costs()[str(one.key)] + 0.01 for one in placed))
