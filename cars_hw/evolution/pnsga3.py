"""pNSGA-III: who survives of parents and offspring together.

In CARS (CVPR 2020) shared weights and architectures evolve together, so a large network is judged before it
has learned. A plain Pareto sort on (error, cost...) then keeps only what is small and quick to learn, the
"small model trap". pNSGA-III sorts everybody a second time, on objectives that protect what would be lost,
joins the k-th fronts of all sorts into the k-th *stage*, and fills the next population stage by stage. The
stage that overflows is cut by the reference points and the niching of NSGA-III (Deb & Jain 2014, "An
Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based Nondominated Sorting Approach,
Part I", Section IV).

The sort, the normalisation and the niching are pymoo's; with protection ``none`` the survivors are those of
pymoo's own NSGA-III, draw for draw. Objectives are always minimised; column 0 is the error (a fraction), the
other columns are costs. pymoo takes differences below 1e-3 for nothing when it looks for extreme points: give
costs in units in which a thousandth does not matter, latency in milliseconds and never in seconds.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import HyperplaneNormalization, associate_to_niches, calc_niche_count, niching
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from pymoo.util.ref_dirs import get_reference_directions
from pymoo.util.reference_direction import scale_reference_directions

from cars_hw.config.search import Protection

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class ObjectiveNormalizationState(TypedDict):
    """What `Normalization` remembers, in JSON's own types; all points are None before the first update."""

    n_objectives: int
    ideal_point: list[float] | None
    worst_point: list[float] | None
    nadir_point: list[float] | None
    extreme_points: list[list[float]] | None


class ObjectiveNormalization:
    """The hyperplane normalisation of NSGA-III, which learns over generations and can be checkpointed.

    Deb & Jain 2014, Section IV-C. One instance belongs to one search: the ideal, the worst and the extreme
    points of all generations so far decide how objectives of different units are compared.
    """

    def __init__(self, n_objectives: int) -> None:
        """Start without history for objectives of shape ``(N, n_objectives)``; ValueError if below 2."""
        if n_objectives < 2:
            raise ValueError(f"normalisation needs at least 2 objectives, got {n_objectives}")
        self.n_objectives = n_objectives
        self._hyperplane = HyperplaneNormalization(n_objectives)

    def update(self, objectives: FloatArray, front: IntArray) -> tuple[FloatArray, FloatArray]:
        """Learn from a generation and return what is 0 and what is 1 on each axis from now on.

        Args:
            objectives: shape ``(N, n_objectives)``, finite, minimised, N at least 1.
            front: shape ``(F,)``, the rows that no other dominates.

        Returns:
            The ideal and the nadir point, shape ``(n_objectives,)`` each, in the objectives' units.

        Raises:
            ValueError: another number of objectives, no rows, or a number that is not finite.
        """
        objectives = _checked(objectives)
        if objectives.shape[1] != self.n_objectives:
            raise ValueError(f"normalisation of {self.n_objectives} objectives got {objectives.shape[1]}")
        # pymoo switches the warnings of the whole process off in here and leaves them off.
        with warnings.catch_warnings():
            self._hyperplane.update(objectives, nds=front)
        return self._hyperplane.ideal_point.copy(), self._hyperplane.nadir_point.copy()

    def state(self) -> ObjectiveNormalizationState:
        """All that is remembered, as JSON's own types; floats come back from JSON bit for bit."""
        hyperplane = self._hyperplane
        # Before the first update pymoo's ideal and worst points are infinite, which JSON cannot say.
        fresh = hyperplane.extreme_points is None
        return {
            "n_objectives": self.n_objectives,
            "ideal_point": None if fresh else hyperplane.ideal_point.tolist(),
            "worst_point": None if fresh else hyperplane.worst_point.tolist(),
            "nadir_point": None if fresh else hyperplane.nadir_point.tolist(),
            "extreme_points": None if fresh else hyperplane.extreme_points.tolist(),
        }

    @classmethod
    def restore(cls, state: ObjectiveNormalizationState) -> ObjectiveNormalization:
        """The normalisation that `state` was taken from: its later answers are identical.

        Raises:
            ValueError: a point that is missing, not finite, or of the wrong shape.
        """
        names = ("ideal_point", "worst_point", "nadir_point", "extreme_points")
        # A state comes from a file, where a key may be missing whatever its type says.
        points: dict[str, Any] = {name: dict(state).get(name) for name in names}
        n_objectives = dict(state).get("n_objectives")
        if not isinstance(n_objectives, int):
            raise ValueError("the state of the normalisation does not say how many objectives it has")
        restored = cls(n_objectives)
        if all(point is None for point in points.values()):
            return restored
        for name, point in points.items():
            array = np.array(point, dtype=np.float64)
            shape = (n_objectives,) * (2 if name == "extreme_points" else 1)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"the normalisation's {name} must be finite and of shape {shape}")
            setattr(restored._hyperplane, name, array)
        return restored


