"""Settings of a measurement: how often a model is run, and which of the runs count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cars_hw.errors import InputError

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class MeasurePlan:
    """How often a model is run, and what of it is kept.

    A *session* is a freshly loaded model; all models have one session a round, in an order that is drawn anew, and
    every ``block`` of them has a fresh process. A session gives one sample: the ``quantile`` of its runs, which
    on a shared machine moves ten times less than their mean.

    A model has further sessions, at most ``max_extra_sessions``, as long as fewer than ``sessions`` of them are
    good: they lie within ``tolerance`` (a fraction) of the median of the others, and the reference that was run
    around them within ``drift_tolerance`` of its usual figure.

    A session runs a model ``warmup_runs`` times unmeasured, then at least ``min_runs`` times and for at least
    ``min_seconds``, but ends at ``max_seconds`` as soon as it has five runs.

    Raises:
        InputError: a number that no measurement can be made with.
    """

    sessions: int = 5
    warmup_runs: int = 3
    min_runs: int = 20
    min_seconds: float = 0.03
    max_seconds: float = 5.0
    quantile: float = 0.1
    tolerance: float = 0.05
    drift_tolerance: float = 0.03
    block: int = 16
    max_extra_sessions: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("sessions", 1),
            ("min_runs", 1),
            ("warmup_runs", 0),
            ("block", 1),
            ("max_extra_sessions", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.quantile <= 1:
            raise InputError(f"quantile must be between 0 and 1, not {self.quantile}")
        for name in ("tolerance", "drift_tolerance", "max_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if not (self.min_seconds >= 0 and self.seed >= 0):
            raise InputError("min_seconds and seed must not be negative")
