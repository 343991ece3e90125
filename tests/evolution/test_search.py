"""Algorithm 1 with weights that learn by a formula: what is done in which order, and that it can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.search import Draws, EvolutionSettings, Protection, VariationRates, Widening
from cars_hw.errors import BudgetError, InputError, RunError
from cars_hw.evolution.objectives import CostObjective, excess, feasible
from cars_hw.evolution.population import Member
from cars_hw.evolution.search import Search, without_clones
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

SPEC = NetworkSpec(8, 5, (28, 28), 1)
SPACE = ArchitectureSpace(SearchSpace(), SPEC)

NODE = (Edge("max_pool_3x3", 1), Edge("none", 0))
CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")

LEAN = Architecture(Genotype((NODE,) * NODES, (NODE,) * NODES), SPEC)


def megas(architecture: Architecture) -> float:
    return network_cost(architecture.network, architecture.genotype).multiply_adds / 1e6


class ToyWeights:
    """Accuracy rises with size, and the larger the network the longer it takes: the trap in a formula."""

    trains = True

    def __init__(self) -> None:
        self.epoch = 0
        self.before = 0
        self.calls: list[tuple[Any, ...]] = []
        self.draws: list[list[Architecture]] = []

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:
        for _ in range(3):
            self.draws.append(list(draw(2)))
        self.calls.append(("train",))
        self.epoch += 1
        return 1.0 / self.epoch

    def remember(self) -> None:
        self.calls.append(("remember", self.epoch))
        self.before = self.epoch

    def counts(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[ClassCounts]:
        self.calls.append(("evaluate", list(architectures), before, full))
        epoch = self.before if before else self.epoch
        return [ClassCounts((10**9,), (round(1e9 * toy_accuracy(one, epoch)),)) for one in architectures]

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.before = state["epoch"], state["before"]


def toy_accuracy(architecture: Architecture, epoch: float) -> float:
    size = megas(architecture) / 4
    final = 0.5 + 0.4 * size / (1 + size)
    # A share of a billion images.
    return round(float(final * (1 - np.exp(-epoch / (1 + 12 * size)))), 9)


def make_search(
    protection: Protection = "speed",
    limit: float | None = None,
    *,
    seed: int = 0,
    population: int = 8,
    epochs: int = 9,
    uniform_draws: float = 0.0,
) -> tuple[Search, ToyWeights]:
    objectives = [CostObjective("multiply-adds", "M", megas, limit=limit)]
    settings = EvolutionSettings(
        population=population,
        epochs=epochs,
        warmup_epochs=3,
        epochs_per_generation=2,
        protection=protection,
        rates=VariationRates(mutation=0.45, crossover=0.45, random=0.1),
        uniform_draws=uniform_draws,
    )
    weights = ToyWeights()
    return Search(SPACE, objectives, weights, settings, seed=seed, anchor=LEAN), weights


def test_the_paper_s_epochs_are_50_of_warm_up_and_45_generations_of_10() -> None:
    paper = EvolutionSettings()
    assert (paper.population, paper.warmup_epochs, paper.generations, paper.protection) == (128, 50, 45, "speed")
    assert paper.warmup_epochs + paper.generations * paper.epochs_per_generation == 500
    assert paper.rates == VariationRates(mutation=0.25, crossover=0.25, random=0.5, node=0.5)


def test_a_generation_is_one_architecture_step_and_then_parameter_steps() -> None:
    search, weights = make_search()
    search.run()
    names = [call[0] for call in weights.calls]
    generation = ["evaluate", "evaluate", "remember", "train", "train"]
    # Warm-up of 3 epochs, remembered one generation (2 epochs) before its end; then 3 generations; then the front.
    assert names == ["train", "remember", "train", "train", *generation * 3, "evaluate"]
    evaluations = [call for call in weights.calls if call[0] == "evaluate"]
    assert evaluations[-1][3] is True
    assert [call[2] for call in evaluations[:-1]] == [False, True] * 3


def test_the_warm_up_draws_from_the_space_and_then_only_from_the_population() -> None:
    search, weights = make_search()
    for _ in range(3):
        search.warm_up()
    warm = weights.draws[:]
    assert len({genotype.key() for step in warm for genotype in step}) == 18
    search.evolve()
    members = {member.architecture for member in search.population}
    for step in weights.draws[len(warm) :]:
        assert set(step) <= members
        assert len(set(step)) == 2


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_architectures_in_training_is_drawn_from_the_space(share: float) -> None:
    search, _weights = make_search(uniform_draws=share)
    for _ in range(3):
        search.warm_up()
    search.evolve()
    members = {member.architecture for member in search.population}
    foreign = []
    for _ in range(200):
        step = search.draw(2)
        assert len(set(step)) == 2
        foreign += [genotype for genotype in step if genotype not in members]
    # Binomial: four standard deviations of 400 draws are below 0.09.
    assert len(foreign) / 400 == pytest.approx(share, abs=0.09 if share < 1 else 0)
    # The next ones are others, not the same again.
    assert len({genotype.key() for genotype in foreign}) == len(foreign)


def test_newcomers_are_measured_under_the_weights_before_and_parents_keep_their_record() -> None:
    search, weights = make_search()
    for _ in range(3):
        search.warm_up()
    search.evolve()
    parents = {member.architecture: member.accuracy for member in search.population}
    epoch_before, epoch_now = weights.before, weights.epoch
    candidates = search.candidates()
    assert len(candidates) == 16
    for member in candidates:
        now = toy_accuracy(member.architecture, epoch_now)
        assert member.accuracy == now
        expected = parents.get(member.architecture, toy_accuracy(member.architecture, epoch_before))
        assert member.gain == pytest.approx(now - expected)
    asked_before = [call[1] for call in weights.calls if call[0] == "evaluate" and call[2]][-1]
    assert set(asked_before).isdisjoint(parents)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_uniform_draws_is_a_fraction(share: float) -> None:
    with pytest.raises(InputError, match=r"^uniform_draws must be at (least 0|most 1), not"):
        EvolutionSettings(uniform_draws=share)


def test_what_exceeds_the_budget_is_never_evaluated_or_trained() -> None:
    limit = 3.0
    search, weights = make_search(limit=limit)
    search.run()
    evaluated = [genotype for call in weights.calls if call[0] == "evaluate" for genotype in call[1]]
    trained = [genotype for step in weights.draws[9:] for genotype in step]
    assert evaluated
    assert not any(
        unread_cells(SPEC, one.genotype) for one in evaluated + [one for step in weights.draws for one in step]
    )
    assert all(megas(genotype) <= limit for genotype in evaluated + trained)


def test_a_budget_is_held_against_the_bound_and_not_the_value() -> None:
    objective = CostObjective("latency", "ms", lambda _: 1.0, bound=lambda _: 1.2, limit=1.1)
    genotype = SPACE.sample(np.random.default_rng(0))
    assert not feasible([objective], genotype)
    assert excess([objective], genotype) == pytest.approx(1.2 / 1.1)
    other = CostObjective("size", "M", lambda _: 9.0, limit=3.0)
    assert excess([objective, other], genotype) == pytest.approx(3.0)
    assert excess([], genotype) == 0.0


def test_a_search_under_a_budget_needs_an_architecture_that_keeps_to_it() -> None:
    objectives = [CostObjective("multiply-adds", "M", megas, limit=0.01)]
    with pytest.raises(BudgetError) as error:
        Search(SPACE, objectives, ToyWeights(), EvolutionSettings(), seed=0, anchor=LEAN)
    assert error.value.smallest == (megas(LEAN),)


@pytest.mark.parametrize("stop_after", range(6))
def test_a_search_restored_at_any_checkpoint_ends_as_it_would_have(stop_after: int) -> None:
    whole, _ = make_search("both", limit=4.0)
    expected = whole.run()

    class Killed(Exception):
        pass

    first, weights = make_search("both", limit=4.0)
    saved: list[str] = []

    def checkpoint() -> None:
        saved.append(json.dumps([first.state(), weights.state()], allow_nan=False))
        if len(saved) > stop_after:
            raise Killed

    with pytest.raises(Killed):
        first.run(checkpoint)
    second, other = make_search("both", limit=4.0, seed=99)
    search_state, weights_state = json.loads(saved[-1])
    second.restore(search_state)
    other.restore(weights_state)
    assert second.run() == expected
    assert second.history == whole.history


def test_a_cost_that_has_changed_meanwhile_is_an_error() -> None:
    first, _ = make_search()
    first.run()
    state = json.loads(json.dumps(first.state()))
    again, _ = make_search()
    again.restore(state)
    member = again.population[0]
    # Sums that are rounded in another way are the same cost.
    state["population"][0]["costs"][0] = member.costs[0] * (1 + 1e-9)
    again.restore(state)
    state["population"][0]["costs"][0] = member.costs[0] + 0.01
    with pytest.raises(
        RunError, match=r"the multiply-adds of a network is \S+ M and was \S+ before the search was"
    ):
        again.restore(state)


def test_another_seed_gives_another_search() -> None:
    fronts = [make_search(seed=seed)[0].run() for seed in (1, 1, 2)]
    assert fronts[0] == fronts[1]
    assert fronts[0] != fronts[2]


def test_the_front_is_not_dominated_and_comes_cheapest_first() -> None:
    search, _ = make_search("size", population=16)
    front = search.front(search.run())
    for one in front:
        for other in front:
            worse = other.accuracy < one.accuracy or other.costs > one.costs
            assert one == other or worse
    assert [member.costs for member in front] == sorted(member.costs for member in front)
    assert [member.accuracy for member in front] == sorted(member.accuracy for member in front)


def test_protection_keeps_slow_learners_that_plain_nsga3_loses() -> None:
    """The paper's Figure 2 in miniature: how large the largest survivors are when all have learned little."""
    largest = {}
    for protection in ("none", "speed", "size", "both"):
        sizes = []
        for seed in range(4):
            search, _ = make_search(protection, seed=seed, population=16, epochs=21)  # type: ignore[arg-type]
            search.run()
            sizes.append(np.mean(sorted(member.costs[0] for member in search.population)[-4:]))
        largest[protection] = np.mean(sizes)
    assert largest["size"] > 1.3 * largest["none"]
    assert largest["both"] > 1.3 * largest["none"]
    assert largest["speed"] > 1.2 * largest["none"]


