"""Statistics of sessions: one figure for a model, and which sessions are to be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.protocol import Measurement, Sample


def summarize(samples: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None = None) -> Measurement:
    """Return the median of ``samples`` (at least one) and their spread, to the nanosecond.

    Where at least half of ``plan.sessions`` were taken while the reference was within the tolerance of
    ``usual_ms``, the others do not count.
    """
    steady = [sample for sample in samples if not has_drifted(sample, plan, usual_ms)]
    good = steady if 2 * len(steady) >= plan.sessions else samples
    figure = median(sample.ms for sample in good)
    spread = median(abs(sample.ms - figure) for sample in good) / figure
    return Measurement(round(figure, 6), tuple(samples), round(spread, 6))


def has_drifted(sample: Sample, plan: MeasurePlan, usual_ms: float | None) -> bool:
    """Return whether the machine was not as usual when ``sample`` was taken."""
    if sample.reference_ms is None or usual_ms is None:
        return False
    return abs(sample.reference_ms / usual_ms - 1) > plan.drift_tolerance


def wants_more(samples: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None = None) -> bool:
    """Return whether a model with ``samples`` needs a further session under ``plan``."""
    if len(samples) < plan.sessions:
        return True
    if len(samples) >= plan.sessions + plan.max_extra_sessions:
        return False
    steady = [sample.ms for sample in samples if not has_drifted(sample, plan, usual_ms)]
    return len(steady) - len(off_sessions(steady, plan.tolerance)) < plan.sessions


def off_sessions(samples: Sequence[float], tolerance: float) -> list[int]:
    """Return the indices of the samples that are further than ``tolerance`` from the median of the others."""
    off = []
    for index, sample in enumerate(samples):
        others = [*samples[:index], *samples[index + 1 :]]
        if others and abs(sample - median(others)) > tolerance * median(others):
            off.append(index)
    return off
