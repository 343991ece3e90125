"""A search of one network on a table over sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.devices import FakeDevice
from cars_hw.errors import TableError
from cars_hw.latency import LatencyTable, Predictor, measure_genotypes, profile_device
from cars_hw.pipeline import latency_target
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1, classes=3)
AT = replace(NETWORK, channels=6, layers=4)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
)


@pytest.fixture(scope="module")
def sized() -> LatencyTable:
    sizes = SizeGrid((4, 8), (3, 4, 5))
    return profile_device(FakeDevice(), NETWORK, sizes=sizes, calibration=10, plan=MeasurePlan(sessions=1))


def test_the_front_is_of_the_networks_size_and_measured_at_it(
    sized: LatencyTable, images: Path, tmp_path: Path
) -> None:
    predictor, rng = Predictor(sized, network=AT), np.random.default_rng(0)
    limit = float(np.median([predictor.bound(SearchSpace().sample(rng)) for _ in range(50)]))
    target = LatencyTarget(sized, limit, FakeDevice())
    run = run_search(SearchPlan(DataSource(str(images)), AT, PRESET, (target,)), tmp_path / "run")
    assert run.network == AT
    front = run.front()
    measured = measure_genotypes(FakeDevice(), AT, [network.genotype for network in front]).models
    for network, found in zip(front, measured, strict=True):
        (estimate,) = network.latency_estimates
        assert (estimate.predicted_ms, estimate.bound_ms) == tuple(predictor.predict(network.genotype))
        assert estimate.bound_ms <= limit
        assert estimate.measured_ms == found.ms
    # What is read again predicts for the same network.
    (again,) = run.targets()
    assert again.predict(Architecture(front[0].genotype, AT)) == predictor.predict(front[0].genotype)


def test_a_target_over_sizes_predicts_for_each_network_by_itself(sized: LatencyTable) -> None:
    target = LatencyTarget(sized, 1.0, level=0.8, state="usual")
    objective, rng = target.objective(), np.random.default_rng(2)
    for channels, layers in ((4, 3), (6, 4), (8, 5), (6, 4)):
        network = replace(NETWORK, channels=channels, layers=layers)
        architecture = Architecture(SearchSpace().sample(rng), network)
        known = Predictor(sized, 0.8, "usual", network)
        ms, bound_ms = known.predict(architecture.genotype)
        assert target.predict(architecture) == (ms, bound_ms)
        assert (objective.value(architecture), objective.upper(architecture)) == (ms, bound_ms)
        estimate, card = target.estimate(architecture), target.card_latency(architecture)
        assert (estimate.predicted_ms, estimate.bound_ms) == (card.predicted_ms, card.bound_ms) == (ms, bound_ms)
        assert target.usual_ms(architecture) == estimate.usual_ms == ms
        assert target.predictor_of(network).spec == network
        assert target.predictor_of(network).composition(architecture.genotype) == known.composition(
            architecture.genotype
        )


def test_a_target_keeps_the_predictors_of_the_latest_networks_alone(
    sized: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_target, "MOST_PREDICTORS", 2)
    target, genotype = LatencyTarget(sized), SearchSpace().sample(np.random.default_rng(2))
    networks = [replace(NETWORK, channels=4, layers=layers) for layers in (3, 4, 5)]
    first = [target.predict(Architecture(genotype, network)) for network in networks]
    kept = {id(target.predictor_of(network)): network for network in networks[1:]}
    assert {id(target.predictor_of(network)): network for network in networks[1:]} == kept
    assert len(target._predictors) == 2
    assert [target.predict(Architecture(genotype, network)) for network in networks] == first


def test_a_network_outside_of_the_table_is_refused(sized: LatencyTable) -> None:
    genotype = SearchSpace().sample(np.random.default_rng(0))
    with pytest.raises(TableError, match="the table is for 4 to 8 channels and 3 to 5 cells"):
        LatencyTarget(sized).predict(Architecture(genotype, replace(AT, channels=10)))
    with pytest.raises(TableError, match="the table is for 4 to 8 channels and 3 to 5 cells"):
        SearchPlan(DataSource("fashion-mini"), replace(AT, layers=6), PRESET, (LatencyTarget(sized),))