def nondominated_fronts(objectives: FloatArray) -> list[IntArray]:
    """Sort rows into fronts: no row of a front is dominated once the fronts before it are taken away.

    Equal rows do not dominate each other, so they share a front.

    Args:
        objectives: shape ``(N, K)``, minimised, N may be 0.

    Returns:
        Row indices, ascending within a front; together every row once.

    Raises:
        ValueError: a number that is not finite, or not two dimensions.

    Source: Deb & Jain 2014, Section IV-A.
    """
    fronts: list[IntArray] = NonDominatedSorting().do(_checked(objectives, min_rows=0))
    return fronts


def pareto_front(objectives: FloatArray) -> IntArray:
    """The rows that no row dominates, indices ascending; of equal rows all are in or none.

    Args:
        objectives: shape ``(N, K)``, minimised, N may be 0.

    Raises:
        ValueError: a number that is not finite, or not two dimensions.
    """
    fronts = nondominated_fronts(objectives)
    return fronts[0] if fronts else np.array([], dtype=np.int64)


def sorting_objectives(
    objectives: FloatArray,
    gain: FloatArray | None,
    protection: Protection,
) -> list[FloatArray]:
    """What each of the sorts minimises, the plain (error, cost...) first.

    Args:
        objectives: shape ``(N, 1 + M)``: error (fraction), then M costs, M at least 1; minimised.
        gain: shape ``(N,)``: accuracy gained since the last generation (fraction, larger is faster
            learning). Needed by ``speed`` and ``both``, not looked at otherwise.
        protection: see `Protection`.

    Returns:
        One to three arrays of shape ``(N, 1 + M)``.

    Raises:
        ValueError: an unknown protection, a gain that is needed and missing or of the wrong shape, no cost,
            or a number that is not finite.

    Source: CARS, Section 3, Architecture Optimization, for ``speed``; the code released with it for ``size``.
    """
    if protection not in get_args(Protection):
        raise ValueError(f"unknown protection {protection!r}; one of {', '.join(get_args(Protection))}")
    objectives = _checked(objectives)
    error, costs = objectives[:, :1], objectives[:, 1:]
    if costs.shape[1] == 0:
        raise ValueError("objectives need at least one cost beside the error")
    sorts = [objectives]
    if protection in ("speed", "both"):
        if gain is None:
            raise ValueError(f"protection {protection!r} needs the accuracy gained")
        if np.shape(gain) != (len(objectives),):
            raise ValueError(f"gain must have shape ({len(objectives)},), got {np.shape(gain)}")
        sorts.append(np.hstack([-_checked(np.reshape(gain, (-1, 1))), costs]))
    if protection in ("size", "both"):
        sorts.append(np.hstack([error, -costs]))
    return sorts


def stages(objectives: FloatArray, gain: FloatArray | None, protection: Protection) -> list[IntArray]:
    """The order in which rows enter the next population.

    The k-th stage is the union of the k-th fronts of all sorts, less the rows of earlier stages. A stage that
    is left empty by this is dropped.

    Args:
        objectives: shape ``(N, 1 + M)``: error (fraction), then M costs; minimised.
        gain: shape ``(N,)``, accuracy gained since the last generation (fraction), or None.
        protection: see `Protection`.

    Returns:
        Row indices, ascending within a stage; together every row once.

    Raises:
        ValueError: as `sorting_objectives`.

    Source: CARS, Section 3, Architecture Optimization.
    """
    sorts = [nondominated_fronts(minimised) for minimised in sorting_objectives(objectives, gain, protection)]
    taken = np.zeros(len(objectives), dtype=np.bool_)
    result: list[IntArray] = []
    # Each sort holds every row, so the shortest one leaves nothing for the further fronts of the others.
    for fronts in zip(*sorts, strict=False):
        union: IntArray = np.unique(np.concatenate(fronts))
        stage = union[~taken[union]]
        if len(stage):
            result.append(stage)
            taken[stage] = True
    return result


