"""The schedule of a measurement: rounds of sessions in random order, with a reference that shows drift.

Every device is measured by :func:`measure`. A device runs sessions; the order, the reference, the repetition of
outliers and the statistics are the same for all devices.
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
from cars_hw.measurement.statistics import needs_session, summarize
from cars_hw.progress import Progress, silent

INTERFERENCE: Final = 0.1
"""A reference that is slower by more than this fraction means that another process uses the CPU. Less is drift."""

MIN_REFERENCE_SAMPLES: Final = 6
"""The usual latency of the reference is a median of at least so many samples, if no earlier one is known."""

MAX_PROBES: Final = 20
PROBE_PAUSE_S = 3.0
"""How often a measurement waits at most for the end of interference, and for how many seconds each time."""


@dataclass
class Series:
    """All samples of a measurement so far; with them an interrupted measurement can resume.

    Attributes:
        models: the samples of each model.
        reference: the samples of the reference.
        rounds: for each round, how many samples of the reference there were when it began.
    """

    models: list[list[Sample]]
    reference: list[Sample] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)


class Measured(NamedTuple):
    """One measurement per model, and that of the reference; None without a reference."""

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
    """Measure ``models`` on ``device`` in rounds of sessions, as often as ``plan`` says.

    An outlier stays in the record, and the model gets a further session. While the reference is much slower than
    usual, the measurement waits, up to a minute in all.

    Args:
        device: the device that runs the models.
        models: files of the device's format.
        plan: the number of sessions, and the tolerances that define an outlier.
        reference: a model that has a session before and after every block. It tells a change of the machine from a
            slow model.
        usual_ms: the usual latency of the reference in milliseconds, such as that in a latency table. The median of
            this measurement takes its place if it is None, or if the speed of the machine has changed.
        progress: counts the sessions that ``plan`` has for the models, without further sessions and those of the
            reference.
        series: the samples of an interrupted measurement; new ones are appended. The numbers of round and block
            are the seeds, so that the remaining sessions are those of an uninterrupted measurement.
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

    interference_wait = _InterferenceWait(device, plan, reference)
    try:
        for block, seed in _blocks(plan, series, usual_ms):
            interference_wait.wait(series.reference, usual_ms)
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
                taken = _with_reference(taken)
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
    """Yield the models of every remaining block, and the seed of the block.

    The models of a round follow from the samples at its beginning, so that an interruption changes nothing.
    """
    for number in range(plan.sessions + plan.max_extra_sessions):
        if len(series.rounds) == number:
            series.rounds.append(len(series.reference))
        usual = _usual(series.reference[: series.rounds[number]], plan, usual_ms)
        rng = np.random.default_rng((plan.seed, number))
        order = [int(index) for index in rng.permutation(len(series.models))]
        # A model that needs a session was in every round so far: it has as many samples as there were rounds.
        due = [
            index
            for index in order
            if len(series.models[index]) > number
            or (len(series.models[index]) == number and needs_session(series.models[index], plan, usual))
        ]
        seeds = rng.integers(2**31, size=len(due))
        for start in range(0, len(due), plan.block):
            block = due[start : start + plan.block]
            if len(series.models[block[0]]) == number:
                yield block, int(seeds[start])


class _InterferenceWait:
    """Waits while another process uses the CPU, for :data:`MAX_PROBES` pauses in all."""

    def __init__(self, device: Device, plan: MeasurePlan, reference: Path | None) -> None:
        self._device = device
        self._plan = plan
        self._reference = reference
        self._left = MAX_PROBES

    def wait(self, taken: Sequence[Sample], usual_ms: float | None) -> None:
        """Return as soon as the reference has about its usual latency, or after the last pause."""
        usual = usual_ms or (_usual(taken, self._plan, None) if len(taken) >= MIN_REFERENCE_SAMPLES else None)
        if self._reference is None or usual is None:
            return
        last = taken[-1].ms if taken else self._probe(self._reference)
        while self._left and last / usual - 1 > INTERFERENCE:
            self._left -= 1
            time.sleep(PROBE_PAUSE_S)
            last = self._probe(self._reference)

    def _probe(self, reference: Path) -> float:
        (sample,) = self._device.run([reference], self._plan, self._plan.seed)
        return sample.ms


def _usual(reference: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None) -> float | None:
    """Return the usual latency of the reference, in milliseconds: ``usual_ms``, or the median of this measurement.

    A small difference between the two means that the speed of the machine has changed for good: the median counts.
    A large difference is interference by another process, which ends: ``usual_ms`` counts.
    """
    if not reference:
        return usual_ms
    own = median(sample.ms for sample in reference)
    if usual_ms is None:
        return own
    return own if plan.drift_tolerance < abs(own / usual_ms - 1) <= INTERFERENCE else usual_ms


def _with_reference(taken: Sequence[Sample]) -> list[Sample]:
    """Return ``taken`` without the reference at its ends; each sample gets the interpolated reference latency."""
    first, last = taken[0].ms, taken[-1].ms
    steps = len(taken) - 1
    return [
        sample._replace(reference_ms=round(first + (last - first) * place / steps, 6))
        for place, sample in enumerate(taken[1:-1], start=1)
    ]
