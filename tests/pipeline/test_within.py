"""The length of a search is chosen so that it fits into a time, and a search says when it is slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from cars_hw.callbacks import SearchCallback
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.units import format_seconds
from cars_hw.errors import InputError
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.passes import JudgedImages
from cars_hw.pipeline.estimate import estimate_at
from cars_hw.pipeline.pace import FinalPace, Pace, StepSeconds
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_cost import MeanAdds
from cars_hw.pipeline.time_plan import StageSeconds, TimePlan
from cars_hw.pipeline.time_watch import TimeWatch
from cars_hw.pipeline.within import (
    EACH,
    EPOCHS,
    POPULATION,
    SHARE,
    WARM_UP,
    Fitted,
    describe_choice,
    expected_stage,
    fit_within,
)
from cars_hw.progress import silent
from cars_hw.space.network_spec import NetworkSpec

NETWORK = NetworkSpec(4, 3, (8, 8), 1, classes=3)
PACE = Pace(
    StepSeconds(first=0.1, recording=0.1, again=0.1, ends=0.0),
    evaluated=0.2,
    evaluated_fully=0.4,
    batches=20,
    images=JudgedImages(trains=640, evaluates=160, subset=80),
    records=False,
    # A step of 32 images of networks of one million multiply-adds, two networks side by side.
    final=FinalPace(seconds=0.05, passes=3 * 32 * 1.0, side=2, adds=MeanAdds(1.0, 1.0, 1.0), batches=20),
    memory_mb=100.0,
    on_gpu=False,
)


def plan_of(name: str) -> SearchPlan:
    return SearchPlan(DataSource("images"), NETWORK, PRESETS[name], costs=("parameters",))


@pytest.mark.parametrize("preset", ["quick", "cifar", "paper"])
@pytest.mark.parametrize("minutes", [5, 20, 60])
def test_the_time_is_used_and_kept(preset: str, minutes: int) -> None:
    fitted = fit_within(plan_of(preset), 60 * minutes, PACE)
    assert fitted.estimate == estimate_at(fitted.plan, PACE)
    assert fitted.chosen == (POPULATION, EPOCHS, WARM_UP, EACH, SHARE)
    assert 0.8 * 0.9 * 60 * minutes < fitted.estimate.seconds <= 0.9 * 60 * minutes
    assert fitted.plan.time == TimePlan(60.0 * minutes, fitted.estimate.stages)
    assert fitted.plan.chosen == fitted.chosen
    evolution = fitted.plan.preset.evolution
    # No epoch is left over, and the warm-up keeps its share.
    trained = evolution.generations * evolution.epochs_per_generation
    assert evolution.warmup_epochs + trained == evolution.epochs
    of_preset = PRESETS[preset].evolution
    share = of_preset.warmup_epochs / of_preset.epochs
    assert evolution.warmup_epochs == pytest.approx(share * evolution.epochs, rel=0.25, abs=1)


def test_four_times_the_epochs_have_twice_the_population_and_generations() -> None:
    short, long = (fit_within(plan_of("cifar"), 60 * minutes, PACE).plan.preset.evolution for minutes in (10, 40))
    assert long.epochs == pytest.approx(4 * short.epochs, rel=0.15)
    assert long.population == pytest.approx(2 * short.population, rel=0.15)
    assert long.generations == pytest.approx(2 * short.generations, rel=0.35)


def test_given_settings_stay_and_the_rest_is_chosen() -> None:
    plan = plan_of("quick")
    evolution = replace(plan.preset.evolution, epochs=30, population=10)
    plan = replace(plan, preset=replace(plan.preset, evolution=evolution, final=FinalSettings(0.5)))
    found = fit_within(plan, 3600, PACE, (EPOCHS, POPULATION, SHARE))
    assert found.chosen == (WARM_UP, EACH)
    own = found.plan.preset
    assert (own.evolution.epochs, own.evolution.population, own.final.share) == (30, 10, 0.5)
    with pytest.raises(InputError, match="nothing to choose"):
        fit_within(plan, 3600, PACE, (EPOCHS, POPULATION, WARM_UP, EACH, SHARE))
    # What is given may be too much: 1000 epochs take 2000 seconds.
    long = replace(plan, preset=replace(plan.preset, evolution=replace(evolution, epochs=1000)))
    with pytest.raises(InputError, match="1000 epochs"):
        fit_within(long, 600, PACE, (EPOCHS,))


def test_a_final_stage_is_added_where_it_pays_for_two_rungs() -> None:
    shares = {minutes: fit_within(plan_of("quick"), 60 * minutes, PACE).plan for minutes in (2, 10)}
    assert shares[2].preset.final.share == 0
    assert shares[10].preset.final.share == pytest.approx(1 / 3)
    assert len(expected_stage(shares[10], PACE).rungs.epochs) >= 2
    # The recipe of quick has 9 epochs: the longest stage has 40 networks for 2, 20 for 4 and 10 for 9 epochs; an
    # evaluation of 160 images costs a twelfth of an epoch.
    most = fit_within(plan_of("quick"), 3 * 3600, PACE)
    assert most.plan.preset.final.share < 0.3
    assert expected_stage(most.plan, PACE) == (Rungs((2, 4, 9), 2), (40, 20, 10))
    network_epochs = 40 * 2 + 20 * 2 + 10 * 5 + 70 / 12
    assert most.estimate.stages.final == pytest.approx(network_epochs * 640 / 32 * 0.05, rel=0.05)
    # A preset with a final stage keeps it in any case.
    assert fit_within(plan_of("cifar"), 120, PACE).plan.preset.final.share == pytest.approx(1 / 3)


def test_what_cannot_fit_is_refused_with_the_least_time() -> None:
    # One epoch of warm-up and four of generations, 20 steps of 0.1 s each; 2 x 8 x 4 evaluations of 0.2 s; 3 x 8
    # of 0.4 s.
    shortest = 5 * 20 * 0.1 + 64 * 0.2 + 24 * 0.4
    with pytest.raises(
        InputError, match=r"5 epochs, 4 generations of 8 architectures\) takes about 32 s"
    ) as raised:
        fit_within(plan_of("quick"), shortest, PACE)
    assert raised.value.about == {"least": "1min"}
    fitted = fit_within(plan_of("quick"), shortest / 0.9 + 0.01, PACE)
    assert fitted.estimate.seconds == pytest.approx(shortest)
    with pytest.raises(InputError, match="without shared weights"):
        fit_within(replace(plan_of("quick"), standalone_epochs=1), 3600, PACE)


def test_no_search_longer_than_the_papers_is_chosen() -> None:
    fitted = fit_within(plan_of("paper"), 1e6, PACE)
    assert fitted.longest
    assert fitted.plan.preset.evolution.epochs <= PRESETS["paper"].evolution.epochs
    assert fitted.plan.preset.evolution.population <= PRESETS["paper"].evolution.population
    assert not fit_within(plan_of("paper"), 600, PACE).longest


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watch(lines: list[str], clock: Clock, **done: int) -> TimeWatch:
    plan = TimePlan(220, StageSeconds(50, 100, 10, 40))
    settings = EvolutionSettings(4, epochs=7, warmup_epochs=5, epochs_per_generation=1)
    return TimeWatch(plan, settings, silent, lines.append, clock=clock, **done)


def test_a_slower_search_says_so_with_its_new_time() -> None:
    lines: list[str] = []
    clock = Clock()
    seen = watch(lines, clock)
    for epoch in range(6):
        seen("warm-up", epoch, 5)
        # As estimated, then twice as slow.
        clock.now += 10 if epoch < 2 else 20
    # Told after the third epoch, and again when the factor has grown by a tenth: 4/3, 6/4, and not 8/5.
    assert len(lines) == 2
    # 40 s for what was to take 30 s; 170 s are left.
    assert lines[0] == (
        "slower than estimated: so far 1.3 times the estimated time; at this pace the search takes 4 min 27 s "
        "instead of 3 min 20 s, longer than the 3 min 40 s that it was chosen for"
    )
    # Within a generation nothing is compared: its evaluation may be the slower half.
    clock.now += 60
    told = len(lines)
    seen("generations", 1, 4)
    assert len(lines) == told
    clock.now += 100
    seen("final stage, rung 1 of 2 with 8 networks", 1, 8)
    assert lines[-1] == "the time for the search, 3 min 40 s, is over; it goes on"
    seen("final stage, rung 1 of 2 with 8 networks", 2, 8)
    assert len(lines) == told + 1


def test_a_search_in_time_says_nothing_and_a_resumed_one_counts_its_own_work() -> None:
    lines: list[str] = []
    clock = Clock()
    seen = watch(lines, clock)
    for epoch in range(6):
        seen("warm-up", epoch, 5)
        clock.now += 10.5
    assert not lines
    # Another process, much later: half of the generations are done, and take as long as estimated.
    clock.now += 1e6
    seen = watch(lines, clock, warmed_up=5, generations=1)
    seen("warm-up", 5, 5)
    seen("generations", 2, 4)
    clock.now += 54
    seen("generations", 4, 4)
    assert not lines
    # One that has a fifth more to do than estimated.
    seen = watch(lines, clock, warmed_up=5, generations=1)
    seen("generations", 2, 4)
    clock.now += 60
    seen("generations", 4, 4)
    assert len(lines) == 1


def test_each_generation_of_a_search_that_does_not_train_is_compared() -> None:
    lines: list[str] = []
    clock = Clock()
    plan = TimePlan(220, StageSeconds(0, 100, 10, 40))
    settings = EvolutionSettings(4, epochs=30, warmup_epochs=0, epochs_per_generation=10)
    seen = TimeWatch(plan, settings, silent, lines.append, trains=False, clock=clock)
    seen("generations", 0, 3)
    clock.now += 50
    # After one of three generations, not after ten.
    seen("generations", 1, 3)
    assert len(lines) == 1
    assert lines[0].startswith("slower than estimated: so far 1.5 times the estimated time")


def test_the_shortest_search_without_training_is_told_without_epochs() -> None:
    plan = plan_of("quick")
    preset = replace(plan.preset, training=replace(plan.preset.training, classifier="untrained-probe"))
    with pytest.raises(InputError, match=r"the shortest \(4 generations of 8 architectures\) and its final stage"):
        fit_within(replace(plan, preset=preset), 1, PACE)


def test_a_search_tells_its_callbacks_when_it_is_slower(images: Path, tmp_path: Path) -> None:
    class Times(SearchCallback):
        lines: ClassVar[list[str]] = []

        def on_time(self, text: str) -> None:
            self.lines.append(text)

    evolution = EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size")
    training = replace(PRESETS["quick"].training, batch_size=32, evaluation_images=16)
    preset = replace(PRESETS["quick"], evolution=evolution, training=training)
    # As if it had been chosen for a thousandth of a second, by a machine that is much faster.
    time = TimePlan(1e-3, StageSeconds(1e-4, 1e-4, 1e-4, 0))
    plan = SearchPlan(DataSource(str(images)), NETWORK, preset, costs=("parameters",), time=time, chosen=(EPOCHS,))
    run = run_search(plan, tmp_path / "run", callbacks=[Times()])
    assert Times.lines[0].endswith("is over; it goes on")
    assert Times.lines[1].startswith("slower than estimated: ")
    assert (run.about.time, run.about.chosen) == (time, (EPOCHS,))


def untrained_with(population: int, generations: int, share: float, epochs: int = 9) -> SearchPlan:
    plan = plan_of("quick")
    own = plan.preset
    evolution = replace(
        own.evolution, population=population, epochs=1 + generations, warmup_epochs=1, epochs_per_generation=1
    )
    preset = replace(
        own,
        evolution=evolution,
        training=replace(own.training, classifier="untrained-probe"),
        final=FinalSettings(share),
        recipe=replace(own.recipe, epochs=epochs),
    )
    return replace(plan, preset=preset, time=TimePlan(600.0, StageSeconds(0, 1, 1, 1)))


def test_the_text_counts_the_further_networks_of_the_final_stage() -> None:
    # 16 x 12 evaluations on 80 images and 48 on 160 cost as much as 12 epochs of 640 images, with 3 passes each.
    # At two fifths of the whole, the stage has 8 epochs. With its evaluation, a network takes 1 1/12: these are 7
    # networks, 2 more than one of each stretch.
    plan = untrained_with(16, 11, 0.4)
    assert expected_stage(plan, PACE) == (Rungs((1,), 1), (7,))
    fitted = Fitted(plan, estimate_at(plan, PACE), (), longest=False)
    said = "and a final stage of 40% of the cost (about 7 networks for 1 epoch)."
    assert said in describe_choice(fitted, PACE)[0]
    # At four fifths, it has 48. 20 networks for one epoch and 10 for three are 20 x 13/12 + 10 x 25/12 = 42.5. One
    # more in the first stretch takes another one into its second rung, and the next one does not: 42.5 + 13/12 +
    # 25/12 + 13/12 = 46.75. Any other would need 13/12 at least.
    plan = untrained_with(16, 11, 0.8)
    assert expected_stage(plan, PACE) == (Rungs((1, 3), 2), (22, 11))


def test_a_stretch_is_not_expected_to_have_more_networks_than_there_are_finalists() -> None:
    # Three times eight finalists are five for each stretch, of which three and two go on.
    plan = untrained_with(8, 400, 0.9)
    assert expected_stage(plan, PACE) == (Rungs((2, 4, 9), 2), (25, 15, 10))


def test_without_shared_training_the_final_stage_has_most_of_the_time() -> None:
    plan = plan_of("quick")
    training = replace(plan.preset.training, classifier="untrained-probe")
    plan = replace(plan, preset=replace(plan.preset, training=training))
    for minutes in (2, 10, 60):
        found = fit_within(plan, 60 * minutes, PACE)
        stages = found.estimate.stages
        assert stages.warm_up == 0
        # A longer search pays for the longest stage with less.
        assert 0.2 < found.plan.preset.final.share <= 0.75
        assert minutes > 2 or found.plan.preset.final.share == 0.75
        # In an hour, the longest search and the longest final stage fit.
        assert min(0.7 * 0.9 * 60 * minutes, 1400) < stages.total <= 0.9 * 60 * minutes
        said = describe_choice(found, PACE)
        evolution = found.plan.preset.evolution
        assert said[0].startswith(
            f"For {format_seconds(60 * minutes)}: {evolution.generations} generations, population "
            f"{evolution.population}, and a final stage of "
        )
        assert "warm-up" not in " ".join(said)
    # The longest stage of the recipe is not exceeded.
    found = fit_within(plan, 3 * 3600, PACE)
    assert found.estimate.stages.final <= 1.05 * (40 * 2 + 20 * 2 + 10 * 5 + 70 / 12) * 640 / 32 * 0.05
