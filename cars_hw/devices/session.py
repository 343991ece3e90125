"""The timing of one session: warm-up until the clock is steady, runs, and the low quantile of the runs.

Only the standard library is imported, so that worker processes start quickly. The clock is a parameter: a simulated
machine has a clock of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Nanoseconds = Callable[[], int]
"""A clock in nanoseconds."""

STEADY: Final = 0.01
"""A warm-up ends when its second half has no run that is faster than the first half's by more than this
fraction."""

MAX_DOUBLINGS: Final = 5
"""A warm-up becomes at most so many times twice as long."""


def low_quantile(runs: Sequence[float], quantile: float) -> float:
    """Return the ``quantile`` (a fraction) of ``runs``: the smallest run that so many do not exceed.

    One of the runs, not a mixture of two: of 20 runs, the quantile 0.1 is the second fastest.
    """
    ranked = sorted(runs)
    rank = math.ceil(quantile * len(ranked) - 1e-9)
    return ranked[max(rank, 1) - 1]


def warm_up(run: Callable[[], object], seconds: float, clock: Nanoseconds = time.perf_counter_ns) -> float:
    """Run for ``seconds``, and twice as long again until the latency no longer falls; return the seconds that it
    took.

    A processor that was idle raises its clock over 10 to 300 ms, during which every run is a little faster than the
    one before. So the fastest run of the first half of the warm-up is compared with that of the second half.
    """
    began = clock()
    length = seconds * 1e9
    runs: list[tuple[int, int]] = []
    for _ in range(MAX_DOUBLINGS + 1):
        while clock() - began < length:
            start = clock()
            run()
            stop = clock()
            runs.append((start - began, stop - start))
        first = [taken for start, taken in runs if start < length / 2]
        second = [taken for start, taken in runs if start >= length / 2]
        if not first or not second or min(second) >= (1 - STEADY) * min(first):
            break
        length *= 2
    return (clock() - began) / 1e9


def time_runs(
    run: Callable[[], object], request: Mapping[str, Any], clock: Nanoseconds = time.perf_counter_ns
) -> list[int]:
    """Return the times of the runs in nanoseconds, within the limits of ``request``; at least five."""
    floor, ceiling = request["min_seconds"] * 1e9, request["max_seconds"] * 1e9
    runs: list[int] = []
    began = clock()
    while True:
        start = clock()
        run()
        stop = clock()
        runs.append(stop - start)
        elapsed = stop - began
        if len(runs) >= request["min_runs"] and elapsed >= floor:
            return runs
        if len(runs) >= 5 and elapsed >= ceiling:
            return runs