def test_history_has_a_record_a_generation_with_the_hypervolume() -> None:
    search, _ = make_search("size", limit=4.0)
    search.run()
    assert [record["generation"] for record in search.history] == [1, 2, 3]
    for record in search.history:
        assert len(record["population"]) == 8
        # By hand: two objectives, reference (1, 1), costs in multiples of the limit.
        points = sorted((member["costs"][0] / 4.0, 1 - member["accuracy"]) for member in record["population"])
        area, lowest = 0.0, 1.0
        for cost, error in points:
            if error < lowest:
                area += (1 - cost) * (lowest - error)
                lowest = error
        assert record["hypervolume"] == pytest.approx(area)


def test_of_clones_the_first_stays_unless_too_few_are_left() -> None:
    one, other, third, fourth = (SPACE.sample(np.random.default_rng(seed)) for seed in range(4))
    members = [
        Member(*one, (1.0, 2.0), 0.5),
        Member(*other, (1.0, 2.0), 0.5, gain=0.1),
        Member(*third, (1.0, 2.5), 0.5),
        Member(*fourth, (1.0, 2.0), 0.5),
    ]
    assert without_clones(members, 1) == [members[0], members[2]]
    assert without_clones(members, 3) == [members[0], members[2], members[1]]
    assert without_clones(members, 9) == [members[0], members[2], members[1], members[3]]
    # A search by the loss tells networks of one accuracy apart: the second is better than the first.
    by_loss = [replace(one, loss=loss) for one, loss in zip(members, (1.2, 1.1, 1.2, 1.2), strict=True)]
    assert without_clones(by_loss, 1, "loss") == by_loss[:3]
    assert without_clones(by_loss, 1) == [by_loss[0], by_loss[2]]


