"""The final stage of a search: short trainings of its best networks choose the front."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from long_runs import amount

from cars_hw.callbacks import SearchCallback
from cars_hw.cli.front_table import print_front
from cars_hw.cli.search_status import SearchStatus
from cars_hw.config.data import DataSource
from cars_hw.config.evaluation import ClassCounts, Objective
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe, SharedTraining, StepReplay
from cars_hw.errors import RunError
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.population import Finalist
from cars_hw.latency import LatencyTable
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline import final_training
from cars_hw.pipeline.final_plan import short_recipe
from cars_hw.pipeline.final_stage import _running
from cars_hw.pipeline.front import describe_front, longest_trained, with_best_of_stretches
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan, configuration, search_settings
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.run_formats import FRONT
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_images import plan_data
from cars_hw.pipeline.supernet import supernet_weights_of
from cars_hw.progress import Progress
from cars_hw.report.data import gather
from cars_hw.report.page import section
from cars_hw.report.sections.final import REASONS
from cars_hw.studies.equal_cost import search_cost
from cars_hw.training.judging_images import judging_parts
from cars_hw.training.network_step import Stepping
from cars_hw.training.standalone import NetworkTraining, counts_on
from cars_hw.training.threads import torch_threads

SHARE = 0.8
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(6, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=SharedTraining(
        batch_size=32, evaluation_images=20, threads=1, crop_padding=0, validation_fraction=0.5
    ),
    recipe=Recipe(epochs=3, batch_size=32, learning_rate=0.02, crop_padding=0, ema=0.9, hold_out=0.1),
    final=FinalSettings(SHARE, stretches=2),
)


class Stopped(Exception):
    """What stands for a kill."""


class Told(SearchCallback):
    """Keeps what the final stage tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_final_stage(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def plan(tiny_table: Path, images: Path) -> SearchPlan:
    table = LatencyTable.read(tiny_table)
    return SearchPlan(DataSource(str(images)), table.spec, PRESET, (LatencyTarget(table),), seed=3, replay="off")


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def epochs() -> list[int]:
    """The epochs in which a network was trained in the final stage, each by its number from 1."""
    return []


@pytest.fixture(scope="module")
def run(plan: SearchPlan, told: Told, epochs: list[int], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A search whose networks were trained one after the other."""
    run_epoch = NetworkTraining.run_epoch
    of_plan: list[str] = []

    def counted(self: NetworkTraining, *given: Progress) -> None:
        run_epoch(self, *given)
        epochs.append(self.epoch)
        # What none of the trainings can do is said once.
        self.step.log(f"steps with replay {of_plan[-1]} run")

    def stepping(replay: StepReplay) -> Stepping:
        of_plan.append(replay)
        return Stepping(replay)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkTraining, "run_epoch", counted)
        patch.setattr(final_training, "Stepping", stepping)
        return run_search(plan, tmp_path_factory.mktemp("final") / "run", jobs=1, callbacks=[told])


def results(run: RunFolder) -> dict[str, str]:
    """Return the files that the stage decides, and whether it left others."""
    left = [path.name for path in (run.path / "checkpoint").iterdir()]
    return {"front": (run.path / "front.json").read_text(), "final": run.final_path.read_text(), "left": str(left)}


def test_the_front_is_of_the_longest_trained_with_the_best_of_each_stretch(run: RunFolder) -> None:
    stage = run.final_stage()
    assert stage is not None
    assert len(stage.rungs.epochs) == 2
    last = {one.architecture: one for one in stage.networks if len(one.results) == 2}
    assert {one.stretch for one in last.values()} == {1, 2}
    front = run.front()
    for network in front:
        trained = last[network.architecture]
        assert (network.validation, network.accuracy) == (trained.results[-1], trained.results[-1].accuracy)
        assert network.trained_epochs == stage.rungs.epochs[-1]
    figures = [(one.costs[0], -one.results[-1].accuracy) for one in last.values()]
    best = {one for one in figures if not any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in figures)}
    found = [(one.latency_estimates[0].predicted_ms, -one.accuracy) for one in front]
    assert {one for one, network in zip(found, front, strict=True) if not network.dominated} == best
    of_stretches = {
        min((-one.results[-1].accuracy, one.costs[0]) for one in last.values() if one.stretch == stretch)
        for stretch in (1, 2)
    }
    assert found == sorted(best | {(cost, error) for error, cost in of_stretches})


def test_the_better_half_of_each_stretch_goes_on_and_the_cheapest_of_all(run: RunFolder) -> None:
    stage = run.final_stage()
    assert stage is not None
    cheapest = stage.networks[0]
    assert len(cheapest.results) == 2
    assert run.front()[0].architecture == cheapest.architecture
    for stretch in (1, 2):
        members = [one for one in stage.networks if one.stretch == stretch]
        losses = {one.name: one.results[0].loss or 0.0 for one in members}
        better = set(sorted(losses, key=losses.__getitem__)[: max(2, -(-len(members) // 2))])
        on = {one.name for one in members if len(one.results) == 2}
        assert on == (better | {cheapest.name} if stretch == 1 else better)
        assert {"score"} <= {one.reason for one in members} <= {"score", "largest", "cheapest"}


@pytest.mark.parametrize(
    ("objective", "losses", "on"),
    [
        ("accuracy", (2.0, 1.5, 1.0), ["b", "c"]),
        # It was trained by a version that kept no losses.
        ("accuracy", (2.0, None, 1.0), ["a", "b"]),
        ("balanced-accuracy", (2.0, 1.5, 1.0), ["a", "c"]),
    ],
)
def test_losses_decide_who_goes_on(
    plan: SearchPlan, run: RunFolder, objective: Objective, losses: tuple[float | None, ...], on: list[str]
) -> None:
    """Accuracies are 0.6, 0.5 and 0.4; balanced accuracies 0.375, 0.3125 and 0.5."""
    stage = run.final_stage()
    assert stage is not None
    right = ((12, 0), (10, 0), (4, 4))
    networks = [
        replace(stage.networks[-1], name=name, stretch=1, results=(ClassCounts((16, 4), counts, loss=loss),))
        for name, counts, loss in zip("abc", right, losses, strict=True)
    ]
    # The cheapest of all goes on in any case, in its place.
    cheapest = replace(stage.networks[0], name="z", stretch=2, results=(ClassCounts((16, 4), (0, 0), loss=9.0),))
    begun = replace(stage, rungs=Rungs((1, 2), 1), networks=(cheapest, *networks))
    assert [one.name for one in _running(begun, objective)] == ["z", *on]
    worst = replace(cheapest, stretch=1)
    begun = replace(begun, networks=(worst, *networks, replace(networks[0], name="d")))
    assert _running(begun, objective)[0].name == "z"


def test_a_rung_carries_on_from_the_checkpoint_and_the_last_one_is_annealed(
    run: RunFolder, epochs: list[int], plan: SearchPlan
) -> None:
    stage = run.final_stage()
    assert stage is not None
    on = sum(len(one.results) == 2 for one in stage.networks)
    # No epoch was run a second time.
    assert epochs == [1] * len(stage.networks) + [2, 3] * on
    chosen = next(one for one in stage.networks if len(one.results) == 2)
    data = plan_data(plan)
    train, judged = judging_parts(data, 0.5, torch.Generator().manual_seed(plan.seed))
    recipe = Recipe(stage.rungs.epochs[-1], 32, 0.02, crop_padding=0, precision="float32")
    assert replace(stage.recipe, precision="float32") == recipe
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(plan.seed)
        # Trained in one go, on the images that train the shared weights.
        whole = NetworkTraining(
            Network(plan.network, chosen.genotype), replace(data, train=train), recipe, seed=plan.seed
        )
        found = []
        for epoch in range(1, stage.rungs.epochs[-1] + 1):
            whole.run_epoch()
            if epoch in stage.rungs.epochs:
                found.append(counts_on(whole.network, judged, data))
    assert tuple(found) == chosen.results
    # At the last step the rate is almost that of the end.
    assert whole.figures.learning_rate < 0.02 * 0.1


def test_the_records_tell_what_the_search_and_the_stage_cost(run: RunFolder, plan: SearchPlan) -> None:
    stage = run.final_stage()
    assert stage is not None
    searched, final = search_cost(run, plan)
    assert searched == pytest.approx(stage.searched)
    images = {split.use: split.images for split in run.data.splits}
    cost = 0.0
    for one in stage.networks:
        # Each rung ends with an evaluation; a step on an image costs three passes.
        trained = 3 * images["weights"] * stage.epochs_of(one) + images["architectures"] * len(one.results)
        cost += trained * network_cost(one.spec, one.genotype).multiply_adds / 1e6
    assert final == pytest.approx(cost)


def test_the_stage_takes_the_share_that_was_asked_for(run: RunFolder, plan: SearchPlan) -> None:
    stage = run.final_stage()
    assert stage is not None
    assert stage.planned <= SHARE / (1 - SHARE) * stage.searched
    assert stage.share <= SHARE
    # 81 images train, at three passes each, and 78 evaluate.
    cost = 0.0
    for stretch in (1, 2):
        members = [one for one in stage.networks if one.stretch == stretch]
        adds = sum(network_cost(plan.network, one.genotype).multiply_adds / 1e6 for one in members) / len(members)
        on = max(2, -(-len(members) // 2))
        cost += adds * (len(members) * (3 * 81 + 78) + on * (2 * 3 * 81 + 78))
    assert stage.rungs.epochs == (1, 3)
    assert stage.planned == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("moment", ["rung 2 again", "rung 1", "rung 2"][: amount(1, 3)])
def test_a_stopped_stage_goes_on_and_jobs_change_nothing(
    moment: str, run: RunFolder, plan: SearchPlan, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if moment[:6] in stage and total // 2 <= done < total:
            raise Stopped

    again = moment.endswith("again")
    for attempt in range(1 + again):
        with pytest.raises(Stopped):
            run_search(plan, tmp_path / "run", resume=attempt > 0, jobs=1, progress=stop)
        assert not (tmp_path / "run" / "front.json").exists()
    assert results(run_search(plan, tmp_path / "run", resume=True, jobs=1 + again)) == results(run)
    assert results(run)["left"] == "['search.pt']"


def test_finished_networks_of_a_rung_are_not_trained_again(plan: SearchPlan, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        if "rung 1" in stage:
            seen.append((stage, done))
            if done == total - 1:
                raise Stopped

    with pytest.raises(Stopped):
        run_search(plan, tmp_path / "run", jobs=1, progress=stop)
    known = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoint").glob("final-*.0.json")}
    assert len(known) == seen[-1][1]
    seen.clear()

    def watch(stage: str, done: int, total: int) -> None:
        if "rung 2" in stage:
            assert all(path.stat().st_mtime_ns == time for path, time in known.items())
            raise Stopped
        if "rung 1" in stage:
            seen.append((stage, done))

    with pytest.raises(Stopped):
        run_search(plan, tmp_path / "run", resume=True, jobs=1, progress=watch)
    assert seen[0][1] == len(known)


def test_a_damaged_record_ends_in_one_line(plan: SearchPlan, run: RunFolder, tmp_path: Path) -> None:
    text = run.final_path.read_text()
    (tmp_path / "final.json").write_text(text.replace('"score"', '"grown"', 1))
    with pytest.raises(RunError, match=r"final\.json was changed or damaged"):
        RunFolder(tmp_path).final_stage()


def test_what_is_told(told: Told, run: RunFolder) -> None:
    stage = run.final_stage()
    assert stage is not None
    first, last = stage.rungs.epochs
    on = sum(len(one.results) == 2 for one in stage.networks)
    begin, steps, *rungs = told.lines
    assert begin == (
        f"final stage: {len(stage.networks)} networks are trained for {first} epoch, the better half of each "
        f"stretch to {last}. It takes {stage.share:.0%} of the cost of the search"
    )
    assert steps == "final stage: steps with replay off run"
    assert len(rungs) == 2
    assert rungs[1].startswith(f"final stage, rung 2 of 2: after {last} epochs, the accuracy of {on} networks is ")
    assert rungs[1].endswith("on 78 held-out images")


def test_replay_off_is_for_the_shared_weights_too_and_no_part_of_the_run(
    plan: SearchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    class Weights:
        def __init__(self, *_: object, **named: object) -> None:
            given.update(named)

    monkeypatch.setattr("cars_hw.pipeline.supernet.SuperNetWeights", Weights)
    supernet_weights_of(plan, plan_data(plan))
    assert given["replay"] == "off"
    # A search that was begun with it is resumed without it.
    assert configuration(plan) == configuration(replace(plan, replay="auto"))
    settings = search_settings(plan, [Path("table.json")])
    assert settings.replay == "off"


def test_networks_that_diverge_are_the_last_of_their_stretch(plan: SearchPlan, tmp_path: Path) -> None:
    wild = replace(plan.preset, recipe=replace(PRESET.recipe, learning_rate=1e38))
    run = run_search(replace(plan, preset=wild), tmp_path / "run", jobs=1)
    stage = run.final_stage()
    assert stage is not None
    assert {sum(one.right) for network in stage.networks for one in network.results} == {0}
    assert len(run.front()) == 1


def test_the_best_of_each_stretch_is_handed_over(plan: SearchPlan) -> None:
    architecture = plan.architectures.sample(np.random.default_rng(0))

    def member(cost: float, accuracy: float, stretch: int) -> Finalist:
        return Finalist(*architecture, (cost,), accuracy, stretch=stretch)

    cheap, better, worse = member(1.0, 0.4, 1), member(2.0, 0.6, 1), member(2.5, 0.5, 1)
    large, larger = member(5.0, 0.55, 2), member(6.0, 0.55, 2)
    broken = member(9.0, 0.0, 3)
    members = [larger, broken, worse, large, better, cheap]
    # The front is that of cheap and better; large is the cheaper one of the two best of its stretch.
    assert with_best_of_stretches([cheap, better], members) == [cheap, better, large]
    # If it is rejected, the next best of its stretch takes its place.
    assert with_best_of_stretches([cheap, better], [larger, worse, better, cheap]) == [cheap, better, larger]
    # Without a final stage there are no stretches.
    assert with_best_of_stretches([better], [replace(one, stretch=0) for one in members]) == [better]
    front = describe_front(replace(plan, targets=(), costs=("parameters",)), [cheap, better, large])
    assert [one.dominated for one in front] == [False, False, True]
    # A search that minimises the loss may keep a network that is less accurate than a cheaper one.
    chosen = [replace(one, stretch=0) for one in (better, large)]
    by_loss = describe_front(replace(plan, targets=(), costs=("parameters",)), chosen)
    assert [one.dominated for one in by_loss] == [False, False]


def test_the_next_best_are_those_of_the_longest_training(plan: SearchPlan) -> None:
    members = [
        Finalist(genotype=None, spec=plan.network, costs=(1.0,), accuracy=0.5, trained_epochs=epochs)  # type: ignore[arg-type]
        for epochs in (4, 2, 4, 1)
    ]
    assert longest_trained(members) == [members[0], members[2]]
    assert longest_trained(members[1::2]) == [members[1]]


def test_a_short_recipe_leaves_out_what_is_for_long_trainings() -> None:
    long = Recipe(
        100,
        64,
        0.1,
        warmup_epochs=5,
        auxiliary=0.4,
        drop_path=0.2,
        ema=0.99,
        hold_out=0.1,
        cutout=4,
        schedule="linear",
    )
    assert short_recipe(long, 20) == Recipe(20, 64, 0.1, warmup_epochs=1.0, cutout=4, schedule="linear")


def test_rates_of_all_rungs_are_those_of_one_schedule() -> None:
    recipe = short_recipe(Recipe(100, 64, 0.1), 4)
    rates = [recipe.rate(epoch) for epoch in range(5)]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(before > after for before, after in itertools.pairwise(rates))


def test_the_report_says_who_was_trained_and_why(run: RunFolder) -> None:
    stage = run.final_stage()
    assert stage is not None
    text = re.sub(r"<[^>]+>", " ", str(section("final", gather(run))))
    said = " ".join(text.split())
    assert said.startswith(
        f"{len(stage.networks)} networks were trained from fresh weights for 1 epoch, on the images"
    )
    assert "The better half of each stretch went on, to 3 epochs." in said
    assert "The loss on 78 held-out images decided" in said
    assert f"took {stage.share:.0%} of the whole cost of the search" in said
    rows = said[said.index("outcome") : said.index("In brackets")].split("final-")[1:]
    assert len(rows) == len(stage.networks)
    for row, one in zip(rows, stage.networks, strict=True):
        assert f"{one.shared:.1%}" in row
        assert all(f"{counts.accuracy:.1%}" in row for counts in one.results)
        assert REASONS[one.reason] in row
        assert ("left out after rung 1, with a loss of " in row) == (len(one.results) == 1)
    assert sum("in the front: net-" in row for row in rows) == len(run.front())
    front = " ".join(re.sub(r"<[^>]+>", " ", str(section("front", gather(run)))).split())
    assert "accuracies after 3 epochs in the final stage on 78 validation images, which chose the front" in front
    assert "under shared weights" not in front


def test_the_terminal_says_how_the_front_was_trained(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    print_front(run.front())
    said = " ".join(capsys.readouterr().out.split())
    assert "accuracy (short training)" in said
    assert "Accuracies are those after 3 epochs in the final stage on 78 validation images." in said
    print_front([replace(network, dominated=True) for network in run.front()[:2]])
    said = " ".join(capsys.readouterr().out.split())
    assert "net-01 and net-02 are no more accurate than a cheaper network after this short training." in said
    assert {network.classifier for network in run.front()} == {None}
    print_front([replace(network, trained_epochs=0, classifier="probe") for network in run.front()])
    said = " ".join(capsys.readouterr().out.split())
    assert "accuracy (linear probe)" in said
    assert "Accuracies are those under shared weights with a linear probe for each network on 78 validation" in said
    print_front([replace(network, trained_epochs=0, classifier="shared") for network in run.front()])
    said = " ".join(capsys.readouterr().out.split())
    assert "accuracy (shared)" in said
    assert "Accuracies are those under shared weights with the shared classifier on 78 validation images." in said


def test_the_view_says_which_rung_is_trained(plan: SearchPlan) -> None:
    status = SearchStatus("", cost_objectives(plan), plan.preset.evolution, 0.0)
    status.update("final stage, rung 2 of 3 with 12 networks", 6, 36, 1.0)
    assert status.doing == "final stage, rung 2 of 3 with 12 networks, epoch 7 of 36"
    status.update("final stage, rung 2 of 3 with 12 networks", 36, 36, 2.0)
    assert status.doing == "final stage, rung 2 of 3 with 12 networks, epoch 36 of 36"


def test_a_front_from_before_a_field_was_there_is_read(run: RunFolder, tmp_path: Path) -> None:
    copied = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    content = json.loads((copied.path / "front.json").read_text())
    for network in content["networks"]:
        del network["dominated"]
    FRONT.write(copied.path / "front.json", {name: content[name] for name in ("networks", "rejected")})
    assert copied.front() == [replace(network, dominated=False) for network in run.front()]
    assert copied.larger() == []
