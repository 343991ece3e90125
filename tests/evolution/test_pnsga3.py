from __future__ import annotations

import json
import warnings
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_runs import amount
from pymoo.algorithms.moo.nsga3 import NSGA3, ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.survival import Survival
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from cars_hw.config.search import Protection
from cars_hw.evolution.hypervolume import hypervolume
from cars_hw.evolution.pnsga3 import (
    FloatArray,
    IntArray,
    ObjectiveNormalization,
    nondominated_fronts,
    pareto_front,
    reference_directions,
    sorting_objectives,
    stages,
    survive,
)

PROTECTIONS: tuple[Protection, ...] = ("speed", "size", "both", "none")

# Eight architectures, worked out by hand: error, latency in ms, accuracy gained.
EIGHT = {
    "a": (0.10, 30, 0.01),
    "b": (0.12, 20, 0.01),
    "c": (0.20, 10, 0.01),
    "d": (0.30, 5, 0.01),
    "e": (0.40, 40, 0.05),  # the largest, far behind, and the one that gains most: what is to be protected
    "f": (0.13, 22, 0.02),
    "g": (0.25, 12, 0.00),
    "h": (0.26, 25, 0.00),
}
NAMES = list(EIGHT)
EIGHT_OBJECTIVES = np.array([row[:2] for row in EIGHT.values()])
EIGHT_GAIN = np.array([row[2] for row in EIGHT.values()])


def random_objectives(n: int, n_objectives: int, rng: np.random.Generator, ties: bool = False) -> FloatArray:
    """Errors below 1 and costs of other magnitudes, as a search has them."""
    values = rng.random((n, n_objectives)) * 10.0 ** np.arange(n_objectives)
    return np.round(values, 1) if ties else values


def pymoo_selection(
    survival: ReferenceDirectionSurvival, objectives: FloatArray, n_survive: int, rng: np.random.Generator
) -> list[int]:
    population = Population.new("F", objectives)
    survivors = survival.do(
        Problem(n_var=1, n_obj=objectives.shape[1]), population, n_survive=n_survive, random_state=rng
    )
    row_of = {id(individual): row for row, individual in enumerate(population)}
    return [row_of[id(individual)] for individual in survivors]


def named(groups: list[IntArray]) -> list[str]:
    return ["".join(NAMES[row] for row in group) for group in groups]


# --- none is plain NSGA-III -----------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_objectives", [2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_without_protection_it_selects_what_pymoo_selects(seed: int, n_objectives: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    directions = reference_directions(n_objectives, 24)
    theirs = ReferenceDirectionSurvival(directions)
    normalization = ObjectiveNormalization(n_objectives)
    their_draws, our_draws = np.random.default_rng(seed), np.random.default_rng(seed)
    parents = random_objectives(24, n_objectives, rng, ties)
    for _ in range(3):
        everybody = np.vstack([parents, random_objectives(24, n_objectives, rng, ties) * 0.9])
        expected = pymoo_selection(theirs, everybody, 24, their_draws)
        got = survive(
            everybody,
            None,
            24,
            "none",
            reference_directions=directions,
            normalization=normalization,
            random_state=our_draws,
        )
        assert got.tolist() == expected
        state = normalization.state()
        assert state["ideal_point"] == theirs.norm.ideal_point.tolist()
        assert state["nadir_point"] == theirs.norm.nadir_point.tolist()
        parents = everybody[got]
    assert their_draws.bit_generator.state == our_draws.bit_generator.state


@pytest.mark.parametrize("n_survive", [7, 48, 60])
def test_it_agrees_with_pymoo_when_niches_are_few_or_everybody_survives(n_survive: int) -> None:
    objectives = random_objectives(48, 3, np.random.default_rng(0))
    directions = reference_directions(3, 12)
    expected = pymoo_selection(
        ReferenceDirectionSurvival(directions), objectives, n_survive, np.random.default_rng(1)
    )
    draws = np.random.default_rng(1)
    got = survive(
        objectives,
        None,
        n_survive,
        "none",
        reference_directions=directions,
        normalization=ObjectiveNormalization(3),
        random_state=draws,
    )
    assert got.tolist() == expected
    if n_survive >= 48:
        assert sorted(got) == list(range(48))
        assert draws.bit_generator.state == np.random.default_rng(1).bit_generator.state


# --- stages by hand -------------------------------------------------------------------------------


