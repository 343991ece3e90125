from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount

from cars_hw.devices import Measurement, Sample
from cars_hw.errors import InputError, TableError
from cars_hw.latency import Coefficients, LatencyTable, OpKey, Predictor, genotype_keys
from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.conformal import conformal_margin
from cars_hw.latency.keys import node_keys
from cars_hw.latency.predictor import REPEATABILITY, fit_coefficients
from cars_hw.latency.sums import OperationSums
from cars_hw.latency.table import Reference
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.nn.cost import network_cost
from cars_hw.space.genotype import Edge, Genotype, Node
from cars_hw.space.network_spec import NETWORKS, CellLayout
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

MakeTable = Callable[..., LatencyTable]


def exactly(ms: float) -> Measurement:
    return Measurement(ms, (Sample(ms), Sample(ms)), 0.0)


@pytest.mark.parametrize(("slope", "intercept"), [(0.8, 0.3), (1.0, 0.0), (0.6, 0.05)])
def test_a_correction_that_is_there_is_found(
    make_table: MakeTable, genotypes: list[Genotype], slope: float, intercept: float
) -> None:
    table = make_table(slope=slope, intercept=intercept)
    predictor = Predictor(table)
    costs = table.costs()
    for genotype in genotypes:
        by_hand = sum(costs[str(placed.key)] for placed in genotype_keys(table.spec, genotype))
        prediction = predictor.predict(genotype)
        assert prediction.ms == pytest.approx(slope * by_hand + intercept, rel=1e-5)
        # Nothing is left but how far two measurements are apart.
        assert prediction.bound_ms == pytest.approx(prediction.ms * (1 + predictor.margin))
    assert predictor.margin == pytest.approx(conformal_margin((0.0,) * 12, 0.95, REPEATABILITY)[0], rel=1e-3)


@pytest.mark.parametrize("name", ["quick", "imagenet"])
def test_the_fast_sum_is_the_slow_sum(name: str) -> None:
    spec = NETWORKS[name]
    rng = np.random.default_rng(5)
    few = SearchSpace(("none", "skip_connect", "avg_pool_3x3"))
    everything = [
        *(SearchSpace().sample(rng) for _ in range(60)),
        *(few.sample(rng) for _ in range(60)),
        *(published.genotype for published in zoo().values()),
    ]
    keys = {str(placed.key) for genotype in everything for placed in genotype_keys(spec, genotype)}
    costs = {key: float(rng.uniform(0.01, 1.0)) for key in sorted(keys)}
    sums = OperationSums(spec, costs)
    for genotype in everything:
        slow = sum(costs[str(placed.key)] for placed in genotype_keys(spec, genotype))
        assert sums.total(genotype) == pytest.approx(slow)
        assert sums.total(genotype) == sums.total(genotype)