@pytest.mark.parametrize(
    "wrong", [{"population": 0}, {"epochs": 4, "warmup_epochs": 4}, {"epochs": 12, "warmup_epochs": 5}]
)
def test_settings_that_leave_no_generation_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"population must be at least 1|leave no generation"):
        EvolutionSettings(**wrong)


def test_a_search_by_the_loss_selects_by_it_and_shows_accuracies() -> None:
    class Certain(ToyWeights):
        """All networks get the same right, and larger ones are surer of it."""

        def counts(
            self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
        ) -> list[ClassCounts]:
            del full
            epoch = self.before if before else self.epoch
            return [ClassCounts((100,), (60,), loss=certain(one) + 1 / (1 + epoch)) for one in architectures]

    def certain(architecture: Architecture) -> float:
        return 2 - toy_accuracy(architecture, 1000)

    found = {}
    for objective in ("accuracy", "loss"):
        search, _ = make_search("speed")
        settings = replace(search.settings, objective=objective)  # type: ignore[arg-type]
        again = Search(SPACE, search.objectives, Certain(), settings, seed=0)
        finalists = again.run()
        for one in (*again.population, *finalists):
            assert one.accuracy == 0.6
        for one in finalists:
            assert one.validation is not None
            assert one.loss == one.validation.loss == certain(one.architecture) + 1 / 10
        assert again.history[-1]["best_accuracy"] == 0.6
        assert any(one.gain > 0 for one in again.population) == (objective == "loss")
        # Trained networks have no losses, and are compared by their accuracies.
        trained = [replace(one, loss=None) for one in finalists]
        assert len(again.front(trained)) == 1
        found[objective] = [one.loss for one in again.front(finalists)]
    # By accuracy only the smallest is on the front. By the loss every larger network on it has a lower one.
    assert len(found["accuracy"]) == 1
    assert len(found["loss"]) > 3
    assert found["loss"] == sorted(found["loss"], reverse=True)