def test_the_sorts_of_the_eight_are_as_worked_out() -> None:
    plain, speed, size = sorting_objectives(EIGHT_OBJECTIVES, EIGHT_GAIN, "both")
    # (error, latency): a, b, c, d are a chain of compromises. b beats f, c beats g; f and g are a compromise.
    # h is beaten by b, f, g. e is beaten by all, as nobody has a larger error or a larger latency.
    assert named(nondominated_fronts(plain)) == ["abcd", "fg", "h", "e"]
    # (-gain, latency): d (0.01, 5), f (0.02, 22), e (0.05, 40) each pay latency for gain; d beats the others.
    # Of these c (0.01, 10) beats the rest. Then b (0.01, 20) and g (0.00, 12) are a compromise, and b beats
    # a (0.01, 30) and h (0.00, 25), which are a compromise in their turn.
    assert named(nondominated_fronts(speed)) == ["def", "c", "bg", "ah"]
    # (error, -latency): a has the least error, e the largest latency, and a beats all that are smaller.
    # Then b (20), f (22), h (25) pay error for size; b beats c (10), d (5) and g (12). Then c and g are a
    # compromise, and c beats d.
    assert named(nondominated_fronts(size)) == ["ae", "bfh", "cg", "d"]


@pytest.mark.parametrize(
    ("protection", "expected"),
    [
        ("none", ["abcd", "fg", "h", "e"]),
        # abcd + def; fg + c less what is taken; h + bg likewise; nothing is left for the fourth.
        ("speed", ["abcdef", "g", "h"]),
        # abcd + ae; fg + bfh.
        ("size", ["abcde", "fgh"]),
        # abcd + def + ae; fg + c + bfh, of which g and h are new.
        ("both", ["abcdef", "gh"]),
    ],
)
def test_stages_of_the_eight(protection: Protection, expected: list[str]) -> None:
    assert named(stages(EIGHT_OBJECTIVES, EIGHT_GAIN, protection)) == expected


@pytest.mark.parametrize(("protection", "survives"), [("none", False), ("speed", True), ("size", True)])
def test_the_large_slow_network_survives_if_protected(protection: Protection, survives: bool) -> None:
    for seed in range(10):
        kept = survive(
            EIGHT_OBJECTIVES,
            EIGHT_GAIN,
            6,
            protection,
            reference_directions=reference_directions(2, 6),
            normalization=ObjectiveNormalization(2),
            random_state=np.random.default_rng(seed),
        )
        assert (NAMES.index("e") in kept) is survives


def test_a_sort_with_fewer_fronts_ends_the_stages() -> None:
    # Error and latency rise together: a chain of four fronts. By (error, -latency) all four are one front.
    chain = np.array([[0.1, 1], [0.2, 2], [0.3, 3], [0.4, 4]])
    assert [stage.tolist() for stage in stages(chain, None, "size")] == [[0, 1, 2, 3]]
    assert [stage.tolist() for stage in stages(chain, None, "none")] == [[0], [1], [2], [3]]


def test_a_stage_that_earlier_ones_emptied_is_dropped() -> None:
    # Rows 0 and 1 are equally fast; 0 has the smaller error, 1 gains more; 2 is behind both in everything.
    # By (error, latency): 0 | 1 | 2.   By (-gain, latency): 1 | 0 | 2.   The second fronts bring nobody new.
    objectives = np.array([[0.1, 2], [0.2, 2], [0.3, 3]])
    gain = np.array([0.0, 0.1, 0.0])
    assert [stage.tolist() for stage in stages(objectives, gain, "speed")] == [[0, 1], [2]]


def test_the_normalisation_looks_at_the_plain_front_whatever_is_protected() -> None:
    # Row 0 beats all and row 1 is in the first stage only because it is large. A front of one point has no
    # extent, so the axes reach to the worst of the population, (0.5, 4), not to that of the stage, (0.4, 4).
    objectives = np.array([[0.1, 1.0], [0.4, 4.0], [0.5, 2.0]])
    assert stages(objectives, None, "size")[0].tolist() == [0, 1]
    normalization = ObjectiveNormalization(2)
    survive(
        objectives,
        None,
        2,
        "size",
        reference_directions=reference_directions(2, 2),
        normalization=normalization,
        random_state=np.random.default_rng(0),
    )
    assert normalization.state()["nadir_point"] == [0.5, 4.0]


def test_gain_is_maximised_and_costs_change_sign_for_size() -> None:
    objectives = np.array([[0.5, 3.0, 7.0]])
    _, speed, size = sorting_objectives(objectives, np.array([0.25]), "both")
    assert speed.tolist() == [[-0.25, 3.0, 7.0]]
    assert size.tolist() == [[0.5, -3.0, -7.0]]


