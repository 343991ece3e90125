"""The small-model trap: what the populations' sizes are said to do, and that a killed experiment goes on."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from long_runs import amount
from published_schemas import require_files

from cars_hw.cli.main import main
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import load_data
from cars_hw.errors import RunError
from cars_hw.evolution.population import Member
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.report.experiments import trap_page
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import resolve_genotype
from cars_hw.studies import learning_curves as curves
from cars_hw.studies import small_model_trap as trap
from cars_hw.studies.learning_curves import LearningCurve, Training, learning_curve, three_sizes
from cars_hw.studies.small_model_trap import Moved, Sizes, Trap, rows_of, sizes_of, small_model_trap
from cars_hw.training.standalone import NetworkTraining, train_network

TINY = NetworkSpec(4, 3, (8, 8), 1, classes=3)
RECIPE = Recipe(epochs=2, batch_size=64, learning_rate=0.05, crop_padding=0)


@pytest.fixture
def plan(images: Path) -> SearchPlan:
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=SharedTraining(batch_size=32, evaluation_images=20, threads=1, crop_padding=0),
        recipe=RECIPE,
    )
    return SearchPlan(DataSource(str(images)), TINY, preset, costs=("parameters",))


def generation(number: int, *costs: float) -> dict[str, object]:
    genotype = resolve_genotype("CARS_A")
    population = unstructure([Member(genotype, NETWORKS["tiny"], (cost, 99.0), 0.5) for cost in costs])
    figures = {"candidates": 4, "loss": 1.0, "best_accuracy": 0.5, "hypervolume": 0.5}
    counts = unstructure(ClassCounts((2, 2), (1, 1)))
    return {"generation": number, **figures, "best_counts": counts, "population": population}


def moved(protection: trap.Protection, first: float, last: float, seed: int = 0) -> Moved:
    return Moved(protection, seed, (Sizes(1, 0, 1, first, first, 1), Sizes(2, 0, 1, last, last, 0.5)))


CURVES = (LearningCurve("small", resolve_genotype("CARS_A"), 1234, (0.5, 0.75)),)


def test_sizes_are_those_of_the_first_cost_of_every_generation(plan: SearchPlan, tmp_path: Path) -> None:
    two = replace(plan, costs=("parameters", "multiply-adds"))
    run = RunFolder.create(tmp_path / "run", configuration(two), RunAbout("", {}, 1))
    run.write_history([generation(1, 1.0, 5.0, 3.0, 7.0), generation(2, 2.0, 2.0)])
    # Mean 4, squares 9 + 1 + 1 + 9 over 4 members.
    assert sizes_of(run) == (Sizes(1, 1.0, 4.0, 7.0, 6.0, pytest.approx(5**0.5)), Sizes(2, 2.0, 2.0, 2.0, 0.0, 0.0))


def test_ratios_are_to_plain_over_all_seeds() -> None:
    searches = (moved("none", 4, 1), moved("none", 4, 3, 1), moved("size", 4, 5), moved("size", 4, 3, 1))
    found = Trap("parameters", "M", searches, CURVES)
    assert found.spread("none") == 2
    assert found.ratio("size") == 2
    assert found.searches[0].kept == 0.25
    _columns, rows = rows_of(found)
    assert rows[0][1:] == ["4.00 M", "1.00 M", "25%", "0.500 M", "1.00"]
    assert rows[2][-1] == "5.00"
    assert rows[3][-1] == "1.00"


@pytest.mark.parametrize(
    ("plain", "size", "speed", "expected"),
    [
        (1, 3, 2, "The small-model trap appears: plain"),
        (1, 3, 0.5, "only size keeps it wider"),
        (1, 0.5, 0.5, "no protection keeps it wider"),
        (4, 5, 5, "The small-model trap does not appear"),
    ],
)
def test_the_verdict_follows_from_the_figures(plain: float, size: float, speed: float, expected: str) -> None:
    searches = (moved("none", 4, plain), moved("size", 4, size), moved("speed", 4, speed))
    verdict = Trap("parameters", "M", searches, CURVES).verdict
    assert expected in verdict[0]
    assert "does not exclude chance" in verdict[0]
    assert f"size, {size / plain:.2f} times" in verdict[1]
    assert verdict[2] == (
        "Trained from scratch: small (1,234 parameters) 50.0% after the first epoch and 75.0% after the last."
    )


def test_a_population_of_one_size_is_compared_with_nothing() -> None:
    found = Trap("parameters", "M", (moved("none", 0, 0), moved("size", 4, 2)), CURVES)
    assert found.ratio("size") is None
    assert found.searches[0].kept is None
    assert all(cell for row in rows_of(found)[1] for cell in row)
    assert "The small-model trap does not appear" in found.verdict[0]


def test_the_sizes_are_the_ends_and_the_middle_of_what_is_drawn() -> None:
    spec = NETWORKS["quick"]
    sizes = [network_cost(spec, genotype).parameters for genotype in three_sizes(SearchSpace(), spec).values()]
    assert sizes[0] < sizes[1] < sizes[2]
    assert three_sizes(SearchSpace(), spec) == three_sizes(SearchSpace(), spec)


def test_searches_and_curves_are_written_and_not_done_again(
    plan: SearchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = small_model_trap(plan, tmp_path / "out", protections=("size",), jobs=1)
    assert [(one.protection, one.seed) for one in found.searches] == [("none", 0), ("size", 0)]
    assert all([size.generation for size in one.sizes] == [1, 2] for one in found.searches)
    assert [len(curve.accuracies) for curve in found.curves] == [2, 2, 2]
    # The search under a protection is the very search that cars-hw search runs.
    RunFolder.open(tmp_path / "out" / "searches" / "size-0").require(configuration(plan))
    assert require_files(tmp_path / "out") >= {"small-model-trap", "learning-curve", "history"}
    content = json.loads((tmp_path / "out" / "small-model-trap.json").read_text())
    assert content["ratios"] == {"size": found.ratio("size")}
    assert set(content) == {
        "format",
        "version",
        "checksum",
        "configuration",
        "cost",
        "unit",
        "ratios",
        "verdict",
        "searches",
        "curves",
    }
    assert set(content["searches"][0]) == {"protection", "seed", "kept", "generations"}
    assert content["searches"][0]["generations"][1]["spread"] == found.searches[0].sizes[1].spread
    page = trap_page(found, "<a search>")
    shown = html.unescape(page)
    for part in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
    assert "http:" not in page
    assert "https:" not in page
    for sentence in found.verdict:
        assert sentence in shown

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(curves, "_train", fail)
    monkeypatch.setattr("cars_hw.evolution.search.Search.run", fail)
    assert small_model_trap(plan, tmp_path / "out", protections=("size",), jobs=1) == found
    with pytest.raises(RunError, match="started with"):
        small_model_trap(replace(plan, costs=("multiply-adds",)), tmp_path / "out", protections=("size",), jobs=1)


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_side_by_side_it_comes_to_the_same(plan: SearchPlan, tmp_path: Path) -> None:
    names: set[str] = set()
    found = small_model_trap(
        plan, tmp_path / "two", protections=("size",), jobs=2, progress=lambda name, *_: names.add(name)
    )
    assert found == small_model_trap(plan, tmp_path / "one", protections=("size",), jobs=1)
    assert {"none-0: generations", "size-0: generations", "small", "large"} <= names


def test_a_killed_training_goes_on_to_the_same_curve(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(str(images), resolution=(8, 8))
    training = Training(TINY, data, RECIPE)
    genotype = resolve_genotype("CARS_A")
    whole = learning_curve("one", genotype, training, tmp_path / "whole")
    assert len(whole.accuracies) == 2

    epoch = NetworkTraining.run_epoch

    def killed(self: NetworkTraining, *arguments: object) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(NetworkTraining, "run_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        learning_curve("one", genotype, training, tmp_path / "killed")
    monkeypatch.setattr(NetworkTraining, "run_epoch", epoch)
    said: list[str] = []
    again = learning_curve("one", genotype, training, tmp_path / "killed", log=said.append)
    assert again == whole
    assert said == ["one: resumes after epoch 1"]
    assert not (tmp_path / "killed" / "one.pt").exists()
    # The last accuracy is what training to the end says, from the same beginning.
    import torch

    from cars_hw.nn.network import Network

    torch.manual_seed(0)
    result = train_network(Network(TINY, genotype), data, RECIPE, seed=0)
    assert result.accuracy == whole.accuracies[-1]
    # With another recipe it is another curve.
    other = learning_curve(
        "one", genotype, replace(training, recipe=replace(RECIPE, epochs=1)), tmp_path / "killed"
    )
    assert len(other.accuracies) == 1


def test_the_command_plans_what_it_is_told_and_prints_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def played(plan: SearchPlan, out: Path, **options: object) -> Trap:
        told.update(options, plan=plan, out=out)
        return Trap("parameters", "M", (moved("none", 4, 1), moved("size", 4, 3)), CURVES)

    monkeypatch.setattr(trap, "small_model_trap", played)
    arguments = ["experiment", "small-model-trap", "--generations", "7", "--population", "4", "--epochs", "2"]
    result = CliRunner().invoke(
        main, [*arguments, "--seeds", "3", "--jobs", "2", "--on", "cpu", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    plan = told["plan"]
    assert (plan.preset.evolution.generations, plan.preset.evolution.population) == (7, 4)
    assert (plan.network, plan.costs, plan.data.source) == (NETWORKS["tiny"], ("parameters",), "fashion-mini")
    assert (told["protections"], told["seeds"], told["recipe"].epochs) == (("size", "speed"), 3, 2)
    assert told["jobs"] == 2
    for words in (
        "none (NSGA-III), 0",
        "size, 0",
        "The small-model trap appears",
        "Trained from scratch: small",
        "small-model-trap.html",
    ):
        assert words in result.output
    shown = html.unescape((tmp_path / "small-model-trap.html").read_text())
    assert "fashion-mini: networks of " in shown
    assert "The small-model trap appears" in shown
    chosen = CliRunner().invoke(main, [*arguments, "--protect", "both", "--json", "--out", str(tmp_path)])
    assert told["protections"] == ("both",)
    assert json.loads(chosen.stdout)["ratios"] == {"size": 3.0}
    both = CliRunner().invoke(main, [*arguments, "--out", "x", "--table", "t.json", "--cost", "parameters"])
    assert both.exit_code == 2
    assert "leave --cost out" in both.output
