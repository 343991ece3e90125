"""pNSGA-III: the selection of the next population from parents and offspring.

In CARS (CVPR 2020) shared weights and architectures evolve together, so large networks are evaluated before they
have learned. A plain Pareto sort on (error, cost...) then keeps only networks that are small and learn fast. The
paper calls this the *small-model trap*. pNSGA-III sorts all architectures a second time, on objectives that protect
the others. It joins the k-th fronts of all sorts into the k-th *stage*, and fills the next population stage by
stage. The reference points and the niching of NSGA-III select from the last stage if it does not fit as a whole
(Deb & Jain 2014, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based Nondominated
Sorting Approach, Part I", Section IV).

The sort, the normalisation and the niching are pymoo's. With protection ``none`` the survivors are those of pymoo's
own NSGA-III, draw for draw. Objectives are always minimised; column 0 is the error (a fraction), the other columns
are costs. pymoo ignores differences below 1e-3 when it looks for extreme points: choose units in which a thousandth
is negligible, such as milliseconds for latency.
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
    """The state of :class:`ObjectiveNormalization` in JSON's types; all points are None before the first update."""

    n_objectives: int
    ideal_point: list[float] | None
    worst_point: list[float] | None
    nadir_point: list[float] | None
    extreme_points: list[list[float]] | None


class ObjectiveNormalization:
    """The hyperplane normalisation of NSGA-III, which is updated in every generation and can be checkpointed.

    Deb & Jain 2014, Section IV-C. One instance belongs to one search: the ideal, the worst and the extreme
    points of all generations so far scale objectives of different units.
    """

    def __init__(self, n_objectives: int) -> None:
        """Prepare for objectives of shape ``(N, n_objectives)``; ValueError for fewer than 2."""
        if n_objectives < 2:
            raise ValueError(f"normalisation needs at least 2 objectives, got {n_objectives}")
        self.n_objectives = n_objectives
        self._hyperplane = HyperplaneNormalization(n_objectives)

    def update(self, objectives: FloatArray, front: IntArray) -> tuple[FloatArray, FloatArray]:
        """Include a generation, and return the points that become 0 and 1 on each axis.

        Args:
            objectives: shape ``(N, n_objectives)``, finite, minimised, N at least 1.
            front: shape ``(F,)``, the indices of the rows that no other row dominates.

        Returns:
            The ideal and the nadir point, shape ``(n_objectives,)`` each, in the objectives' units.

        Raises:
            ValueError: another number of objectives, no rows, or a number that is not finite.
        """
        objectives = _checked(objectives)
        if objectives.shape[1] != self.n_objectives:
            raise ValueError(f"normalisation of {self.n_objectives} objectives got {objectives.shape[1]}")
        # pymoo disables the warnings of the whole process here and does not enable them again.
        with warnings.catch_warnings():
            self._hyperplane.update(objectives, nds=front)
        return self._hyperplane.ideal_point.copy(), self._hyperplane.nadir_point.copy()

    def state(self) -> ObjectiveNormalizationState:
        """Return the state in JSON's types; JSON keeps every bit of a float."""
        hyperplane = self._hyperplane
        # Before the first update pymoo's ideal and worst points are infinite, which JSON cannot represent.
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
        """Return the normalisation with this state: its later results are identical.

        Raises:
            ValueError: a point that is missing, not finite, or of the wrong shape.
        """
        names = ("ideal_point", "worst_point", "nadir_point", "extreme_points")
        # The state comes from a file, in which a key may be missing.
        points: dict[str, Any] = {name: dict(state).get(name) for name in names}
        n_objectives = dict(state).get("n_objectives")
        if not isinstance(n_objectives, int):
            raise ValueError("the state of the normalisation has no number of objectives")
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
    """Return the rows in fronts: without the fronts before it, no row of a front is dominated.

    Equal rows share a front, since neither dominates the other.

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
    """Return the indices of the rows that no row dominates, ascending; equal rows are all included or all excluded.

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
    """Return the objectives that each sort minimises, the plain (error, cost...) first.

    Args:
        objectives: shape ``(N, 1 + M)``: error (fraction), then M costs, M at least 1; minimised.
        gain: shape ``(N,)``: accuracy gained since the last generation (fraction, larger is faster
            learning). Used by ``speed`` and ``both`` only.
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
    """Return the order in which rows enter the next population.

    The k-th stage is the union of the k-th fronts of all sorts, less the rows of earlier stages. Stages that
    are empty after this are dropped.

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
    # Each sort contains every row, so no row is left after the shortest one.
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

    The normalisation and the niching use (error, cost...) only, whatever the protection. Equal rows share a stage
    and a niche, and chance decides between them; several may survive, so remove unwanted duplicates before. If
    ``n_survive`` is N or more, all survive and no random number is drawn.

    Args:
        objectives: shape ``(N, 1 + M)``, N and M at least 1: error (fraction), then M costs; minimised.
        gain: shape ``(N,)``, accuracy gained since the last generation (fraction); None where `protection`
            does not need it.
        n_survive: size of the next population, at least 1.
        protection: see `Protection`.
        reference_directions: shape ``(R, 1 + M)``, on the unit simplex; see `reference_directions`.
        normalization: the search's normalisation, which is updated with `objectives`. Only it and the generator
            change.
        random_state: breaks ties between niches and within them.

    Returns:
        Row indices of the survivors, shape ``(min(n_survive, N),)``, stage by stage; the last stage in the
        order of selection if it was cut, ascending if not.

    Raises:
        ValueError: as `sorting_objectives`; also if shapes disagree or ``n_survive`` is below 1. The
            normalisation is unchanged in this case.

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
    """Return evenly spread directions for `survive`, at most as many as the population has members.

    The grid of Das & Dennis with the largest number of partitions p that gives at most `population` points;
    for two objectives that is exactly `population` points. With p below the number of objectives all points
    of the grid lie on the boundary of the simplex, and a compromise between all objectives would have no
    niche. The remaining points then form a second grid, shrunk by half towards the centre, as Deb & Jain do from
    eight objectives on: 8 objectives and a population of 156 give their 120 + 36 directions. A population smaller
    than the number of objectives gets only the centre. The result is deterministic.

    Args:
        n_objectives: the error and the costs, at least 2.
        population: number of survivors of a generation, at least 1.

    Returns:
        Shape ``(R, n_objectives)``, R from 1 to `population`; no number below 0, each row sums to 1.

    Raises:
        ValueError: an argument below its minimum.

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
    """Return the largest p whose grid of Das & Dennis, C(p + n - 1, n - 1) points, has at most `n_points`."""
    partitions = 0
    while math.comb(partitions + n_objectives, n_objectives - 1) <= n_points:
        partitions += 1
    return partitions


def _until_filled(all_stages: list[IntArray], n_survive: int) -> list[IntArray]:
    """Return the stages up to and including the one that fills the population."""
    filled = np.cumsum([len(stage) for stage in all_stages])
    return all_stages[: int(np.searchsorted(filled, n_survive)) + 1]


def _checked(objectives: FloatArray, min_rows: int = 1) -> FloatArray:
    """Return a float64 copy, since pymoo's compiled parts reject read-only memory; ValueError if unfit to sort."""
    array: FloatArray = np.array(objectives, dtype=np.float64, order="C")
    if array.ndim != 2 or len(array) < min_rows or array.shape[1] < 1:
        raise ValueError(f"expected at least {min_rows} rows of at least 1 number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("not a finite number in row " + str(int(np.argwhere(~np.isfinite(array))[0, 0])))
    return array