# --- a whole evolution ----------------------------------------------------------------------------


class OurSurvival(Survival):
    """Lets pymoo's NSGA-III evolve with this module's selection; who is far behind is taken to gain most."""

    def __init__(self, directions: FloatArray, protection: Protection) -> None:
        super().__init__(filter_infeasible=True)
        self.directions, self.protection = directions, protection
        self.normalization = ObjectiveNormalization(directions.shape[1])
        self.opt: Population | None = None

    def _do(
        self,
        _problem: Problem,
        pop: Population,
        *_: object,
        n_survive: int,
        random_state: np.random.Generator,
        **__: object,
    ) -> Population:
        objectives = pop.get("F")
        rows = survive(
            objectives,
            objectives[:, 0],
            n_survive,
            self.protection,
            reference_directions=self.directions,
            normalization=self.normalization,
            random_state=random_state,
        )
        survivors = pop[rows]
        self.opt = survivors[pareto_front(survivors.get("F"))]
        return survivors


def evolve(survival: Survival, directions: FloatArray, seed: int, generations: int) -> FloatArray:
    result = minimize(
        get_problem("dtlz2", n_var=12, n_obj=3),
        NSGA3(directions, pop_size=92, survival=survival),
        ("n_gen", generations),
        seed=seed,
    )
    objectives: FloatArray = result.pop.get("F")
    return objectives


def test_an_evolution_on_dtlz2_is_as_good_as_pymoos() -> None:
    directions = reference_directions(3, 92)
    corner = np.full(3, 1.1)
    ours, theirs = [], []
    for seed in range(amount(2, 5)):
        our_last = evolve(OurSurvival(directions, "none"), directions, seed, 80)
        their_last = evolve(ReferenceDirectionSurvival(directions), directions, seed, 80)
        # The same draws in the same order leave no room for a difference.
        assert np.array_equal(our_last, their_last)
        ours.append(hypervolume(our_last, corner))
        theirs.append(hypervolume(their_last, corner))
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.01)
    # The true front is an eighth of the unit sphere: nothing can have more than 1.1^3 - pi/6.
    ceiling = 1.1**3 - np.pi / 6
    assert 0.9 * ceiling < np.mean(ours) < ceiling


@pytest.mark.parametrize("protection", ["speed", "size", "both"])
def test_an_evolution_runs_with_every_protection(protection: Protection) -> None:
    directions = reference_directions(3, 92)
    last = evolve(OurSurvival(directions, protection), directions, 0, 10)
    plain = evolve(OurSurvival(directions, "none"), directions, 0, 10)
    assert last.shape == (92, 3)
    assert not np.array_equal(last, plain)


# --- properties -----------------------------------------------------------------------------------


