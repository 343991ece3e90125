"""Studies of a search over sizes: each network is ranked, compared and trained at its own size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.latency import Predictor, profile_device
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import plan_data, run_search, supernet_weights_of
from cars_hw.pipeline.settings import BaselinesSettings, FrontSettings, RankSettings, TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.report.data import gather
from cars_hw.report.page import section
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.studies.baselines import compare_run
from cars_hw.studies.front_membership import rows_of
from cars_hw.studies.published_front import compare_front
from cars_hw.studies.rank_correlation import rank_run

NETWORK = NetworkSpec(4, 5, (8, 8), 1, classes=3)
SIZES = SizeGrid((4, 6), (5, 6))
RECIPE = Recipe(epochs=1, batch_size=64, learning_rate=0.05, crop_padding=0)
ONCE = MeasurePlan(sessions=1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[RunFolder, SearchPlan]:
    """A search over sizes, and its plan."""
    table = profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=8, plan=ONCE)
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
        recipe=RECIPE,
    )
    target = LatencyTarget(table)
    plan = SearchPlan(DataSource(str(images)), NETWORK, preset, (target,), sizes=SIZES, seed=1)
    return run_search(plan, tmp_path_factory.mktemp("sizes") / "run"), plan


def test_a_ranking_has_each_network_at_its_own_size(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = searched
    ranking = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    front = {one.name: one.architecture for one in run.front()}
    of_front = [one for one in ranking.networks if not one.drawn]
    assert of_front
    assert all(Architecture(one.genotype, one.spec) == front[one.name] for one in of_front)
    specs = [one.spec for one in ranking.networks]
    assert len(set(specs)) > 1
    assert all(SIZES.has(spec) for spec in specs)
    trained = {one.name: one.spec for one in RunFolder.open(run.path / "ranking").trained()}
    assert trained == {one.name: one.spec for one in ranking.networks}
    # The accuracies under shared weights are those of the slices of these sizes.
    weights = supernet_weights_of(plan, plan_data(plan))
    weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    counts = weights.counts([Architecture(one.genotype, one.spec) for one in ranking.networks], full=True)
    assert [one.shared for one in ranking.networks] == [one.accuracy for one in counts]
    shown = section("ranking", gather(run))
    assert "with its own channels and cells" in shown
    for spec in specs:
        assert f"<td>{spec.size}</td>" in shown


def test_a_comparison_of_strategies_counts_each_network_at_its_own_size(
    searched: tuple[RunFolder, SearchPlan],
) -> None:
    run, plan = searched
    settings = BaselinesSettings(plan.data, against=("random",), seeds=1, top=2, jobs=1)
    comparison = compare_run(run, settings)
    table = plan.targets[0].table
    networks = [one for trial in comparison.trials for one in trial.networks]
    assert len({one.spec for one in networks}) > 1
    for one in networks:
        assert one.costs == (Predictor(table, network=one.spec).predict(one.genotype).ms,)
    for trial in comparison.trials:
        folder = RunFolder.open(run.path / "baselines" / f"{trial.strategy}-{trial.seed}")
        assert folder.configuration.sizes == SIZES
        assert {one.spec for one in trial.networks} == {one.spec for one in folder.trained()}


def test_published_genotypes_are_compared_at_the_size_of_the_run_s_network(
    searched: tuple[RunFolder, SearchPlan],
) -> None:
    run, plan = searched
    smallest = run.front()[0]
    chosen = [(smallest.name, smallest.architecture)]
    (own,) = train_run(run, TrainSettings(plan.data, jobs=1), chosen=chosen)
    settings = FrontSettings("fake", plan.data, references=("CARS_A",), from_scratch=True, jobs=1, measurement=ONCE)
    found = compare_front(run, FakeDevice(), settings)
    assert {one.name: one.spec for one in found.contestants} == {
        "CARS_A": SIZES.largest(NETWORK),
        own.name: own.spec,
    }
    columns, rows = rows_of(found)
    assert own.spec != SIZES.largest(NETWORK)
    place = columns.index("size")
    assert {row[0]: row[place] for row in rows} == {"CARS_A": "6 channels, 6 cells", own.name: own.spec.size}
    trained = {one.network: one.spec for one in RunFolder.open(run.path / "comparison" / "networks").trained()}
    assert trained == {"CARS_A": SIZES.largest(NETWORK), own.name: own.spec}