def test_a_search_by_the_loss_needs_losses() -> None:
    search, weights = make_search("none")
    settings = replace(search.settings, objective="loss")
    with pytest.raises(ValueError, match="needs evaluations with a loss"):
        Search(SPACE, search.objectives, weights, settings, seed=0).run()


def test_fair_draws_train_every_operation_equally_often_and_are_resumed() -> None:
    def made() -> tuple[Search, ToyWeights]:
        search, _ = make_search("none", uniform_draws=0.5)
        weights = ToyWeights()
        return Search(SPACE, search.objectives, weights, replace(search.settings, draws="fair"), seed=0), weights

    (whole, expected), (first, begun), (second, found) = made(), made(), made()
    whole.run()
    first.warm_up()
    second.restore(json.loads(json.dumps(first.state())))
    found.restore(begun.state())
    second.run()
    assert second.state() == whole.state()
    assert found.draws == expected.draws[3:]
    uniform, drawn = make_search("none", uniform_draws=0.5)
    uniform.run()
    for weights, equal in ((expected, True), (drawn, False)):
        # Of the warm-up: nine steps of two, each operation on an edge of the first node twice or three times.
        nodes = [one.genotype.normal[0] for step in weights.draws[:9] for one in step]
        names = Counter(edge.operation for node in nodes for edge in node if edge.source == 0)
        assert (set(names.values()) == {2, 3}) == equal


