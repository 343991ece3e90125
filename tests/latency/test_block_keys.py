"""The latency of a network of blocks is the sum of its parts, and a table has all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cars_hw.errors import GenotypeError
from cars_hw.latency import OpKey, genotype_keys, spec_keys
from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.sums import OperationSums
from cars_hw.nn.cost import network_cost
from cars_hw.report.kinds import kind_of
from cars_hw.space.genotype import BlockGenotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.space_of import space_of

SPEC = NetworkSpec(4, 5, (9, 9), 1, classes=3, family="mobile")
SPECS = (SPEC, replace(SPEC, channels=6, stem="imagenet", resolution=(64, 96)))


def test_the_keys_of_a_genotype_written_out() -> None:
    genotype = BlockGenotype(("skip", "k5_e3_se", "k3_e1", "k7_e6", "skip"))
    placed = genotype_keys(SPEC, genotype)
    assert [(str(one.key), one.cell, one.what) for one in placed] == [
        ("stem_image/c1-c4/9x9/s1", None, "stem"),
        ("block_k5_e3_se/c4-c8/9x9/s2", 1, "block"),
        ("block_k3_e1/c8/5x5/s1", 2, "block"),
        ("block_k7_e6/c8-c16/5x5/s2", 3, "block"),
        ("head_conv/c16-c64/3x3", None, "head"),
        ("head/c64-c3/3x3", None, "head"),
    ]
    assert all(OpKey.parse(str(one.key)) == one.key for one in placed)


@pytest.mark.parametrize("spec", SPECS)
def test_keys_cost_what_the_network_costs_and_sums_add_them_up(spec: NetworkSpec) -> None:
    every, rng = spec_keys(spec), np.random.default_rng(0)
    assert len(set(every)) == len(every)
    ms = {str(key): float(value) for key, value in zip(every, rng.uniform(1, 2, len(every)), strict=True)}
    sums = OperationSums(spec, ms)
    for _ in range(20):
        genotype = space_of(spec).sample(rng)
        keys = [placed.key for placed in genotype_keys(spec, genotype)]
        assert set(keys) <= set(every)
        costs = [key_cost(key) for key in keys]
        whole = network_cost(spec, genotype)
        assert sum(one.parameters for one in costs) == whole.parameters
        assert sum(one.multiply_adds for one in costs) == whole.multiply_adds
        assert sums.total(genotype) == pytest.approx(sum(ms[str(key)] for key in keys), rel=1e-12)
        assert all(kind_of(key.kind).title != key.kind for key in keys)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("k3_e1",) * 4, "has 4 blocks and the network 5"),
        (("k3_e1",) * 6, "has 6 blocks and the network 5"),
        (("k3_e1", "skip", "k3_e1", "k3_e1", "k3_e1"), "block 2 begins a stage"),
    ],
)
def test_a_genotype_that_does_not_fit_has_no_sum(blocks: tuple[str, ...], message: str) -> None:
    sums = OperationSums(SPEC, {str(key): 1.0 for key in spec_keys(SPEC)})
    with pytest.raises(GenotypeError, match=message):
        sums.total(BlockGenotype(blocks))
