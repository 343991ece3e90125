"""What a device is to the rest of cars-hw: it takes model files and gives milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from cars_hw.errors import InputError

ModelFormat = Literal["onnx", "tflite"]

Precision = Literal["fp32", "int8"]

Progress = Callable[[int], None]
"""Called with the number of model sessions done so far, of ``len(models) * plan.sessions``.

Sessions that are measured again, and those of a reference, do not count.
"""


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


class Sample(NamedTuple):
    """One session's figure, and what it was taken under; None is what the device does not tell.

    Attributes:
        ms: milliseconds.
        time: when it ended, ISO 8601.
        load: the load average over a minute.
        clock_mhz: the processor's clock.
        others: processor time that was not the session's own, as a number of cores kept busy.
        reference_ms: what the reference took around it, in milliseconds; None where there was none.
    """

    ms: float
    time: str | None = None
    load: float | None = None
    clock_mhz: float | None = None
    others: float | None = None
    reference_ms: float | None = None


@dataclass(frozen=True)
class Measurement:
    """One model's latency in milliseconds.

    ``samples`` are all that were taken, one a session and in their order. ``ms`` is the median of the good ones,
    see :func:`cars_hw.measurement.schedule.summarize`, and ``spread`` their median distance from it, as a fraction
    of it: half of these sessions were that close.
    """

    ms: float
    samples: tuple[Sample, ...]
    spread: float

    @property
    def sessions(self) -> int:
        """How many sessions there were."""
        return len(self.samples)


class DeviceStatus(NamedTuple):
    """Whether a device can be used here and now; ``detail`` says what it is or what is missing."""

    name: str
    usable: bool
    detail: str


class Device(Protocol):
    """Something that runs model files. It knows no genotypes."""

    @property
    def name(self) -> str:
        """What stands in the table, such as ``ort``."""

    @property
    def model_format(self) -> ModelFormat:
        """The files that it runs."""

    def conditions(self) -> dict[str, Any]:
        """Return, ready for JSON, what the device measures under at this moment.

        At least ``processor``, ``cores``, ``platform``, ``runtime``, ``threads`` (a whole number), ``pinned``,
        ``load`` and ``time`` (ISO 8601); ``clock_mhz`` and ``governor`` where they can be read.
        """

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, progress: Progress | None = None
    ) -> list[Sample]:
        """Run one session of each of ``models`` in this order, and return a sample of each.

        A model can come more than once. Batch 1, inputs drawn at random from ``seed``; ``plan`` says how often a
        session runs its model. ``progress`` hears of every session.

        Raises:
            DeviceError: the device is missing, busy, crashes, hangs, or cannot run a model (named).
        """

    def release(self) -> None:
        """Give back what was taken: called when a measurement has ended, whatever way. It can be run again."""
