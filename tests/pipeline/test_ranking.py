"""Shared accuracies compared with those of standalone trainings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import kendalltau

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import load_data
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan, plan_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.supernet import supernet_weights_of
from cars_hw.report.page import write_report
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from cars_hw.studies.rank_correlation import rank_run
from cars_hw.studies.ranking import Ranked, Ranking, read_ranking, spread
from cars_hw.studies.settings import RankSettings


@pytest.fixture(scope="module")
def searched(
    tiny_table: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, SearchPlan]:
    """A finished search under a budget that about half of all architectures keep to."""
    table = LatencyTable.read(tiny_table)
    rng = np.random.default_rng(0)
    bounds = [Predictor(table).bound(SearchSpace().sample(rng)) for _ in range(100)]
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(6, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=SharedTraining(batch_size=16, evaluation_images=20, threads=1, crop_padding=0),
        recipe=Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop_padding=0),
    )
    targets = (LatencyTarget(table, float(np.median(bounds))),)
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, targets)
    return run_search(plan, tmp_path_factory.mktemp("ranked") / "run"), plan


def test_a_sample_is_trained_alone_and_held_against_its_shared_accuracies(
    searched: tuple[RunFolder, SearchPlan], images: Path
) -> None:
    run, plan = searched
    ranking = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    assert len(ranking.networks) == 6
    drawn = [one for one in ranking.networks if one.drawn]
    front = {network.name: network for network in run.front()}
    assert len(drawn) == 6 - min(3, len(front))
    predictor, limit = Predictor(plan.targets[0].table), plan.targets[0].limit_ms
    assert limit is not None
    assert all(predictor.bound(one.genotype) <= limit for one in drawn)
    assert len({one.genotype.key() for one in ranking.networks}) == 6
    # The shared accuracies are those of the search's own weights, on all validation images.
    weights = supernet_weights_of(plan, load_data(str(images), resolution=plan.network.resolution))
    weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    expected = weights.accuracies([Architecture(one.genotype, plan.network) for one in ranking.networks], full=True)
    assert [one.shared for one in ranking.networks] == expected
    for one in ranking.networks:
        if not one.drawn:
            assert one.shared == pytest.approx(front[one.name].accuracy)
    assert read_ranking(run) == ranking
    # Nothing of it is among the run's own trained networks.
    assert run.trained() == []
    assert {network.name for network in RunFolder.open(run.path / "ranking").trained()} == {
        one.name for one in ranking.networks
    }


def test_what_was_trained_is_not_trained_again(
    searched: tuple[RunFolder, SearchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = searched
    first = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    monkeypatch.setattr("cars_hw.pipeline.network_training.train_network", None)
    assert rank_run(run, RankSettings(plan.data, sample=6, jobs=1)) == first
    assert rank_run(run, RankSettings(plan.data, sample=4, jobs=1)).networks[0] in first.networks


def test_after_a_search_by_the_loss_the_order_of_the_losses_is_compared(
    searched: tuple[RunFolder, SearchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = searched
    by_accuracy = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    evolution = replace(plan.preset.evolution, objective="loss")
    own = replace(plan_of(run, plan.data), preset=replace(plan.preset, evolution=evolution))
    monkeypatch.setattr("cars_hw.studies.rank_correlation.plan_of", lambda *_: own)
    asked = ["rank", str(run.path), "--sample", "6", "--jobs", "1", "--on", "cpu"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    ranking = read_ranking(run)
    assert ranking is not None
    weights = supernet_weights_of(plan, load_data(plan.data.source, resolution=plan.network.resolution))
    weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    sample = [Architecture(one.genotype, plan.network) for one in ranking.networks]
    losses = [one.loss for one in weights.counts(sample, full=True)]
    assert [one.shared_loss for one in ranking.networks] == losses
    expected = kendalltau([-one for one in losses if one], [one.standalone for one in ranking.networks]).statistic
    assert ranking.tau == pytest.approx(expected)
    assert [one.shared for one in ranking.networks] == [one.shared for one in by_accuracy.networks]
    assert f"Kendall's tau {expected:.2f} by the shared loss, which the search compared, over 6" in result.output
    page = write_report(run).read_text()
    assert (
        "between the order by the shared loss, which the search compared, and that by standalone accuracy" in page
    )
    assert f"<td>{losses[0]:.3g}</td>" in page
    run.write_record("ranking.json", by_accuracy)


def test_after_a_search_by_balanced_accuracy_both_orders_are_those_of_it(
    searched: tuple[RunFolder, SearchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = searched
    before = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    evolution = replace(plan.preset.evolution, objective="balanced-accuracy")
    own = replace(plan_of(run, plan.data), preset=replace(plan.preset, evolution=evolution))
    monkeypatch.setattr("cars_hw.studies.rank_correlation.plan_of", lambda *_: own)
    result = CliRunner().invoke(main, ["rank", str(run.path), "--sample", "6", "--jobs", "1", "--on", "cpu"])
    assert result.exit_code == 0, result.output
    ranking = read_ranking(run)
    assert ranking is not None
    weights = supernet_weights_of(plan, load_data(plan.data.source, resolution=plan.network.resolution))
    weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    counts = weights.counts([Architecture(one.genotype, plan.network) for one in ranking.networks], full=True)
    assert [one.shared for one in ranking.networks] == [one.balanced_accuracy for one in counts]
    assert [one.shared for one in ranking.networks] != [one.shared for one in before.networks]
    trained = {one.name: one.test.balanced_accuracy for one in RunFolder.open(run.path / "ranking").trained()}
    assert [one.standalone for one in ranking.networks] == [trained[one.name] for one in ranking.networks]
    said = " ".join(result.output.split())
    assert "Shared and standalone balanced accuracy network" in said
    assert "validation images, under shared weights with the shared classifier, and on" in said
    assert "standalone balanced accuracy" in write_report(run).read_text()
    # A search with linear probes.
    probed = replace(plan.preset.training, classifier="probe")
    own = replace(plan_of(run, plan.data), preset=replace(plan.preset, training=probed))
    result = CliRunner().invoke(main, ["rank", str(run.path), "--sample", "6", "--jobs", "1", "--on", "cpu"])
    assert "Linear-probe and standalone accuracy, with 95% intervals" in " ".join(result.output.split())
    run.write_record("ranking.json", before)


def test_a_second_training_says_what_an_order_can_be_held_to(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = searched
    once = rank_run(run, RankSettings(plan.data, sample=6, jobs=1))
    assert once.agreement is None
    twice = rank_run(run, RankSettings(plan.data, sample=6, twice=True, jobs=1))
    assert [replace(one, again=None) for one in twice.networks] == list(once.networks)
    assert read_ranking(run) == twice
    kept = {one.name: one for one in RunFolder.open(run.path / "ranking").trained()}
    for one in twice.networks:
        second = kept[f"{one.name}-again"]
        assert (second.accuracy, second.genotype.key(), second.seed) == (one.again, one.genotype.key(), 1)
    asked = ["rank", str(run.path), "--sample", "6", "--twice", "--jobs", "1", "--on", "cpu"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    assert "again (test)" in result.output
    # By hand: of six pairs the two trainings have five in the same order.
    genotype = twice.networks[0].genotype
    accuracies = zip([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.8, 0.7], strict=True)
    spec = twice.networks[0].spec
    ranked = (Ranked(f"net-{i}", genotype, spec, 0.5, a, b) for i, (a, b) in enumerate(accuracies))
    ranking = Ranking(tuple(ranked), None)
    assert ranking.agreement == pytest.approx(4 / 6)
    assert ranking.tau is None
    run.write_record("ranking.json", ranking)
    assert "agrees with the first one by a tau of 0.67" in write_report(run).read_text()
    assert rank_run(run, RankSettings(plan.data, sample=6, jobs=1)) == once


def test_the_plan_of_a_run_is_that_which_it_was_searched_by(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = searched
    again = plan_of(run, plan.data)
    # What the tables said then is written down.
    assert again.precision == plan.exported_precision
    assert replace(again, preset=plan.preset, targets=plan.targets, precision=None) == plan
    assert replace(again.preset, summary=plan.preset.summary) == plan.preset
    assert [target.limit_ms for target in again.targets] == [target.limit_ms for target in plan.targets]


def test_tau_by_hand() -> None:
    genotype = SearchSpace().sample(np.random.default_rng(0))

    def ranking(standalone: list[float]) -> Ranking:
        shared = [0.1, 0.2, 0.3, 0.4]
        pairs = zip(shared, standalone, strict=True)
        spec = NETWORKS["tiny"]
        return Ranking(tuple(Ranked(f"net-{i}", genotype, spec, a, b) for i, (a, b) in enumerate(pairs)), {})

    assert ranking([0.5, 0.6, 0.7, 0.8]).tau == pytest.approx(1.0)
    # One of six pairs is the other way round: (5 - 1) / 6.
    assert ranking([0.5, 0.6, 0.8, 0.7]).tau == pytest.approx(4 / 6)
    assert ranking([0.8, 0.7, 0.6, 0.5]).tau == pytest.approx(-1.0)
    assert ranking([0.5] * 4).tau is None
    assert spread(ranking([0.5, 0.6, 0.8, 0.7]).networks) == pytest.approx(0.3)


def test_the_command_prints_tau_and_the_report_shows_it(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, _ = searched
    (run.path / "ranking.json").unlink(missing_ok=True)
    assert "Not checked" in write_report(run).read_text()
    asked = ["rank", str(run.path), "--sample", "6", "--jobs", "1", "--on", "cpu"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    ranking = read_ranking(run)
    assert ranking is not None
    assert ranking.tau is None or f"Kendall's tau {ranking.tau:.2f} over 6 networks" in result.output
    assert json.loads(CliRunner().invoke(main, [*asked, "--json"]).stdout)["tau"] == ranking.tau
    page = write_report(run).read_text()
    assert "Not checked" not in page
    assert all(one.name in page for one in ranking.networks)


def test_a_sample_of_none_is_allowed_and_then_said(searched: tuple[RunFolder, SearchPlan]) -> None:
    run, _ = searched
    result = CliRunner().invoke(main, ["rank", str(run.path), "--sample", "0", "--on", "cpu"])
    assert result.exit_code == 0, result.output
    assert "nothing was compared" in result.output
    ranking = read_ranking(run)
    assert ranking is not None
    assert (ranking.networks, ranking.tau) == ((), None)
    assert "the sample size was set to 0" in write_report(run).read_text()


def test_bad_input_is_an_error(searched: tuple[RunFolder, SearchPlan], tmp_path: Path) -> None:
    run, plan = searched
    with pytest.raises(InputError, match="at least 4 architectures; there are 3"):
        rank_run(run, RankSettings(plan.data, sample=3))
    (tmp_path / "run").mkdir()
    for name, content in (("run.json", (run.path / "run.json").read_text()), ("ranking.json", '{"networks": 3}')):
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(RunError, match=r"ranking\.json is not a cars-hw study"):
        read_ranking(RunFolder.open(tmp_path / "run"))