@st.composite
def populations(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Few distinct values, so that ties and duplicates are common."""
    n, n_costs = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    cells = st.lists(st.integers(0, 6), min_size=n * (n_costs + 2), max_size=n * (n_costs + 2))
    values = np.array(draw(cells), dtype=np.float64).reshape(n, n_costs + 2)
    return values[:, :-1] / 7, values[:, -1] / 100 - 0.03


@given(populations(), st.sampled_from(PROTECTIONS), st.integers(1, 26), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_survivors_fill_the_population_stage_by_stage(
    population: tuple[FloatArray, FloatArray], protection: Protection, n_survive: int, seed: int
) -> None:
    objectives, gain = population
    before = objectives.copy(), gain.copy()
    kept = survive(
        objectives,
        gain,
        n_survive,
        protection,
        reference_directions=reference_directions(objectives.shape[1], n_survive),
        normalization=ObjectiveNormalization(objectives.shape[1]),
        random_state=np.random.default_rng(seed),
    )
    assert len(kept) == len(set(kept.tolist())) == min(n_survive, len(objectives))
    remaining = kept.tolist()
    for stage in stages(objectives, gain, protection):
        entered, remaining = remaining[: len(stage)], remaining[len(stage) :]
        assert set(entered) <= set(stage.tolist())
    assert np.array_equal(objectives, before[0])
    assert np.array_equal(gain, before[1])


@given(populations(), st.sampled_from(PROTECTIONS), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_stages_hold_every_row_once_in_whatever_order_they_come(
    population: tuple[FloatArray, FloatArray], protection: Protection, random: Random
) -> None:
    objectives, gain = population
    order = list(range(len(objectives)))
    random.shuffle(order)
    straight = stages(objectives, gain, protection)
    shuffled = stages(objectives[order], gain[order], protection)
    assert sorted(np.concatenate(straight).tolist()) == list(range(len(objectives)))
    assert all(len(stage) and np.all(np.diff(stage) > 0) for stage in straight)
    put_back = [sorted(order[row] for row in stage) for stage in shuffled]
    assert put_back == [stage.tolist() for stage in straight]


@given(populations())
@settings(max_examples=100, deadline=None)
def test_the_pareto_front_is_what_the_definition_says(population: tuple[FloatArray, FloatArray]) -> None:
    objectives, _ = population
    expected = [
        row
        for row, mine in enumerate(objectives)
        if not any(np.all(other <= mine) and np.any(other < mine) for other in objectives)
    ]
    assert pareto_front(objectives).tolist() == expected


@given(st.integers(0, 10_000), st.integers(2, 4), st.sampled_from(PROTECTIONS))
@settings(max_examples=30, deadline=None)
def test_a_restored_normalization_goes_on_as_if_nothing_had_happened(
    seed: int, n_objectives: int, protection: Protection
) -> None:
    rng = np.random.default_rng(seed)
    directions = reference_directions(n_objectives, 12)

    def generation(objectives: FloatArray, normalization: ObjectiveNormalization) -> IntArray:
        return survive(
            objectives,
            objectives[:, 0],
            12,
            protection,
            reference_directions=directions,
            normalization=normalization,
            random_state=np.random.default_rng(seed),
        )

    normalization = ObjectiveNormalization(n_objectives)
    for _ in range(2):
        generation(random_objectives(24, n_objectives, rng), normalization)
    restored = ObjectiveNormalization.restore(json.loads(json.dumps(normalization.state(), allow_nan=False)))
    assert restored.state() == normalization.state()
    for _ in range(2):
        objectives = random_objectives(24, n_objectives, rng)
        assert np.array_equal(generation(objectives, normalization), generation(objectives, restored))
        assert restored.state() == normalization.state()


def test_history_matters_so_that_losing_it_would_show() -> None:
    rng = np.random.default_rng(3)
    used = ObjectiveNormalization(3)
    first = random_objectives(24, 3, rng) * np.array([0.1, 3.0, 0.2])
    used.update(first, pareto_front(first))
    later = random_objectives(24, 3, rng)
    used.update(later, pareto_front(later))
    fresh = ObjectiveNormalization(3)
    fresh.update(later, pareto_front(later))
    assert used.state() != fresh.state()


# --- state ----------------------------------------------------------------------------------------


def test_a_fresh_normalization_survives_json() -> None:
    state = json.loads(json.dumps(ObjectiveNormalization(2).state(), allow_nan=False))
    assert state == {
        "n_objectives": 2,
        "ideal_point": None,
        "worst_point": None,
        "nadir_point": None,
        "extreme_points": None,
    }
    ideal, nadir = ObjectiveNormalization.restore(state).update(EIGHT_OBJECTIVES, pareto_front(EIGHT_OBJECTIVES))
    assert ideal.tolist() == [0.10, 5.0]
    # The front's extremes are a (0.10, 30) and d (0.30, 5).
    assert nadir == pytest.approx([0.30, 30.0])


@pytest.mark.parametrize(
    "change",
    [
        {"ideal_point": None},
        {"ideal_point": [0.0, float("nan")]},
        {"nadir_point": [0.0, 1.0, 2.0]},
        {"extreme_points": [[0.0, 1.0]]},
        {"n_objectives": 3},
        {"n_objectives": None},
        {"n_objectives": 1},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, Any]) -> None:
    normalization = ObjectiveNormalization(2)
    normalization.update(EIGHT_OBJECTIVES, pareto_front(EIGHT_OBJECTIVES))
    state: Any = {**normalization.state(), **change}
    with pytest.raises(ValueError, match="normalisation"):
        ObjectiveNormalization.restore(state)


def test_warnings_stay_as_they_were() -> None:
    before = list(warnings.filters)
    ObjectiveNormalization(2).update(EIGHT_OBJECTIVES, pareto_front(EIGHT_OBJECTIVES))
    assert list(warnings.filters) == before


# --- reference directions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_objectives", "population", "expected"),
    [
        (2, 1, 1),
        (2, 2, 2),
        (2, 128, 128),
        (3, 92, 91),  # 12 partitions, the paper of NSGA-III
        (3, 128, 120),
        (5, 212, 210),
        (3, 2, 1),  # only the centre is one point or two
        (3, 8, 7),  # 2 partitions and the centre
        (6, 128, 127),
        (8, 156, 156),  # 120 + 36, likewise
        (10, 276, 275),
        (15, 136, 135),
    ],
)
def test_how_many_reference_directions(n_objectives: int, population: int, expected: int) -> None:
    directions = reference_directions(n_objectives, population)
    assert directions.shape == (expected, n_objectives)


@pytest.mark.parametrize("n_objectives", range(2, 7))
@pytest.mark.parametrize("population", [1, 2, 3, 4, 8, 16, 33, 64, 128])
def test_reference_directions_lie_on_the_simplex_once_each(n_objectives: int, population: int) -> None:
    directions = reference_directions(n_objectives, population)
    assert 1 <= len(directions) <= population
    assert (directions >= 0).all()
    np.testing.assert_allclose(directions.sum(axis=1), 1.0)
    assert len(np.unique(directions.round(9), axis=0)) == len(directions)
    assert np.array_equal(directions, reference_directions(n_objectives, population))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1])
def test_numbers_that_are_none_are_refused_and_change_nothing(bad: float, column: int) -> None:
    objectives = EIGHT_OBJECTIVES.copy()
    objectives[5, column] = bad
    normalization = ObjectiveNormalization(2)
    fresh = normalization.state()
    with pytest.raises(ValueError, match="row 5"):
        survive(
            objectives,
            EIGHT_GAIN,
            4,
            "none",
            reference_directions=reference_directions(2, 4),
            normalization=normalization,
            random_state=np.random.default_rng(0),
        )
    assert normalization.state() == fresh
    for function in (pareto_front, nondominated_fronts):
        with pytest.raises(ValueError, match="row 5"):
            function(objectives)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": None}, "needs the accuracy gained"),
        ({"gain": EIGHT_GAIN[:-1]}, "shape"),
        ({"gain": np.where(EIGHT_GAIN > 0.04, np.nan, EIGHT_GAIN)}, "row 4"),
        ({"protection": "strength"}, "unknown protection 'strength'"),
        ({"n_survive": 0}, "at least 1"),
        ({"objectives": EIGHT_OBJECTIVES[:0]}, "at least 1 row"),
        ({"objectives": EIGHT_GAIN[:, None], "reference_directions": np.ones((1, 1))}, "at least one cost"),
        ({"reference_directions": reference_directions(3, 6)}, "2 objectives, reference directions for 3"),
        ({"normalization": ObjectiveNormalization(3)}, "3 objectives got 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "objectives": EIGHT_OBJECTIVES,
        "gain": EIGHT_GAIN,
        "n_survive": 6,
        "protection": "speed",
        "reference_directions": reference_directions(2, 6),
        "normalization": ObjectiveNormalization(2),
        "random_state": np.random.default_rng(0),
    }
    with pytest.raises(ValueError, match=message):
        survive(**{**arguments, **change})


@pytest.mark.parametrize(("n_objectives", "population"), [(1, 10), (2, 0)])
def test_reference_directions_that_cannot_be(n_objectives: int, population: int) -> None:
    with pytest.raises(ValueError, match="no reference directions"):
        reference_directions(n_objectives, population)


def test_nobody_has_no_fronts() -> None:
    nobody = np.empty((0, 3))
    assert nondominated_fronts(nobody) == []
    assert pareto_front(nobody).tolist() == []


def test_a_read_only_population_is_as_good_as_any() -> None:
    objectives, directions = EIGHT_OBJECTIVES.copy(), reference_directions(2, 3)
    objectives.setflags(write=False)
    directions.setflags(write=False)
    kept = survive(
        objectives,
        None,
        3,
        "size",
        reference_directions=directions,
        normalization=ObjectiveNormalization(2),
        random_state=np.random.default_rng(0),
    )
    assert len(kept) == 3


def test_of_equal_rows_several_may_survive() -> None:
    twins = np.array([[0.1, 1.0], [0.1, 1.0], [0.2, 2.0]])
    assert [stage.tolist() for stage in stages(twins, None, "none")] == [[0, 1], [2]]
    kept = survive(
        twins,
        None,
        2,
        "none",
        reference_directions=reference_directions(2, 2),
        normalization=ObjectiveNormalization(2),
        random_state=np.random.default_rng(0),
    )
    assert kept.tolist() == [0, 1]
