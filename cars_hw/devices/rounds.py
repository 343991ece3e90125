"""Rounds of sessions, and the one figure that they come to.

Every backend measures through :func:`measure_in_rounds`: it brings the session, and gets the random order, the
repetition of what was off, and the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from cars_hw.devices.protocol import Measurement, MeasurePlan

RunRound = Callable[[list[int], int], list[float]]
"""Run one session of each of the models that are numbered, in that order, in milliseconds; the second argument
seeds whatever the round draws."""

Samples = list[list[float]]


def low_quantile(runs: Sequence[float], quantile: float) -> float:
    """Return the ``quantile`` (a fraction) of ``runs``: the smallest run that so many do not exceed.

    One of the runs, not a mixture of two: of 20 runs, the quantile 0.1 is the second fastest.
    """
    ranked = sorted(runs)
    rank = int(np.ceil(quantile * len(ranked) - 1e-9))
    return ranked[max(rank, 1) - 1]


def summarize(samples: Sequence[float]) -> Measurement:
    """Return the median of ``samples`` (milliseconds, at least one) and their spread, to the nanosecond."""
    figure = median(samples)
    spread = median(abs(sample - figure) for sample in samples) / figure
    return Measurement(round(figure, 6), tuple(round(sample, 6) for sample in samples), round(spread, 6))


def wants_more(samples: Sequence[float], plan: MeasurePlan) -> bool:
    """Return whether a model with ``samples`` needs a further session under ``plan``."""
    if len(samples) < plan.sessions:
        return True
    if len(samples) >= plan.sessions + plan.max_extra_sessions:
        return False
    return len(samples) - len(off_sessions(samples, plan.tolerance)) < plan.sessions


def off_sessions(samples: Sequence[float], tolerance: float) -> list[int]:
    """Return the indices of the samples that are further than ``tolerance`` from the median of the others."""
    off = []
    for index, sample in enumerate(samples):
        others = [*samples[:index], *samples[index + 1 :]]
        if others and abs(sample - median(others)) > tolerance * median(others):
            off.append(index)
    return off


def measure_in_rounds(
    run_round: RunRound,
    count: int,
    plan: MeasurePlan,
    *,
    samples: Samples | None = None,
    on_round: Callable[[Samples], None] | None = None,
) -> list[Measurement]:
    """Measure ``count`` models in rounds of sessions until each has what ``plan`` asks for.

    A sample that is off is not thrown away: it stays in the record, and the further sessions outvote it.

    Args:
        run_round: one session of the models that are due.
        count: how many models there are.
        plan: how often, and what counts as off.
        samples: what an interrupted measurement has, per model, in milliseconds; extended in place. Rounds are
            seeded by their number, so that what follows is what would have followed.
        on_round: called with all samples after every round.

    Returns:
        One measurement a model.
    """
    samples = [[] for _ in range(count)] if samples is None else samples
    for number in range(plan.sessions + plan.max_extra_sessions):
        # Whoever wants more has been in every round so far, so its samples number the rounds.
        due = [
            index for index in range(count) if len(samples[index]) == number and wants_more(samples[index], plan)
        ]
        if not due:
            continue
        rng = np.random.default_rng((plan.seed, number))
        order = [int(index) for index in rng.permutation(due)]
        for index, ms in zip(order, run_round(order, int(rng.integers(2**31))), strict=True):
            samples[index].append(round(ms, 6))
        if on_round is not None:
            on_round(samples)
    return [summarize(taken) for taken in samples]
