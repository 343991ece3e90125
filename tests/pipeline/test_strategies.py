"""The same search by other strategies, at equal budget."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cars_hw.cli.main import main
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import load_data
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.strategies import STRATEGIES
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan, configuration, plan_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.supernet import supernet_weights_of
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from cars_hw.studies.baselines import _rivals, compare_run, standalone_plan
from cars_hw.studies.settings import BaselinesSettings, StrategyName
from cars_hw.studies.strategy_comparison import (
    Generation,
    StrategyComparison,
    Trained,
    Trial,
    read_baselines,
    summary,
)


@pytest.fixture(scope="module")
def searched(
    tiny_table: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, SearchPlan]:
    """A finished search without a budget, which would have to be looked into in every search, and its plan."""
    table = LatencyTable.read(tiny_table)
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=SharedTraining(batch_size=64, evaluation_images=20, threads=1, crop_padding=0),
        recipe=Recipe(epochs=1, batch_size=64, learning_rate=0.05, crop_padding=0),
    )
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, (LatencyTarget(table),), seed=3)
    return run_search(plan, tmp_path_factory.mktemp("compared") / "run"), plan


def test_each_strategy_searches_with_the_run_s_budget(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = searched
    comparison = compare_run(run, BaselinesSettings(plan.data, against=("random", "size"), seeds=2, top=1, jobs=1))
    # "size" is the run's own.
    assert comparison.strategies == ["own", "random"]
    assert comparison.seeds == [3, 4]
    assert len(comparison.trials) == 4
    assert {trial.evaluated for trial in comparison.trials} == {comparison.trials[0].evaluated}
    predictor = Predictor(plan.targets[0].table)
    for trial in comparison.trials:
        folder = RunFolder.open(run.path / "baselines" / f"{trial.strategy}-{trial.seed}")
        wanted = STRATEGIES[trial.strategy].changed(plan.preset.evolution)
        assert folder.configuration.evolution.protection == wanted.protection
        assert folder.configuration.evolution.uniform_draws == wanted.uniform_draws
        assert folder.configuration.seed == trial.seed
        assert len(trial.generations) == len(folder.history()) == 2
        assert folder.configuration.targets == run.configuration.targets
        assert [one.costs for one in trial.networks] == [
            (predictor.predict(one.genotype).ms,) for one in trial.networks
        ]
        standalone = {network.name: network.accuracy for network in folder.trained()}
        assert {one.standalone for one in trial.networks} <= set(standalone.values())
    # The run's own search is not repeated.
    assert RunFolder(run.path / "baselines" / "own-3").front() == run.front()
    assert not (run.path / "baselines" / "own-3" / "checkpoint" / "search.pt").exists()
    assert read_baselines(run) == comparison


def test_what_is_done_is_not_done_again(
    searched: tuple[RunFolder, SearchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = searched
    first = compare_run(run, BaselinesSettings(plan.data, against=("random",), seeds=1, top=1, jobs=1))
    monkeypatch.setattr("cars_hw.pipeline.network_training.train_network", None)
    monkeypatch.setattr("cars_hw.pipeline.prepare_search.Search.run", None)
    assert compare_run(run, BaselinesSettings(plan.data, against=("random",), seeds=1, top=1, jobs=1)) == first


def test_without_sharing_the_cost_is_that_of_the_search(searched: tuple[RunFolder, SearchPlan]) -> None:
    _, plan = searched
    # 153 training images, of which 76 judge; 3 epochs, 2 generations of 8 candidates on 20 images, 12 finalists on
    # 76: 3 * 77 * 3 + 2 * 8 * 20 + 12 * 76 = 1925 passes; one architecture takes 3 * 77 + 20 + 76 = 327.
    with pytest.raises(InputError, match="allows 5 standalone trainings"):
        standalone_plan(plan)
    # 60 epochs are 13,860 + 59 * 160 + 912 = 24,212 passes: 74 architectures, populations of 6, 9 generations.
    long = replace(plan.preset.evolution, epochs=60)
    standalone = standalone_plan(replace(plan, preset=replace(plan.preset, evolution=long)))
    evolution = standalone.preset.evolution
    assert (evolution.population, evolution.generations, standalone.standalone_epochs) == (6, 9, 1)
    assert 6 * (9 + 3) <= 74


def test_without_sharing_the_cost_is_that_of_a_search_that_trains_nothing(
    searched: tuple[RunFolder, SearchPlan],
) -> None:
    _, plan = searched
    # 60 populations of 4 on 20 images, and 12 finalists on 76, are 5,712 passes: 17 architectures of 327.
    preset = replace(
        plan.preset,
        evolution=replace(plan.preset.evolution, epochs=60, protection="size"),
        training=replace(plan.preset.training, classifier="untrained-probe"),
    )
    standalone = standalone_plan(replace(plan, preset=preset))
    evolution = standalone.preset.evolution
    assert (evolution.population, evolution.generations, standalone.standalone_epochs) == (4, 1, 1)
    assert 4 * (1 + 3) <= 17
    # Each is trained, so no probe evaluates it.
    assert standalone.preset.training.classifier == "shared"


def test_networks_are_not_both_trained_and_evaluated_without_training(
    searched: tuple[RunFolder, SearchPlan],
) -> None:
    _, plan = searched
    preset = replace(
        plan.preset,
        evolution=replace(plan.preset.evolution, protection="size"),
        training=replace(plan.preset.training, classifier="untrained-probe"),
    )
    with pytest.raises(InputError, match="standalone_epochs = 2 trains each of them: set one of the two"):
        replace(plan, preset=preset, standalone_epochs=2)


@pytest.fixture(scope="module")
def untrained(
    searched: tuple[RunFolder, SearchPlan], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, SearchPlan]:
    """A finished run whose search is said to have trained no shared weights, and the plan of such a search."""
    run, plan = searched
    preset = replace(
        plan.preset,
        evolution=replace(plan.preset.evolution, protection="size"),
        training=replace(plan.preset.training, classifier="untrained-probe"),
    )
    plan = replace(plan, preset=preset)
    copy = RunFolder.create(tmp_path_factory.mktemp("untrained") / "run", configuration(plan), run.about)
    copy.write_data(run.data)
    copy.write_front(run.front())
    plan.targets[0].table.write(copy.table_path(0))
    return copy, plan


@pytest.mark.parametrize(
    ("against", "words"),
    [
        (("random", "mixed"), "mixed would repeat the run's own search: only other architectures would be trained"),
        (("uniform", "mixed"), "uniform and mixed would repeat the run's own search"),
    ],
)
def test_a_strategy_of_training_is_refused_where_nothing_is_trained(
    untrained: tuple[RunFolder, SearchPlan], against: tuple[StrategyName, ...], words: str
) -> None:
    run, plan = untrained
    with pytest.raises(InputError) as raised:
        compare_run(run, BaselinesSettings(plan.data, against=against, seeds=1, top=1, jobs=1))
    assert str(raised.value).startswith(words)
    # Those that protect speed need a gain in accuracy. "size" and "fresh" are the run's own.
    assert str(raised.value).endswith("compare with random, none, standalone")
    assert not (run.path / "baselines").exists()


def test_a_search_is_not_made_twice_under_two_names(
    searched: tuple[RunFolder, SearchPlan], untrained: tuple[RunFolder, SearchPlan]
) -> None:
    told: list[str] = []
    trained = searched[1]
    assert _rivals(("mixed", "none", "size", "uniform"), trained, told.append) == ["mixed", "none", "uniform"]
    assert told == ["size is the run's own strategy: it is not searched again"]
    # The paper's strategy differs from the protection of speed in its offspring, which are the run's own here.
    assert _rivals(("speed", "paper", "standalone"), trained, told.append) == ["speed", "standalone"]
    assert told[1:] == ["paper is the same search as speed here: it is not made again"]
    assert _rivals(("random", "none"), untrained[1], told.append) == ["random", "none"]
    assert len(told) == 2


def test_random_search_without_training_is_not_said_to_train() -> None:
    assert "trained on uniform draws" in summary("random", "probe")
    assert summary("random", "untrained-probe") == "random search, by the same evaluation on untrained weights"
    assert summary("none", "untrained-probe") == summary("none", "shared")


def test_an_architecture_without_sharing_learns_alone(
    searched: tuple[RunFolder, SearchPlan], tmp_path: Path
) -> None:
    _, plan = searched
    standalone = replace(plan, preset=replace(plan.preset, evolution=replace(plan.preset.evolution, population=2)))
    standalone = replace(standalone, standalone_epochs=1)
    folder = run_search(standalone, tmp_path / "run")
    assert plan_of(folder, plan.data).standalone_epochs == 1
    weights = supernet_weights_of(standalone, load_data(plan.data.source, resolution=plan.network.resolution))
    network = folder.front()[0]
    weights.train(lambda _count: [Architecture(network.genotype, plan.network)])
    assert weights.accuracies([Architecture(network.genotype, plan.network)], full=True) == [network.accuracy]


def test_random_search_draws_everything_afresh_and_trains_on_uniform_draws() -> None:
    own = EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size")
    changed = STRATEGIES["random"].changed(own)
    assert (changed.rates.random, changed.uniform_draws, changed.protection) == (1.0, 1.0, "none")
    assert (changed.population, changed.generations) == (own.population, own.generations)
    assert STRATEGIES["paper"].changed(own).rates.random == 0.5


def _trial(strategy: str, seed: int, points: list[tuple[float, float]]) -> Trial:
    genotype = SearchSpace().sample(np.random.default_rng(0))
    networks = tuple(Trained(genotype, NETWORKS["tiny"], (ms,), 0.5, accuracy) for accuracy, ms in points)
    return Trial(strategy, seed, 8, (Generation(0.5, 1.0, 3.0, 1.0),), networks)


def test_hypervolume_and_gaps_by_hand() -> None:
    # The box is 0.5 of error by 2 ms.
    own = _trial("own", 0, [(0.8, 0.5), (0.9, 1.0)])
    other = _trial("random", 0, [(0.9, 1.0)])
    better = _trial("random", 1, [(1.0, 0.0)])
    comparison = StrategyComparison(
        "latency", "ms", (0.5, 2.0), (own, other, better, _trial("own", 1, [(0.4, 0.1)])), Recipe(epochs=1)
    )
    # (0.1, 1.0) dominates 0.4 x 1.0; (0.2, 0.5) adds 0.3 x 0.5: of 1.0 in all.
    assert comparison.final(own) == pytest.approx(0.4 + 0.15)
    assert comparison.final(other) == pytest.approx(0.4)
    assert comparison.final(better) == pytest.approx(1.0)
    # Worse than the reference in error: nothing is dominated.
    assert comparison.gaps("random") == pytest.approx([0.15, -1.0])
    assert own.generations[0].spread == pytest.approx(2.0)
    assert structure(json.loads(json.dumps(unstructure(comparison))), StrategyComparison) == comparison


def test_the_command_prints_the_comparison(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, _ = searched
    asked = ["baselines", str(run.path), "--seeds", "1", "--top", "1", "--jobs", "1", "--on", "cpu"]
    result = CliRunner().invoke(main, [*asked, "--against", "random"])
    assert result.exit_code == 0, result.output
    comparison = read_baselines(run)
    assert comparison is not None
    assert f"{comparison.final(comparison.of('random')[0]):.4f}" in result.output
    assert f"{comparison.gaps('random')[0]:+.4f}" in result.output
    told = json.loads(CliRunner().invoke(main, [*asked, "--against", "random", "--json"]).stdout)
    assert structure(told, StrategyComparison) == comparison


def test_one_flag_of_the_search_does_it_all(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.executors.spread.default_jobs", lambda _device, _tasks: 1)
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], recipe=Recipe(epochs=1, batch_size=64)))
    asked = f"search --data {images} --cost parameters --channels 2 --layers 3 --resolution 8 --classes 3 --on cpu"
    short = "--population 2 --epochs 2 --warmup-epochs 1 --baselines 1"
    out = tmp_path / "run"
    result = CliRunner().invoke(main, [*asked.split(), *short.split(), "--out", str(out)])
    assert result.exit_code == 0, result.output
    comparison = read_baselines(RunFolder.open(out))
    assert comparison is not None
    assert comparison.strategies == ["own", "random", "none"]
    assert f"{comparison.gaps('none')[0]:+.4f}" in result.output


def test_bad_input_is_an_error(searched: tuple[RunFolder, SearchPlan], tmp_path: Path) -> None:
    run, plan = searched
    with pytest.raises(InputError, match=r"against must be one of random, none, .*, not 'luck'"):
        compare_run(run, BaselinesSettings(plan.data, against=("luck",)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="all of these strategies are the run's own"):
        compare_run(run, BaselinesSettings(plan.data, against=("size",)))
    with pytest.raises(InputError, match="seeds must be at least 1, not 0"):
        compare_run(run, BaselinesSettings(plan.data, seeds=0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text((run.path / "run.json").read_text())
    (tmp_path / "run" / "baselines.json").write_text('{"trials": 3}')
    with pytest.raises(RunError, match=r"baselines\.json is not a cars-hw study"):
        read_baselines(RunFolder.open(tmp_path / "run"))
