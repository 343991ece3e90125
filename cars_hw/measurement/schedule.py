"""Rounds of sessions, and the one figure that they come to.

Every device is measured through :func:`measure`: a backend brings the session, and gets the random order, the
reference that shows drift, the repetition of what was off, and the statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.protocol import Device, Measurement, Sample
from cars_hw.measurement.statistics import summarize, wants_more
from cars_hw.progress import Progress, silent

DISTURBED: Final = 0.1
"""A reference that is so far off, a fraction, tells of somebody else on the processor, not of a change of speed."""

FEW: Final = 6
"""With fewer sessions of its own, a measurement does not know what is usual."""

PROBES: Final = 20
PAUSE_S = 3.0
"""So often, and so many seconds each time, a measurement waits in all for a disturbed machine."""


@dataclass
class Series:
    """All samples so far: per model, of the reference, and how many of the latter each round began with.

    It is all that a measurement needs to go on where it was interrupted.
    """

    models: list[list[Sample]]
    reference: list[Sample] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)


class Measured(NamedTuple):
    """One measurement a model, and that of the reference, None where there was none."""

    models: list[Measurement]
    reference: Measurement | None


def measure(
    device: Device,
    models: Sequence[Path],
    plan: MeasurePlan | None = None,
    *,
    reference: Path | None = None,
    usual_ms: float | None = None,
    progress: Progress = silent,
    series: Series | None = None,
    on_block: Callable[[Series], None] | None = None,
) -> Measured:
    """Measure ``models`` on ``device`` in rounds of sessions until each has what ``plan`` asks for.

    A sample that is off is not thrown away: it stays in the record, and further sessions outvote it. While the
    reference is far off, the measurement waits, up to a minute in all.

    Args:
        device: what runs them.
        models: files of the device's format.
        plan: how often, and what counts as off.
        reference: a model that has a session before and after every block of the others: what it takes tells
            a machine that has changed from a model that is slow.
        usual_ms: what the reference usually takes, such as when a table was made; the median of this
            measurement, if None, or if that shows that the machine has become another one.
        progress: counts the sessions that ``plan`` has for the models; further sessions and those of the reference
            do not count.
        series: what an interrupted measurement has; extended in place. Rounds and blocks are seeded by their
            numbers, so that what follows is what would have followed.
        on_block: called with all samples after every block of sessions.

    Raises:
        DeviceError: the device fails.
    """
    plan = plan or MeasurePlan()
    series = Series([[] for _ in models]) if series is None else series
    if not models:
        return Measured([], None)
    total = len(models) * plan.sessions

    def report(block: Sequence[int], within: int) -> None:
        before = sum(min(len(taken), plan.sessions) for taken in series.models)
        new = sum(len(series.models[index]) < plan.sessions for index in block[:within])
        progress("measuring", min(before + new, total), total)

    patience = _Patience(device, plan, reference)
    try:
        for block, seed in _blocks(plan, series, usual_ms):
            patience.wait(series.reference, usual_ms)
            around = [] if reference is None else [reference]
            lead = len(around)
            taken = device.run(
                [*around, *(models[index] for index in block), *around],
                plan,
                seed,
                lambda done, block=block, lead=lead: report(block, max(done - lead, 0)),  # type: ignore[misc]
            )
            if reference is not None:
                series.reference += [taken[0], taken[-1]]
                taken = _between(taken)
            for index, sample in zip(block, taken, strict=True):
                series.models[index].append(sample)
            if on_block is not None:
                on_block(series)
    finally:
        device.release()
    usual = _usual(series.reference, plan, usual_ms)
    return Measured(
        [summarize(taken, plan, usual) for taken in series.models],
        summarize(series.reference, plan, None) if series.reference else None,
    )


def _blocks(plan: MeasurePlan, series: Series, usual_ms: float | None) -> Iterator[tuple[list[int], int]]:
    """Yield the models of every block that is still to be run, and the block's seed.

    What is due in a round is settled when it begins, by what is known then, so that an interruption changes
    nothing.
    """
    for number in range(plan.sessions + plan.max_extra_sessions):
        if len(series.rounds) == number:
            series.rounds.append(len(series.reference))
        usual = _usual(series.reference[: series.rounds[number]], plan, usual_ms)
        rng = np.random.default_rng((plan.seed, number))
        order = [int(index) for index in rng.permutation(len(series.models))]
        # Whoever wants more has been in every round so far, so its samples number the rounds.
        due = [
            index
            for index in order
            if len(series.models[index]) > number
            or (len(series.models[index]) == number and wants_more(series.models[index], plan, usual))
        ]
        seeds = rng.integers(2**31, size=len(due))
        for start in range(0, len(due), plan.block):
            block = due[start : start + plan.block]
            if len(series.models[block[0]]) == number:
                yield block, int(seeds[start])


class _Patience:
    """Waits while the machine is disturbed, for :data:`PROBES` pauses in all."""

    def __init__(self, device: Device, plan: MeasurePlan, reference: Path | None) -> None:
        self._device = device
        self._plan = plan
        self._reference = reference
        self._left = PROBES

    def wait(self, taken: Sequence[Sample], usual_ms: float | None) -> None:
        """Return as soon as the reference is near what it usually takes, or when there is no patience left."""
        # A median of few is no measure of what is usual.
        usual = usual_ms or (_usual(taken, self._plan, None) if len(taken) >= FEW else None)
        if self._reference is None or usual is None:
            return
        last = taken[-1].ms if taken else self._probe(self._reference)
        while self._left and last / usual - 1 > DISTURBED:
            self._left -= 1
            time.sleep(PAUSE_S)
            last = self._probe(self._reference)

    def _probe(self, reference: Path) -> float:
        (sample,) = self._device.run([reference], self._plan, self._plan.seed)
        return sample.ms


def _usual(reference: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None) -> float | None:
    """Return what the reference has to be near to: ``usual_ms``, or its own median.

    A machine that is a little off as a whole has become another one, and waiting does not bring it back. One that
    is far off is disturbed, and what disturbs it goes away.
    """
    if not reference:
        return usual_ms
    own = median(sample.ms for sample in reference)
    if usual_ms is None:
        return own
    return own if plan.drift_tolerance < abs(own / usual_ms - 1) <= DISTURBED else usual_ms


def _between(taken: Sequence[Sample]) -> list[Sample]:
    """Return ``taken`` without its first and last, each with what the reference took at its place in the block."""
    first, last = taken[0].ms, taken[-1].ms
    steps = len(taken) - 1
    return [
        sample._replace(reference_ms=round(first + (last - first) * place / steps, 6))
        for place, sample in enumerate(taken[1:-1], start=1)
    ]
