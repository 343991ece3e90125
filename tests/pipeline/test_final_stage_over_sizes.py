"""The final stage of a search over sizes: larger networks are tried, as far as the budget allows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cars_hw.cli.front_table import print_budget_use
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.devices import FakeDevice
from cars_hw.evolution.passes import JudgedImages
from cars_hw.evolution.population import Finalist
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.nn.cost import network_cost
from cars_hw.nn.network import Network
from cars_hw.pipeline.budget_use import budget_uses
from cars_hw.pipeline.final_plan import Ended, nominees_of
from cars_hw.pipeline.larger_networks import stage_end
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_cost import mean_adds, sizing_of
from cars_hw.pipeline.search_images import plan_data
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.training.judging_images import judging_parts
from cars_hw.training.standalone import NetworkTraining, counts_on
from cars_hw.training.threads import torch_threads

NETWORK = NetworkSpec(4, 5, (8, 8), 1, classes=3)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=SharedTraining(batch_size=64, evaluation_images=20, threads=1, crop_padding=0),
    recipe=Recipe(epochs=2, batch_size=64, learning_rate=0.02, crop_padding=0),
    final=FinalSettings(0.7, stretches=2),
)
LIMIT = 1.2


@pytest.fixture(scope="module")
def sized() -> LatencyTable:
    sizes = SizeGrid((4, 6, 8, 12), (5, 6, 7))
    return profile_device(FakeDevice(), NETWORK, sizes=sizes, calibration=12, plan=MeasurePlan(sessions=1))


@pytest.fixture(scope="module")
def found(
    sized: LatencyTable, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, SearchPlan]:
    target = LatencyTarget(sized, LIMIT)
    plan = SearchPlan(DataSource(str(images)), NETWORK, PRESET, (target,), seed=1, sizes=sized.sizes)
    return run_search(plan, tmp_path_factory.mktemp("sized") / "run", jobs=1), plan


def test_a_sandwich_costs_its_two_ends_in_every_step() -> None:
    sizes = SizeGrid((4, 8), (5, 7))
    drawn = SearchPlan(DataSource("images"), NETWORK, PRESET, costs=("parameters",), sizes=sizes)
    training = replace(PRESET.training, size_sampling="sandwich")
    both = replace(drawn, preset=replace(PRESET, training=training))
    images, objectives = JudgedImages(100, 50, 20), cost_objectives(drawn)
    without, searched = (
        sizing_of(plan.preset, images, mean_adds(plan, NETWORK, objectives)).searched for plan in (drawn, both)
    )
    rng = np.random.default_rng((drawn.seed, 2))
    genotypes = [drawn.architectures.sample(rng).genotype for _ in range(64)]
    ends = [
        float(np.mean([network_cost(size, one).multiply_adds / 1e6 for one in genotypes]))
        for size in (sizes.largest(NETWORK), sizes.smallest(NETWORK))
    ]
    assert ends[0] > 4 * ends[1]
    # Two epochs; a step costs three passes of each of the 100 images.
    assert searched - without == pytest.approx(2 * 3 * 100 * sum(ends))


def test_a_warm_up_that_widens_costs_what_its_epochs_draw() -> None:
    sizes = SizeGrid((4, 8), (5,))
    evolution = replace(PRESET.evolution, epochs=5, warmup_epochs=4, uniform_draws=0.5)
    plan = SearchPlan(DataSource("images"), NETWORK, replace(PRESET, evolution=evolution), costs=("parameters",))
    drawn = replace(plan, sizes=sizes)
    widening = replace(drawn, preset=replace(PRESET, evolution=replace(evolution, widening="sizes")))
    plain, widened = (mean_adds(one, NETWORK, cost_objectives(one)) for one in (drawn, widening))
    assert widened[1:] == plain[1:]
    assert plain.warm_up == plain.space
    # Two of four epochs widen: of the two numbers of channels, both epochs have the larger one alone.
    rng = np.random.default_rng((plan.seed, 2))
    space = drawn.architectures
    for _ in range(64):
        space.sample(rng)
    large = replace(space, sizes=SizeGrid((8,), (5,)))
    of_epochs = [large, large, space, space]
    costs = [
        network_cost(network, genotype).multiply_adds / 1e6
        for genotype, network in (of_epochs[number // 16].sample(rng) for number in range(64))
    ]
    assert widened.warm_up == pytest.approx(float(np.mean(costs)))
    assert widened.warm_up > 1.2 * plain.warm_up
    images = JudgedImages(100, 50, 20)
    difference = (
        sizing_of(widening.preset, images, widened).searched - sizing_of(drawn.preset, images, plain).searched
    )
    # Four epochs of warm-up; a step costs three passes of each of the 100 images.
    assert difference == pytest.approx(4 * 3 * 100 * (widened.warm_up - plain.warm_up))


def test_networks_are_grown_until_the_budget_is_used(found: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = found
    stage = run.final_stage()
    assert stage is not None
    grown = [one for one in stage.networks if one.reason == "grown"]
    genotypes = {one.genotype.key(): one.spec for one in stage.networks if one.reason != "grown"}
    (target,) = plan.targets
    assert grown
    for one in grown:
        assert target.predict(one.architecture).bound_ms <= LIMIT
        assert one.shared is None
        # It is a finalist's cell at a larger size of the range.
        begun = genotypes[one.genotype.key()]
        assert plan.architectures.proposable(one.architecture)
        assert one.spec.channels >= begun.channels
        assert all(new >= old for new, old in zip(one.spec.stages, begun.stages, strict=True))
        assert one.spec != begun
    bounds = [target.predict(one.architecture).bound_ms for one in stage.networks]
    found_bounds = [bound for bound, one in zip(bounds, stage.networks, strict=True) if one.reason != "grown"]
    assert max(bounds) > max(found_bounds)
    assert max(bounds) >= 0.85 * LIMIT


def test_why_more_of_the_budget_would_not_be_more_accurate(
    found: tuple[RunFolder, SearchPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    run, plan = found
    stage = run.final_stage()
    assert stage is not None
    # A small network of the last rung, as if it were the answer.
    last = [one for one in stage.networks if len(one.results) == len(stage.rungs.epochs)]
    answer = next(one for one in run.front() if one.architecture == last[0].architecture)
    end = stage_end(run.configuration, stage, [])
    uses = budget_uses(answer, plan.targets, plan.architectures, end)
    more = [one for one in stage.networks if one.costs[0] > last[0].costs[0]]
    best = max(one.results[-1].accuracy for one in last[1:])
    (use,) = uses
    assert use.larger is not None
    assert use.larger.trained == len(more)
    longest = len(last) - 1
    said = (
        rf"In the final stage, {len(more)} networks that use more of the 1\.2 ms on fake were trained; after "
        rf"{stage.rungs.epochs[-1]} epochs?, the most accurate of (them|the {longest} with the longest training) "
        rf"\(predicted at [\d.]+ .s\) had {best:.1%} of {last[0].results[-1].total} held-out images right, and "
        rf"{answer.name} \(predicted at [\d.]+ .s\) {answer.accuracy:.1%}"
    )
    assert re.fullmatch(said, use.larger.sentence)
    print_budget_use(uses)
    assert use.larger.sentence in capsys.readouterr().out


def test_a_network_near_the_limit_is_nominated_where_no_finalist_can_grow_to_it(
    sized: LatencyTable, images: Path
) -> None:
    # The genotype fits at 4 channels, and at 12 it exceeds the limit by little.
    channels = SizeGrid((4, 12), (5,))
    space = ArchitectureSpace(SearchSpace(), channels.largest(NETWORK), channels)
    genotype = space.cells_for(space.largest).sample(np.random.default_rng(4))
    wide, narrow = Architecture(genotype, space.largest), Architecture(genotype, space.smallest)
    target = LatencyTarget(sized, 0.98 * LatencyTarget(sized).predict(wide).bound_ms)
    plan = SearchPlan(DataSource(str(images)), NETWORK, PRESET, (target,), sizes=channels)
    objectives = cost_objectives(plan)
    finalist = Finalist(*narrow, (target.predict(narrow).ms,), 0.5)
    ended = Ended(plan, RunFolder(Path("none")), space.largest, None, objectives, [finalist], [narrow])
    first, near = nominees_of(ended, 4)
    assert (first.architecture, first.reason) == (narrow, "score")
    assert (near.reason, near.shared) == ("near-limit", None)
    assert near.costs == (target.predict(near.architecture).ms,)
    assert target.limit_ms is not None
    assert 0.85 <= target.predict(near.architecture).bound_ms / target.limit_ms <= 1
    # No network of the space comes near a large limit.
    far = replace(plan, targets=(LatencyTarget(sized, 1000.0),))
    again = replace(ended, plan=far, objectives=cost_objectives(far))
    assert {one.reason for one in nominees_of(again, 4)} == {"score", "grown"}


def test_each_network_is_trained_at_its_own_size(found: tuple[RunFolder, SearchPlan]) -> None:
    run, plan = found
    stage = run.final_stage()
    assert stage is not None
    one = max(stage.networks, key=lambda one: len(one.results))
    data = plan_data(plan)
    train, judged = judging_parts(
        data, plan.preset.training.validation_fraction, torch.Generator().manual_seed(plan.seed)
    )
    recipe = replace(stage.recipe, precision="float32")
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(plan.seed)
        training = NetworkTraining(
            Network(one.spec, one.genotype), replace(data, train=train), recipe, seed=plan.seed
        )
        for _ in range(stage.epochs_of(one)):
            training.run_epoch()
        assert counts_on(training.network, judged, data) == one.results[-1]
    for network in run.front():
        assert network.multiply_adds == network_cost(network.spec, network.genotype).multiply_adds