def survive(
    objectives: FloatArray,
    gain: FloatArray | None,
    n_survive: int,
    protection: Protection,
    *,
    reference_directions: FloatArray,
    normalization: ObjectiveNormalization,
    random_state: np.random.Generator,
) -> IntArray:
    """Select the next population from parents and offspring together.

    Whatever the protection, the normalisation and the niching look at (error, cost...) alone. Equal rows are
    told apart by nothing but chance: they share a stage and a niche, and several of them may survive, so take
    duplicates out beforehand if they are not wanted. If ``n_survive`` is N or more everybody survives, and no
    random number is drawn.

    Args:
        objectives: shape ``(N, 1 + M)``, N and M at least 1: error (fraction), then M costs; minimised.
        gain: shape ``(N,)``, accuracy gained since the last generation (fraction); None where `protection`
            does not need it.
        n_survive: size of the next population, at least 1.
        protection: see `Protection`.
        reference_directions: shape ``(R, 1 + M)``, on the unit simplex; see `reference_directions`.
        normalization: the search's normalisation, which learns from `objectives`. It and the generator are
            the only arguments that change.
        random_state: breaks ties between niches and within them.

    Returns:
        Row indices of the survivors, shape ``(min(n_survive, N),)``, stage by stage; the last stage in the
        order of selection if it was cut, ascending if not.

    Raises:
        ValueError: as `sorting_objectives`; also if shapes disagree or ``n_survive`` is below 1. The
            normalisation has not changed then.

    Source: CARS, Section 3, Architecture Optimization; Deb & Jain 2014, Algorithm 1.
    """
    objectives = _checked(objectives)
    directions = _checked(reference_directions)
    if directions.shape[1] != objectives.shape[1]:
        raise ValueError(f"{objectives.shape[1]} objectives, reference directions for {directions.shape[1]}")
    if n_survive < 1:
        raise ValueError(f"n_survive must be at least 1, got {n_survive}")
    *whole, last = _until_filled(stages(objectives, gain, protection), n_survive)
    ideal, nadir = normalization.update(objectives, pareto_front(objectives))
    safe: IntArray = np.concatenate([np.array([], dtype=np.int64), *whole])
    room = n_survive - len(safe)
    if len(last) > room:
        crowding = calc_niche_count(
            len(directions),
            associate_to_niches(objectives[safe], directions, ideal, nadir)[0],
        )
        niche, distance, _ = associate_to_niches(objectives[last], directions, ideal, nadir)
        last = last[niching(last, room, crowding, niche, distance, random_state=random_state)]
    return np.concatenate([safe, last])


def reference_directions(n_objectives: int, population: int) -> FloatArray:
    """Evenly spread directions for `survive`, at most as many as the population has members.

    The grid of Das & Dennis with the largest number of partitions p that gives at most `population` points;
    for two objectives that is exactly `population` points. With p below the number of objectives all points
    of the grid lie on the boundary of the simplex, and a compromise between all objectives would have no
    niche. Then what the population has left is spent on a second grid, shrunk by half towards the centre, as
    Deb & Jain do from eight objectives on: 8 objectives and a population of 156 give their 120 + 36
    directions. A population smaller than the number of objectives gets the centre alone. Nothing is random.

    Args:
        n_objectives: the error and the costs, at least 2.
        population: number of survivors of a generation, at least 1.

    Returns:
        Shape ``(R, n_objectives)``, R from 1 to `population`; no number below 0, each row sums to 1.

    Raises:
        ValueError: an argument below its least.

    Source: Deb & Jain 2014, Sections IV-B and V.
    """
    if n_objectives < 2 or population < 1:
        raise ValueError(f"no reference directions for {n_objectives} objectives, population {population}")
    partitions = _most_partitions(n_objectives, population)
    outer: FloatArray = get_reference_directions("das-dennis", n_objectives, n_partitions=partitions)
    left = population - len(outer)
    if partitions == 0 or partitions >= n_objectives or left == 0:
        return outer
    partitions = _most_partitions(n_objectives, left)
    inner = get_reference_directions("das-dennis", n_objectives, n_partitions=partitions)
    return np.vstack([outer, scale_reference_directions(inner, 0.5)])


def _most_partitions(n_objectives: int, n_points: int) -> int:
    """The largest p whose grid of Das & Dennis, C(p + n - 1, n - 1) points, has at most `n_points`."""
    partitions = 0
    while math.comb(partitions + n_objectives, n_objectives - 1) <= n_points:
        partitions += 1
    return partitions


def _until_filled(all_stages: list[IntArray], n_survive: int) -> list[IntArray]:
    """The stages up to and including the first that fills the population."""
    filled = np.cumsum([len(stage) for stage in all_stages])
    return all_stages[: int(np.searchsorted(filled, n_survive)) + 1]


def _checked(objectives: FloatArray, min_rows: int = 1) -> FloatArray:
    """A float64 copy, because pymoo's compiled parts refuse read-only memory; ValueError if unfit to sort."""
    array: FloatArray = np.array(objectives, dtype=np.float64, order="C")
    if array.ndim != 2 or len(array) < min_rows or array.shape[1] < 1:
        raise ValueError(f"expected at least {min_rows} rows of at least 1 number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("not a finite number in row " + str(int(np.argwhere(~np.isfinite(array))[0, 0])))
    return array