@pytest.mark.parametrize("draws", get_args(Draws))
def test_draws_that_widen_are_the_same_after_an_interruption(draws: Draws) -> None:
    sizes = SizeGrid((4, 6, 8), (5, 6))
    space = ArchitectureSpace(SearchSpace(), SPEC, sizes)

    def made() -> tuple[Search, ToyWeights]:
        search, weights = make_search("none", epochs=8, uniform_draws=0.5)
        settings = replace(search.settings, warmup_epochs=6, draws=draws, widening="both")
        return Search(space, search.objectives, weights, settings, seed=0), weights

    whole, expected = made()
    whole.run()
    # Six steps of two an epoch of the warm-up. 1, 1 + 7 / 3 and 1 + 14 / 3 operations, by their weights.
    operations = [
        {edge.operation for one in step for node in one.genotype.normal for edge in node} for step in expected.draws
    ]
    assert [one == {"sep_conv_5x5"} for one in operations] == [True] * 3 + [False] * (len(operations) - 3)
    assert set.union(*operations[3:6]) == {"sep_conv_5x5", "sep_conv_3x3", "dil_conv_5x5"}
    assert set.union(*operations[6:9]) == {*CONVOLUTIONS, "max_pool_3x3"}
    assert set.union(*operations[9:18]) == set(space.cells.operations)
    channels = [{one.network.channels for one in step} for step in expected.draws]
    assert set.union(*channels[:6]) == {8}
    assert set.union(*channels[6:9]) <= {6, 8}
    # After the warm-up, a half is drawn from the whole space.
    assert "none" in set.union(*operations[18:])
    for done in range(1, 7):
        (first, begun), (second, found) = made(), made()
        for _ in range(done):
            first.warm_up()
        second.restore(json.loads(json.dumps(first.state())))
        found.restore(begun.state())
        second.run()
        assert second.state() == whole.state()
        assert found.draws == expected.draws[3 * done :]


def test_the_second_half_of_a_warm_up_that_widens_draws_as_any_other() -> None:
    def drawn(widening: Widening) -> list[list[Architecture]]:
        search, weights = make_search("none")
        settings = replace(search.settings, epochs=12, warmup_epochs=4, widening=widening)
        widening_search = Search(SPACE, search.objectives, weights, settings, seed=0)
        for epoch in range(4):
            # The same numbers in each epoch, whatever the earlier ones took.
            widening_search.rng = np.random.default_rng(epoch)
            widening_search.warm_up()
        return weights.draws

    plain, widening = drawn("none"), drawn("operations")
    assert widening[6:] == plain[6:]
    assert all(one != other for one, other in zip(widening[:6], plain[:6], strict=True))


def test_fair_draws_stay_fair_when_they_widen() -> None:
    search, _ = make_search("none")
    weights = ToyWeights()
    settings = replace(search.settings, epochs=34, warmup_epochs=32, draws="fair", widening="operations")
    fair = Search(SPACE, search.objectives, weights, settings, seed=0)
    for _ in range(32):
        fair.warm_up()
    # The second half: 48 steps of two architectures; the first node reads both states, so 12 times each operation.
    for source in (0, 1):
        names = Counter(
            edge.operation
            for step in weights.draws[48:]
            for one in step
            for edge in one.genotype.normal[0]
            if edge.source == source
        )
        assert set(names) == set(SPACE.cells.operations)
        assert set(names.values()) <= {11, 12, 13}


def test_a_search_by_balanced_accuracy_selects_by_it() -> None:
    class Unequal(ToyWeights):
        """Larger networks get more of the small class right, and fewer of the large one: accuracy falls."""

        def counts(
            self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
        ) -> list[ClassCounts]:
            del before, full
            sizes = [round(400 * toy_accuracy(one, 100)) for one in architectures]
            return [ClassCounts((4000, 400), (4000 - 2 * size, size)) for size in sizes]

    found = {}
    for objective in ("accuracy", "balanced-accuracy"):
        search, _ = make_search("none")
        settings = replace(search.settings, objective=objective)  # type: ignore[arg-type]
        again = Search(SPACE, search.objectives, Unequal(), settings, seed=0)
        finalists = again.run()
        for one in (*again.population, *finalists):
            size = round(400 * toy_accuracy(one.architecture, 100))
            counts = ClassCounts((4000, 400), (4000 - 2 * size, size))
            assert one.accuracy == counts.score(settings.objective)
        assert all(one.validation.images == (4000, 400) for one in finalists if one.validation)
        record = again.history[-1]
        best = ClassCounts(tuple(record["best_counts"]["images"]), tuple(record["best_counts"]["right"]))
        assert best.score(settings.objective) == record["best_accuracy"]
        found[objective] = max(megas(one.architecture) for one in again.front(finalists))
    # By accuracy the smallest network is best in everything; by balanced accuracy size is worth its cost.
    assert found["balanced-accuracy"] > 2 * found["accuracy"]
