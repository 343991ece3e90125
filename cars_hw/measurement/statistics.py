"""Statistics of sessions: the latency of a model, and whether it needs further sessions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.protocol import Measurement, Sample


def summarize(samples: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None = None) -> Measurement:
    """Return the median of ``samples`` (at least one) and their spread, rounded to nanoseconds.

    Samples under drift are left out if the remaining ones are at least half of ``plan.sessions``.
    """
    steady = [sample for sample in samples if not has_drifted(sample, plan, usual_ms)]
    good = steady if 2 * len(steady) >= plan.sessions else samples
    figure = median(sample.ms for sample in good)
    spread = median(abs(sample.ms - figure) for sample in good) / figure
    return Measurement(round(figure, 6), tuple(samples), round(spread, 6))


def has_drifted(sample: Sample, plan: MeasurePlan, usual_ms: float | None) -> bool:
    """Return whether the reference around ``sample`` differs from ``usual_ms`` by more than the tolerance."""
    if sample.reference_ms is None or usual_ms is None:
        return False
    return abs(sample.reference_ms / usual_ms - 1) > plan.drift_tolerance


def needs_session(samples: Sequence[Sample], plan: MeasurePlan, usual_ms: float | None = None) -> bool:
    """Return whether a model with ``samples`` needs another session under ``plan``."""
    if len(samples) < plan.sessions:
        return True
    if len(samples) >= plan.sessions + plan.max_extra_sessions:
        return False
    steady = [sample.ms for sample in samples if not has_drifted(sample, plan, usual_ms)]
    return len(steady) - len(outliers(steady, plan.tolerance)) < plan.sessions


def outliers(samples: Sequence[float], tolerance: float) -> list[int]:
    """Return the indices of samples farther than ``tolerance``, a fraction, from the median of the rest."""
    found = []
    for index, sample in enumerate(samples):
        rest = [*samples[:index], *samples[index + 1 :]]
        if rest and abs(sample - median(rest)) > tolerance * median(rest):
            found.append(index)
    return found
