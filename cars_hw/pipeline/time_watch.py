"""Watches whether a search keeps to the time that its length was chosen for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cars_hw.config.search import EvolutionSettings
from cars_hw.config.units import format_seconds
from cars_hw.pipeline.time_plan import TimePlan
from cars_hw.progress import Log, Progress

SLOWER: Final = 1.1
"""A search that takes so many times the estimated time is slower than estimated. A tenth is the reserve."""

AGAIN: Final = 1.1
"""The next line comes when the factor has grown by this factor."""

FIRST: Final = 0.02
"""The share of the estimated time after which the pace is compared: the first steps are slow."""


class TimeWatch:
    """A :data:`~cars_hw.progress.Progress` that compares the time taken with the estimate.

    ``tell`` gets a line when the search is slower than estimated, and when its time is over. Only the work of this
    process is compared, so that a search may be interrupted for any time: ``warmed_up`` epochs of the warm-up and
    ``generations`` were finished before. A search that does not train (``trains``) has no epochs in a generation.
    """

    def __init__(
        self,
        plan: TimePlan,
        settings: EvolutionSettings,
        progress: Progress,
        tell: Log,
        *,
        trains: bool = True,
        warmed_up: int = 0,
        generations: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._unit = 1 + (settings.epochs_per_generation if trains else 0)
        self._progress = progress
        self._tell = tell
        self._clock = clock
        self._began = clock()
        stages = plan.stages
        self._before = stages.warm_up * warmed_up / max(1, settings.warmup_epochs)
        self._before += stages.generations * generations / settings.generations
        self._told = 1.0
        self._over = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report the progress, and compare it."""
        self._progress(stage, done, total)
        expected, now = self._expected(stage, done, total), self._clock()
        before, taken = self._before, now - self._began
        if before + taken > self._plan.within and not self._over:
            self._over = True
            self._tell(f"the time for the search, {format_seconds(self._plan.within)}, is over; it goes on")
        if expected is not None and expected - before >= FIRST * self._plan.stages.total:
            self._compare(taken / (expected - before), before + taken, expected)

    def _compare(self, factor: float, taken: float, expected: float) -> None:
        if factor < SLOWER or factor < AGAIN * self._told:
            return
        self._told = factor
        total = self._plan.stages.total
        # What is left goes on at this pace.
        whole = taken + (total - expected) * factor
        over = whole > self._plan.within
        self._tell(
            f"slower than estimated: so far {factor:.2g} times the estimated time; at this pace the search takes "
            f"{format_seconds(whole)} instead of {format_seconds(total)}, "
            f"{'longer than' if over else 'within'} the {format_seconds(self._plan.within)} that it was chosen for"
        )

    def _expected(self, stage: str, done: int, total: int) -> float | None:
        """Return the estimated seconds up to this report; None within a unit of work.

        An evaluation and an epoch differ in length, so only whole generations are compared. How the final stage is
        divided into rungs is not in the estimate.
        """
        stages = self._plan.stages
        if stage == "warm-up" and total:
            return stages.warm_up * done / total
        if stage == "generations" and done % self._unit == 0 and total:
            return stages.warm_up + stages.generations * done / total
        return None
