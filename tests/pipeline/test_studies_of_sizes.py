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
from cars_hw.errors import InputError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.formatting import milliseconds
from cars_hw.latency import Predictor, profile_device
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_images import plan_data
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.supernet import supernet_weights_of
from cars_hw.pipeline.train import train_run
from cars_hw.report.data import gather
from cars_hw.report.page import section
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype
from cars_hw.studies import budget_choice
from cars_hw.studies.baselines import compare_run
from cars_hw.studies.equal_cost import Parts, Trained, random_search, search_cost
from cars_hw.studies.front_membership import read_comparison, rows_of
from cars_hw.studies.published_front import compare_front, estimate_front
from cars_hw.studies.rank_correlation import rank_run
from cars_hw.studies.reference_names import WIDTHS
from cars_hw.studies.settings import BaselinesSettings, FrontSettings, RankSettings
from cars_hw.training.standalone import train_network

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


def test_a_published_genotype_is_compared_at_the_sizes_nearest_below_the_budgets(
    searched: tuple[RunFolder, SearchPlan],
) -> None:
    run, plan = searched
    smallest = run.front()[0]
    chosen = [(smallest.name, smallest.architecture)]
    (own,) = train_run(run, TrainSettings(plan.data, jobs=1), chosen=chosen)
    (target,) = plan.targets
    genotype = resolve_genotype("CARS_A")
    bounds = {spec: target.predict(Architecture(genotype, spec)).bound_ms for spec in SIZES.networks(NETWORK)}
    second, third = sorted(bounds.values())[1:3]
    budgets = (1e-3, second, third + 1e-6)
    settings = FrontSettings(
        "fake",
        plan.data,
        references=("CARS_A",),
        from_scratch=True,
        jobs=1,
        measurement=ONCE,
        budgets=budgets,
    )
    log: list[str] = []
    found = compare_front(run, FakeDevice(), settings, log=log.append)
    assert "CARS_A has no size within 0.001 ms" in log
    specs = {one.name: one.spec for one in found.contestants}
    expected = [spec for spec, bound in bounds.items() if bound in (second, third)]
    assert specs == {
        **{f"CARS_A-{spec.channels}x{spec.layers}": spec for spec in expected},
        own.name: own.spec,
    }
    columns, rows = rows_of(found)
    place = columns.index("size")
    assert {row[0]: row[place] for row in rows} == {name: spec.size for name, spec in specs.items() if spec}
    trained = {one.network: one.spec for one in RunFolder.open(run.path / "comparison" / "networks").trained()}
    assert trained == specs
    # Without held-out images nothing chooses.
    assert found.at_budgets == ()
    assert any("There is no table of budgets" in remark for remark in found.remarks)


def test_random_architectures_cost_what_the_run_cost(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = searched
    parts = Parts(60, 12)
    (first, *_, last) = run.front()
    front = [Trained(one.architecture, 2, parts) for one in (first, last)]
    found = random_search(run, front, 2, parts, seed=0)
    assert (found.cost.search, found.cost.final_stage) == search_cost(run, plan) == (found.cost.search, 0.0)
    adds = [
        network_cost(one.network, one.genotype).multiply_adds / 1e6
        for one in (first.architecture, last.architecture)
    ]
    assert found.cost.front == pytest.approx(2 * (3 * 60 + 12) * sum(adds))
    costs = [
        2 * (3 * 60 + 12) * network_cost(one.network, one.genotype).multiply_adds / 1e6 for _, one in found.chosen
    ]
    assert found.cost.random == pytest.approx(sum(costs))
    assert found.cost.random <= found.cost.run
    assert len(costs) == found.cost.networks > 1
    assert all(SIZES.has(one.network) for _, one in found.chosen)
    assert len({one.network for _, one in found.chosen}) > 1
    # A run that cost more has the same ones first; one more would have cost too much.
    more = random_search(run, front * 5, 2, parts, seed=0)
    assert more.chosen[: len(costs)] == found.chosen
    following = more.chosen[len(costs)][1]
    cost = 2 * (3 * 60 + 12) * network_cost(following.network, following.genotype).multiply_adds / 1e6
    assert found.cost.random + cost > found.cost.run
    with pytest.raises(InputError, match=r"the cost of the run: it does not pay for 100000 epochs of one$"):
        random_search(run, front, 100_000, parts, seed=0)


def test_what_a_user_compares_with_is_resumed_and_shown(
    searched: tuple[RunFolder, SearchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = searched
    recipe = replace(RECIPE, hold_out=0.2)
    train_run(run, TrainSettings(plan.data, recipe, top=2, jobs=1))
    settings = FrontSettings(
        "fake",
        plan.data,
        recipe,
        references=("DARTS_V2",),
        families=("shufflenet_v2",),
        random=True,
        from_scratch=True,
        measurement=ONCE,
        jobs=1,
    )
    monkeypatch.setitem(WIDTHS, "shufflenet_v2", (0.5, 2.0))
    planned = estimate_front(run, FakeDevice(), settings)
    assert planned.equal_cost is not None
    number = planned.equal_cost.networks
    begun: list[int] = []
    log: list[str] = []

    def killed(*arguments: object, **options: object) -> object:
        begun.append(1)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return train_network(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("cars_hw.pipeline.network_training.train_network", killed)
        with pytest.raises(KeyboardInterrupt):
            compare_front(run, FakeDevice(), settings, log=log.append)
        assert any(f"{number} random architectures" in line and line.endswith("they are trained") for line in log)
        del begun[:]
        patch.setattr(
            "cars_hw.pipeline.network_training.train_network",
            lambda *a, **o: begun.append(1) or train_network(*a, **o),
        )
        found = compare_front(run, FakeDevice(), settings)
    in_space = sum("shufflenet" not in one for one in planned.networks)
    assert len(begun) == in_space - 3
    assert not estimate_front(run, FakeDevice(), settings).parts
    assert found.equal_cost == planned.equal_cost
    assert [one.origin for one in found.contestants].count("random") == number > 2
    assert {one.name for one in found.contestants} == set(planned.networks)
    # Widths that are too slow are named with their latency.
    own = [one.latency_ms for one in found.contestants if one.origin == "run"]
    families = {one.name for one in found.contestants if one.origin == "torchvision"}
    assert families | {one.name for one in found.out_of_range} == {
        f"shufflenet_v2:{one}@small" for one in ("0.5", "2")
    }
    for one in found.out_of_range:
        assert not min(own) / 1.25 < one.latency_ms < 1.25 * max(own)
        assert f"{one.name} ({milliseconds(one.latency_ms)})" in " ".join(found.remarks)
    assert [choice.budget_ms for choice in found.at_budgets] == list(found.budgets_ms) == list(planned.budgets_ms)
    for choice in found.at_budgets:
        for best in choice.best:
            scores = [
                one.held_out or 0
                for one in found.contestants
                if one.origin == best.origin and one.latency_ms <= choice.budget_ms
            ]
            assert best.held_out == max(scores)
    assert read_comparison(run) == found
    shown = section("comparison", gather(run))
    columns, rows = budget_choice.rows_of(found.at_budgets)
    assert columns[:2] == ["budget", "this run"]
    assert "network has the highest test accuracy at" in section("evidence", gather(run))
    for cell in (*columns, *rows[-1]):
        assert cell in shown
