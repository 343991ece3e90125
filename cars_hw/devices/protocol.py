"""What a device is to the rest of cars-hw: it takes model files and gives milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cars_hw.config.measurement import MeasurePlan
from cars_hw.errors import Remedy

ModelFormat = str
"""The name of an export format, such as ``onnx``: a key of :data:`cars_hw.export.formats.FORMATS`."""

SessionCounter = Callable[[int], None]
"""Called after every session of :meth:`Device.run` with the number of its sessions that are done."""


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
    see :func:`cars_hw.measurement.statistics.summarize`, and ``spread`` their median distance from it, as a
    fraction of it: half of these sessions were that close.
    """

    ms: float
    samples: tuple[Sample, ...]
    spread: float

    @property
    def sessions(self) -> int:
        """How many sessions there were."""
        return len(self.samples)


class DeviceStatus(NamedTuple):
    """Whether a device can be used now; ``detail`` says what it is or what is missing, ``remedy`` what helps."""

    name: str
    usable: bool
    detail: str
    remedy: Remedy | None = None


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
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        """Run one session of each of ``models`` in this order, and return a sample of each.

        A model can come more than once. Batch 1, inputs drawn at random from ``seed``; ``plan`` says how often a
        session runs its model. ``on_session`` is called after every session.

        Raises:
            DeviceError: the device is missing, busy, crashes, hangs, or cannot run a model (named).
        """

    def release(self) -> None:
        """Give back what was taken: called when a measurement has ended, whatever way. It can be run again."""
