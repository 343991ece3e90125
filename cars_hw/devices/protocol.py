"""The interface of a device: model files in, milliseconds out."""

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
    """The latency of one session and its conditions. A condition that the device does not report is None.

    ``ms`` is the latency in milliseconds, ``time`` the end of the session (ISO 8601), ``load`` the load average
    over one minute, and ``clock_mhz`` the clock of the processor. ``other_load`` is the number of cores that other
    processes kept busy. ``factor`` says how many times the quiet latency a model took at that time, by the model of
    the machine's states; None before the states are fitted.
    """

    ms: float
    time: str | None = None
    load: float | None = None
    clock_mhz: float | None = None
    other_load: float | None = None
    factor: float | None = None


@dataclass(frozen=True)
class Measurement:
    """The latency of one model, from the model of the machine's states (:mod:`cars_hw.measurement.states`).

    ``ms`` is the latency in the quiet state in milliseconds. ``samples`` has one sample per session, in their
    order. ``spread`` is the median distance of the sessions from the fit, and ``standard_error`` that of ``ms``,
    both as fractions of it. In a state in which models of ``sensitivity`` 1 take ``factor`` times the quiet
    latency, this model takes ``factor ** sensitivity`` times. ``quiet_sessions`` counts the sessions in the quiet
    state.
    """

    ms: float
    samples: tuple[Sample, ...]
    spread: float
    standard_error: float = 0.0
    sensitivity: float = 1.0
    quiet_sessions: int = 0

    @property
    def sessions(self) -> int:
        """The number of sessions."""
        return len(self.samples)

    def in_state(self, factor: float) -> float:
        """Return the latency, in milliseconds, in a state in which models of sensitivity 1 are ``factor`` times
        as slow."""
        return float(self.ms * factor**self.sensitivity)


class DeviceStatus(NamedTuple):
    """Whether a device can be used now. ``detail`` describes it or names what is missing, ``remedy`` the help."""

    name: str
    usable: bool
    detail: str
    remedy: Remedy | None = None


class Device(Protocol):
    """Runs model files. It knows no genotypes."""

    @property
    def name(self) -> str:
        """The name in tables and on the command line, such as ``ort``."""

    @property
    def model_format(self) -> ModelFormat:
        """The format of the files that it runs."""

    def conditions(self) -> dict[str, Any]:
        """Return the present conditions as JSON values.

        At least ``processor``, ``cores``, ``platform``, ``runtime``, ``threads`` (a whole number), ``pinned``,
        ``load`` and ``time`` (ISO 8601); ``clock_mhz`` and ``governor`` where they can be read.
        """

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        """Run one session of each of ``models`` in this order, and return a sample of each.

        A model can come more than once. The batch is 1, and ``seed`` draws the inputs. ``plan`` says how often a
        session runs its model. ``on_session`` is called after every session.

        Raises:
            DeviceError: the device is missing, busy, crashes, hangs, or cannot run a model (named).
        """

    def release(self) -> None:
        """Release resources at the end of a measurement, also after an error. :meth:`run` can follow."""


def warnings_of(device: Device) -> tuple[str, ...]:
    """Return why latencies of ``device`` are not those of the machine at its best, as far as it has told in its
    property ``warnings``; a device without one has none."""
    return tuple(getattr(device, "warnings", ()))


def learnt_by(device: Device) -> dict[str, Any]:
    """Return the conditions that ``device`` has learnt while it measured, without asking it anything.

    A device may have a method ``learnt`` for them. The others have their warnings, if any.
    """
    learnt: Callable[[], dict[str, Any]] | None = getattr(device, "learnt", None)
    if learnt is not None:
        return learnt()
    warnings = warnings_of(device)
    return {"warnings": list(warnings)} if warnings else {}