def test_what_was_predicted_once_is_looked_up(make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    added = 0

    def counting(layout: CellLayout, node: Node) -> Iterator[tuple[OpKey, str]]:
        nonlocal added
        added += 1
        return node_keys(layout, node)

    monkeypatch.setattr("cars_hw.latency.sums.node_keys", counting)
    predictor = Predictor(make_table())
    rng = np.random.default_rng(0)
    hundred = [SearchSpace().sample(rng) for _ in range(100)]
    first = [predictor.predict(genotype) for genotype in hundred]
    assert added > 100
    before = added
    assert [predictor.predict(genotype) for genotype in hundred] == first
    assert added == before


def test_a_prediction_depends_on_the_file_alone(
    make_table: MakeTable, genotypes: list[Genotype], tmp_path: Path
) -> None:
    table = make_table(noise=0.02)
    table.write(tmp_path / "table.json")
    read = LatencyTable.read(tmp_path / "table.json")
    once, backwards = Predictor(table), Predictor(read)
    expected = [once.predict(genotype) for genotype in genotypes]
    assert [backwards.predict(genotype) for genotype in reversed(genotypes)] == expected[::-1]


def test_the_bound_is_the_prediction_and_its_margin(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    table = make_table(noise=0.05, networks=24)
    predictor = Predictor(table)
    assert table.predictor is not None
    residuals = table.predictor.residuals
    assert predictor.margin == pytest.approx(conformal_margin(residuals, 0.95, REPEATABILITY)[0])
    assert predictor.margin > 0.01
    assert predictor.level == 0.95
    prediction = predictor.predict(genotypes[0])
    assert prediction.bound_ms == pytest.approx(prediction.ms * (1 + predictor.margin))
    assert predictor.bound(genotypes[0]) == prediction.bound_ms
    assert Predictor(table, level=0.5).margin < predictor.margin
    # The reference network was 4% faster when the networks were measured than before: not within 1%.
    wandered = replace(table, reference=Reference(genotypes[0], exactly(0.96), 1.0, 0.96))
    assert Predictor(wandered).margin == pytest.approx(conformal_margin(residuals, 0.95, 0.04)[0])
    steady = replace(table, reference=Reference(genotypes[0], exactly(1.0), 1.0, 1.005))
    assert Predictor(steady).margin == predictor.margin
    assert Predictor(table, level=0.99).level == pytest.approx(24 / 25)


def test_the_bound_covers_new_networks(make_table: MakeTable) -> None:
    covered = []
    for seed in range(12):
        table = make_table(noise=0.05, networks=24, seed=seed)
        predictor, sums = Predictor(table, level=0.9), OperationSums(table.spec, table.costs())
        rng = np.random.default_rng(100 + seed)
        for _ in range(50):
            genotype = SearchSpace().sample(rng)
            measured = (0.8 * sums.total(genotype) + 0.3) * float(np.exp(0.05 * rng.standard_normal()))
            covered.append(measured <= predictor.bound(genotype))
    assert 0.85 <= np.mean(covered) <= 0.98


def test_where_the_time_goes_adds_up(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    table = make_table()
    predictor = Predictor(table)
    for genotype in [*genotypes[:5], zoo()["SNAS_aggressive"].genotype]:
        parts = predictor.breakdown(genotype)
        assert parts.ms == predictor.predict(genotype).ms
        assert parts.stem + sum(parts.cells) + parts.head + parts.other == pytest.approx(parts.ms)
        assert sum(parts.operations.values()) + parts.other == pytest.approx(parts.ms)
        assert len(parts.cells) == table.spec.layers
        assert list(parts.operations.values()) == sorted(parts.operations.values(), reverse=True)
        assert {"stem_cifar", "head", "concat"} <= set(parts.operations)


@pytest.mark.parametrize("seed", range(amount(12, 60)))
def test_no_part_is_negative_and_what_is_computed_takes_time(make_table: MakeTable, seed: int) -> None:
    """Also where the measurements are noisy, and the best line would begin below zero."""
    rng = np.random.default_rng(seed)
    intercept, noise = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0, 0.15))
    table = make_table(slope=float(rng.uniform(0.3, 1.2)), intercept=intercept, noise=noise, networks=16, seed=seed)
    machine = Machine((MachineState("quiet", 0.5, 1.0), MachineState("slower", 0.5, 1.5)), (1.0, 1.5), 0.01)
    predictor = Predictor(replace(table, machine=machine), state=str(rng.choice(["quiet", "usual", "0.9"])))
    for genotype in (SearchSpace().sample(rng) for _ in range(20)):
        parts = predictor.breakdown(genotype)
        assert min(parts.stem, parts.head, parts.other, *parts.cells, *parts.operations.values()) >= 0
        assert parts.stem + sum(parts.cells) + parts.head + parts.other == pytest.approx(parts.ms)
        assert sum(parts.operations.values()) + parts.other == pytest.approx(parts.ms)
        placed = predictor.parts(genotype)
        assert all(part.ms >= 0 for part in placed)
        convolving = {part.placed.cell for part in placed if "conv" in part.placed.key.kind} - {None}
        assert convolving
        assert all(parts.cells[cell] > 0.001 * parts.ms for cell in convolving if cell is not None)


def test_a_state_multiplies_every_part(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    machine = Machine((MachineState("quiet", 0.6, 1.0), MachineState("slower", 0.4, 1.5)), (1.0, 1.5), 0.01)
    table = replace(make_table(), machine=machine)
    quiet, slower = Predictor(table), Predictor(table, state="1")
    for genotype in genotypes[:5]:
        made = slower.composition(genotype)
        assert made.factor == 1.5
        assert made.ms == pytest.approx(1.5 * quiet.predict(genotype).ms)
        assert made.ms == pytest.approx(slower.predict(genotype).ms)
        assert made[:4] == quiet.composition(genotype)[:4]
        assert [part.ms for part in slower.parts(genotype)] == pytest.approx(
            [1.5 * part.ms for part in quiet.parts(genotype)]
        )
    with pytest.raises(InputError, match="'fast' is no state"):
        Predictor(table, state="fast")


def test_a_prediction_is_made_of_parts_that_can_be_added_by_hand(make_table: MakeTable) -> None:
    table = make_table()
    spec = table.spec
    # Every operation takes 1 ms beyond the overhead of 0.01 ms, and pooling 3 ms; a key is its text.
    entries = {key: exactly(0.01 + (3.0 if "pool" in key else 1.0)) for key in table.entries}
    coefficients = Coefficients(0.5, 0.25, 0.0, (0.0,) * 12, kind="ridge", factors={"avg_pool_3x3": 2.0})
    predictor = Predictor(replace(table, entries=entries, predictor=coefficients))
    pooled = ((Edge("avg_pool_3x3", 1), Edge("none", 0)),) * 4
    parts = predictor.parts(Genotype(pooled, pooled))
    # A cell reads its second input only: one preprocessing, four poolings, a concatenation, and its output's ReLU
    # but for the last cell's, which nobody reads; outside of cells the stem, its ReLU and the head.
    by_place = [sum(ms for placed, ms in parts if placed.cell == cell) for cell in range(spec.layers)]
    assert by_place == pytest.approx([0.5 * (1 + 4 * 6 + 1 + 1)] * 4 + [0.5 * (1 + 4 * 6 + 1)])
    assert sum(ms for placed, ms in parts if placed.cell is None) == pytest.approx(0.5 * 3)
    made = predictor.composition(Genotype(pooled, pooled))
    operations = 3 + 5 * 2 + 4
    assert made.isolated_ms == pytest.approx(operations + 5 * 4 * 3)
    assert made.corrected_ms == pytest.approx(operations + 5 * 4 * 6)
    assert made.ms == pytest.approx(0.5 * made.corrected_ms + 0.25)
    assert made.ms == pytest.approx(sum(ms for _, ms in parts) + 0.25)
    assert (made.slope, made.intercept_ms) == (0.5, 0.25)


def test_weights_beyond_the_cache_are_a_part_of_the_operations_that_have_them(
    make_table: MakeTable, genotypes: list[Genotype]
) -> None:
    plain = make_table()
    assert plain.predictor is not None
    # A thousandth of a megabyte is less than any of these networks has.
    spilling = replace(plain.predictor, cache_mb=0.001, spill_ms=7.0)
    without, with_spill = Predictor(plain), Predictor(replace(plain, predictor=spilling))
    for genotype in genotypes[:5]:
        megabytes = 4 * network_cost(plain.spec, genotype).parameters / 2**20
        added = 7.0 * (megabytes - 0.001)
        assert added > 0
        assert with_spill.predict(genotype).ms == pytest.approx(without.predict(genotype).ms + added)
        made = with_spill.composition(genotype)
        assert made.spill_ms == pytest.approx(added)
        assert made.ms == pytest.approx(with_spill.predict(genotype).ms)
        for one, other in zip(with_spill.parts(genotype), without.parts(genotype), strict=True):
            share = 4 * key_cost(one.placed.key).parameters / 2**20 / megabytes
            assert one.ms == pytest.approx(other.ms + added * share)


@pytest.mark.parametrize(("block", "factor"), [(4, 1.5), (8, 2.5)])
def test_the_factor_of_the_width_multiplies_the_operations(
    make_table: MakeTable, genotypes: list[Genotype], block: int, factor: float
) -> None:
    plain = make_table()
    assert plain.predictor is not None
    # The table's network has 4 channels: a multiple of 4, and none of 8.
    widths = replace(plain.predictor, width_block=block, width_multiples=1.5, width_others=2.5)
    without, with_widths = Predictor(plain), Predictor(replace(plain, predictor=widths))
    intercept = plain.predictor.intercept_ms
    for genotype in genotypes[:5]:
        operations = without.predict(genotype).ms - intercept
        predicted = with_widths.predict(genotype)
        assert predicted.ms == pytest.approx(factor * operations + intercept)
        made = with_widths.composition(genotype)
        assert made.slope == pytest.approx(factor * plain.predictor.slope)
        assert made.ms == pytest.approx(predicted.ms)
        assert sum(part.ms for part in with_widths.parts(genotype)) == pytest.approx(factor * operations)


def test_unaligned_operations_have_their_own_slope(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    plain = make_table()
    assert plain.predictor is not None
    # The table's network has 4, 8 and 16 channels.
    aligned = Predictor(replace(plain, predictor=replace(plain.predictor, block=8, unaligned=3.0)))
    for one, other in zip(aligned.parts(genotypes[0]), Predictor(plain).parts(genotypes[0]), strict=True):
        key = one.placed.key
        ratio = 1.0 if math.gcd(key.source.channels, key.channels) % 8 == 0 else 3.0
        assert one.ms == pytest.approx(ratio * other.ms)


def test_a_table_without_a_predictor_or_with_an_unknown_one_is_refused(make_table: MakeTable) -> None:
    table = make_table()
    with pytest.raises(TableError, match="no predictor"):
        Predictor(replace(table, predictor=None))
    with pytest.raises(TableError, match="unknown kind, forest"):
        Predictor(replace(table, predictor=replace(table.predictor, kind="forest")))
    with pytest.raises(InputError, match="level"):
        Predictor(table, level=1.0)


def test_three_networks_are_too_few(make_table: MakeTable) -> None:
    table = make_table()
    with pytest.raises(InputError, match="at least 4"):
        fit_coefficients(table, table.calibration[:3])
