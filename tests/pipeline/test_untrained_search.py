"""A search by linear probes on untrained weights, from its first generation to its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cars_hw.callbacks import SearchCallback
from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.toml import write_settings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.errors import RunError
from cars_hw.evolution.passes import JudgedImages
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.inherited_weights import has_shared_weights
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan, search_settings
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_cost import MeanAdds, Sizing, sizing_of
from cars_hw.report.page import write_report
from cars_hw.studies.rank_correlation import rank_run
from cars_hw.studies.settings import RankSettings

PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(6, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=SharedTraining(
        batch_size=32, evaluation_images=20, threads=1, crop_padding=0, classifier="untrained-probe"
    ),
    recipe=Recipe(epochs=2, batch_size=32, learning_rate=0.02, crop_padding=0),
    final=FinalSettings(0.8, stretches=2),
)


class Stopped(Exception):
    """What stands for a kill."""


class StopsAfterOne(SearchCallback):
    """Stops a search after its first generation."""

    def on_generation(self, record: Mapping[str, Any]) -> None:
        raise Stopped


@pytest.fixture(scope="module")
def plan(tiny_table: Path, images: Path) -> SearchPlan:
    table = LatencyTable.read(tiny_table)
    return SearchPlan(DataSource(str(images)), table.spec, PRESET, (LatencyTarget(table),), seed=3)


@pytest.fixture(scope="module")
def run(plan: SearchPlan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_search(plan, tmp_path_factory.mktemp("untrained") / "run", jobs=1)


def test_the_cost_is_that_of_the_evaluations() -> None:
    # 24 architectures are evaluated on 20 images, and 24 finalists on 40, with 2 million multiply-adds each.
    images = JudgedImages(trains=100, evaluates=40, subset=20)
    untrained = replace(PRESET, evolution=EvolutionSettings(8, 5, 1, 2, "size"), final=FinalSettings(0.75))
    searched = (480 + 960) * 2.0
    found = sizing_of(untrained, images, MeanAdds(3.0, 5.0, 2.0, ends=7.0))
    assert found == Sizing(searched, pytest.approx(3 * searched), images)


def test_a_killed_search_ends_with_the_same_front(plan: SearchPlan, run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_search(plan, tmp_path / "run", jobs=1, callbacks=[StopsAfterOne()])
    again = run_search(plan, tmp_path / "run", resume=True, jobs=1)
    assert again.front() == run.front()
    assert again.history() == run.history()
    assert {one.trained_epochs for one in run.front()} == {2}


def test_no_search_starts_from_weights_that_were_never_trained(
    plan: SearchPlan, run: RunFolder, tmp_path: Path
) -> None:
    shared = replace(plan, preset=replace(PRESET, training=replace(PRESET.training, classifier="shared")))
    with pytest.raises(RunError, match=f"{run.path.name} shares no weights"):
        run_search(replace(shared, from_run=run.path), tmp_path / "a")
    with pytest.raises(RunError, match="shares no weights"):
        run_search(replace(plan, from_run=run.path), tmp_path / "b")
    assert not has_shared_weights(run.configuration, plan.network)


def test_the_order_of_the_probes_is_held_against_trainings(plan: SearchPlan, run: RunFolder) -> None:
    ranking = rank_run(run, RankSettings(plan.data, sample=4, jobs=1))
    assert ranking.classifier == "untrained-probe"
    # The probes of the ranking are those of the search.
    stage = run.final_stage()
    assert stage is not None
    known = {one.architecture.key(): one.shared for one in stage.networks}
    front = [one for one in ranking.networks if not one.drawn]
    assert [one.shared for one in front] == [known[one.genotype.key(), plan.network] for one in front]
    page = write_report(run).read_text()
    assert "linear probes on untrained weights evaluated the architectures" in page
    assert "under shared weights" not in page
    # Nothing was trained in the search, although the settings have epochs.
    assert "<dd>2 generations without shared training</dd>" in page
    assert "<dt>train networks</dt>" in page
    assert "train the shared weights" not in page


def asked(*options: str) -> tuple[int, str]:
    """Return the exit code and the message of a search that has no images, and would end with an error of that."""
    began = ["search", "--data", "no-such-folder", "--cost", "parameters", "--dry-run", "--on", "cpu"]
    result = CliRunner().invoke(main, [*began, *options])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        # Even with the values of the preset: they are asked for, and do nothing.
        (["--batch-size", "32"], "--batch-size has no effect: with --classifier untrained-probe no shared weights"),
        (["--architectures", "2"], "--architectures has no effect: "),
        (["--uniform-share", "0.5"], "--uniform-share has no effect: "),
        (["--batch-size", "8", "--architectures", "2"], "--architectures and --batch-size have no effect: "),
    ],
)
def test_options_of_a_training_that_does_not_take_place_are_refused(options: list[str], words: str) -> None:
    code, said = asked(*options, "--classifier", "untrained-probe")
    assert code == 2
    assert words in said
    # Where weights are trained, they are settings like others.
    code, said = asked(*options, "--classifier", "probe")
    assert (code, "no effect" in said) == (1, False)
    assert "no-such-folder" in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("[training]\nlearning_rate = 0.3", "training.learning_rate = 0.3 has no effect: "),
        ("[training]\nthreads = 7", "training.threads = 7 has no effect: "),
        ("[evolution]\nuniform_draws = 0.25", "evolution.uniform_draws = 0.25 has no effect: "),
    ],
)
def test_so_is_what_a_file_of_settings_asks_of_it(lines: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "asked.toml").write_text(f"{lines}\n")
    code, said = asked("--classifier", "untrained-probe", "--config", str(tmp_path / "asked.toml"))
    assert (code, words in said) == (1, True), said
    assert "leave it out" in said


@pytest.mark.parametrize("name", PRESETS)
def test_what_presets_say_of_it_is_no_error(name: str, plan: SearchPlan, tmp_path: Path) -> None:
    code, said = asked("--classifier", "untrained-probe", "--preset", name, "--protect", "size")
    assert (code, "no effect" in said) == (1, False)
    # Nor in the settings that such a search keeps, which have everything.
    own = PRESETS[name]
    preset = replace(
        own,
        evolution=replace(own.evolution, protection="size"),
        training=replace(own.training, classifier="untrained-probe"),
    )
    settings = search_settings(replace(plan, preset=preset, targets=(), costs=("parameters",)), [])
    write_settings(tmp_path / "config.toml", settings, "")
    code, said = asked("--config", str(tmp_path / "config.toml"))
    assert (code, "no effect" in said) == (1, False), said
