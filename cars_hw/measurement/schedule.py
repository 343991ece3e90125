"""The schedule of a measurement: rounds of sessions in random order, until the quiet state was seen often enough.

Every device is measured by a :class:`Schedule`. A device runs sessions; the order, the reference, the repetition
and the statistics are the same for all devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.protocol import Device, Measurement, Sample
from cars_hw.errors import DeviceError
from cars_hw.measurement.states import ONE_STATE, Machine, Moments, StateFit, compared, fit_states, slowed_down
from cars_hw.progress import Progress, silent

REFERENCE: Final = "reference"
"""The name of the reference among the models of a measurement."""

QUIET_SESSIONS: Final = 3
"""So many sessions in the quiet state are enough for a model, and fewer if the plan has fewer sessions."""

MAX_MODEL_ERROR: Final = 0.01
"""The standard error, a fraction, up to which a model is measured well enough."""

MAX_QUIET_ROUNDS: Final = 2
"""A model with this many times the sessions of the plan in the quiet state has enough, however they scatter."""

MAX_SLOWER: Final = 1.05
"""A reference that takes more than this times its latency in the table is not in the quiet state of the table."""

PROBE_PAUSE_S: Final = 0.5
"""Time between two sessions of the reference while the machine is not in the quiet state, in seconds."""


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and how to let it pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Event(NamedTuple):
    """One session: the name of its model and its sample."""

    model: str
    sample: Sample


@dataclass
class Series:
    """All sessions of a measurement so far; with them an interrupted measurement can resume.

    Attributes:
        events: the sessions in their order.
        rounds: for each round, the names of its models in their order.
        blocks: how many blocks of the last round are done.
        waited_s: the time that further sessions and waits for the quiet state took, in seconds.
        fastest_ms: what the reference took in the fastest state that was seen, in milliseconds; None if not known.
            The longer a faster state is waited for, the smaller its share of the time becomes.
    """

    events: list[Event] = field(default_factory=list)
    rounds: list[list[str]] = field(default_factory=list)
    blocks: int = 0
    waited_s: float = 0.0
    fastest_ms: float | None = None

    def sessions(self) -> dict[str, int]:
        """Return the number of sessions of each model that has any."""
        counts: dict[str, int] = {}
        for event in self.events:
            counts[event.model] = counts.get(event.model, 0) + 1
        return counts


class Measured(NamedTuple):
    """One measurement per model, that of the reference (None without one), and the states of the machine.

    ``waited_s`` is the time in seconds that further sessions and waits for the quiet state took.
    """

    models: list[Measurement]
    reference: Measurement | None
    machine: Machine
    waited_s: float = 0.0


class Schedule:
    """Measures models on ``device`` as often as ``plan`` says; the models can grow between its rounds.

    Args:
        device: the device that runs the models.
        plan: the number of sessions, and when further ones end.
        reference: a model that has a session before and after every block. It shows the state of the machine.
        expected_ms: the latency of the reference in the quiet state in a latency table, in milliseconds. The quiet
            state is then that of the table.
        series: the sessions of an interrupted measurement; new ones are appended.
        on_block: called with all sessions after every block.
        clock: the time.
    """

    def __init__(
        self,
        device: Device,
        plan: MeasurePlan,
        *,
        reference: Path | None = None,
        expected_ms: float | None = None,
        series: Series | None = None,
        on_block: Callable[[Series], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._device = device
        self._plan = plan
        self._reference = reference
        self._expected_ms = expected_ms
        self.series = series or Series()
        self._on_block = on_block
        self._clock = clock or Clock()
        self._models: dict[str, Path] = {}
        self._begun = 0
        self._fitted: tuple[int, list[str], StateFit] | None = None

    def add(self, models: Mapping[str, Path]) -> None:
        """Add ``models``, files of the device's format by name."""
        self._models.update(models)

    def rounds(self, names: Sequence[str], count: int, progress: Progress = silent) -> None:
        """Run ``count`` rounds of the models ``names``; ``progress`` counts the sessions.

        Raises:
            DeviceError: the device fails.
        """
        for number in range(count):
            done = number * len(names)
            self._round(names, lambda within, done=done: progress("measuring", done + within, count * len(names)))  # type: ignore[misc]

    def until_quiet(
        self,
        names: Sequence[str],
        progress: Progress = silent,
        enough: Callable[[], bool] = lambda: True,
    ) -> None:
        """Run further sessions until all of ``names`` were measured in the quiet state, or the patience ends.

        While the machine is in another state, only the reference runs, with pauses. ``progress`` counts the models
        that are done. When all are, ``enough`` says whether that does; if not, all have another round.

        Raises:
            DeviceError: the device fails.
        """
        self._resume_last_round()
        while self.series.waited_s < self._plan.patience_seconds:
            self._remember_fastest()
            due, slower = self._due(names), self._is_slower()
            progress("waiting for the quiet state", len(names) - len(due), len(names))
            if not due and not slower and enough():
                return
            began = self._clock.now()
            # Where the fastest state does not come back, the models are measured in the present one all the same.
            if self._is_quiet() or (slower and due):
                self._round(due or names, began=began)
            else:
                self._clock.sleep(PROBE_PAUSE_S)
                self._probe()
                self._finish_block(began)

    def measured(self, names: Sequence[str]) -> Measured:
        """Return the measurements of ``names``, each of which has at least one session."""
        order, fit = self._fit()
        machine = fit.machine
        reference = self._measurement(REFERENCE, order, fit) if REFERENCE in order else None
        if reference is not None and self.series.fastest_ms is not None:
            machine = slowed_down(machine, reference.ms, self.series.fastest_ms)
        if reference is not None and self._expected_ms is not None:
            machine = compared(machine, reference.ms, self._expected_ms)
        models = [self._measurement(name, order, fit) for name in names]
        return Measured(models, reference, machine, self.series.waited_s)

    def _measurement(self, name: str, order: list[str], fit: StateFit) -> Measurement:
        index = order.index(name)
        samples = tuple(
            event.sample._replace(factor=round(float(factor), 4))
            for event, factor in zip(self.series.events, fit.factors, strict=True)
            if event.model == name
        )
        return Measurement(
            round(float(fit.quiet_ms[index]), 6),
            samples,
            round(float(fit.spread[index]), 6),
            standard_error=round(float(fit.standard_error[index]), 6),
            sensitivity=round(float(fit.sensitivity[index]), 4),
            quiet_sessions=int(fit.quiet_sessions[index]),
        )

    def _fit(self) -> tuple[list[str], StateFit]:
        """Return the names of the models in their order, and the fit of all sessions so far."""
        events = self.series.events
        if self._fitted is None or self._fitted[0] != len(events):
            order = list(dict.fromkeys(event.model for event in events))
            places = {name: place for place, name in enumerate(order)}
            moments = Moments(
                np.array([places[event.model] for event in events]),
                np.log([event.sample.ms for event in events]),
                seconds_of([event.sample for event in events]),
            )
            self._fitted = len(events), order, fit_states(moments, len(order))
        return self._fitted[1], self._fitted[2]

    def _due(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that need further sessions."""
        order, fit = self._fit()
        least, most = min(QUIET_SESSIONS, self._plan.sessions), MAX_QUIET_ROUNDS * self._plan.sessions
        due = []
        for name in names:
            place = order.index(name)
            quiet, error = fit.quiet_sessions[place], fit.standard_error[place]
            # The wider the sessions of a model scatter, the more of them it needs.
            if quiet < least or (quiet < most and error > MAX_MODEL_ERROR):
                due.append(name)
        return due

    def _remember_fastest(self) -> None:
        """Keep what the reference took in the fastest state so far."""
        order, fit = self._fit()
        if REFERENCE in order:
            # No state is faster than the fastest session: a fit of few sessions may say so.
            least = min(event.sample.ms for event in self.series.events if event.model == REFERENCE)
            seen = max(float(fit.quiet_ms[order.index(REFERENCE)]) / fit.machine.faster_before, least)
            self.series.fastest_ms = round(min(seen, self.series.fastest_ms or math.inf), 6)

    def _fastest_ms(self) -> float:
        """Return what the reference takes in the fastest state that is known: a state of the table or of before."""
        known = (self.series.fastest_ms, self._expected_ms)
        return min((ms for ms in known if ms is not None), default=math.inf)

    def _is_slower(self) -> bool:
        """Return whether the fastest state that recurs is slower than the fastest that is known."""
        order, fit = self._fit()
        if REFERENCE not in order:
            return False
        return bool(fit.quiet_ms[order.index(REFERENCE)] > MAX_SLOWER * self._fastest_ms())

    def _is_quiet(self) -> bool:
        """Return whether the last session of the reference was in the quiet state; True without a reference."""
        if self._reference is None:
            return True
        order, fit = self._fit()
        last = next(event.sample.ms for event in reversed(self.series.events) if event.model == REFERENCE)
        # A table of a faster machine must not hide the quiet state of this one.
        quiet_ms = self._fastest_ms() if self._is_slower() else float(fit.quiet_ms[order.index(REFERENCE)])
        return last <= MAX_SLOWER * quiet_ms

    def _resume_last_round(self) -> None:
        """Go on behind the rounds of an interrupted measurement, with the blocks that are missing of the last
        one."""
        rounds = self.series.rounds
        if self._begun < len(rounds):
            self._begun = len(rounds) - 1
            self._round((), began=self._clock.now())

    def _blocks(self, order: Sequence[str]) -> int:
        return math.ceil(len(order) / self._plan.block)

    def _round(
        self, names: Sequence[str], on_session: Callable[[int], None] = lambda _: None, began: float | None = None
    ) -> None:
        """Run one session of each of ``names``, or what an interruption left of the round."""
        series = self.series
        number = self._begun
        self._begun += 1
        if number < len(series.rounds) - 1:
            return
        if number == len(series.rounds):
            rng = np.random.default_rng((self._plan.seed, number))
            series.rounds.append([names[int(place)] for place in rng.permutation(len(names))])
            series.blocks = 0
        order = series.rounds[number]
        for block in range(series.blocks, self._blocks(order)):
            start = block * self._plan.block
            chosen = order[start : start + self._plan.block]
            seed = int(np.random.default_rng((self._plan.seed, number, block)).integers(2**31))
            self._run(chosen, seed, lambda done, start=start: on_session(start + done))  # type: ignore[misc]
            series.blocks += 1
            self._finish_block(began)
            began = None if began is None else self._clock.now()

    def _run(self, names: Sequence[str], seed: int, on_session: Callable[[int], None]) -> None:
        around = [] if self._reference is None else [REFERENCE]
        names = [*around, *names, *around]
        paths = [self._path(name) for name in names]
        inner = len(names) - 2 * len(around)
        taken = self._device.run(
            paths, self._plan, seed, lambda done: on_session(min(max(done - len(around), 0), inner))
        )
        self._require_latencies(names, taken)
        self.series.events += [Event(name, sample) for name, sample in zip(names, taken, strict=True)]

    def _require_latencies(self, names: Sequence[str], taken: Sequence[Sample]) -> None:
        """Check what a device measured, which may be of a package.

        Raises:
            DeviceError: there is not one sample for each of ``names``, or a latency is not above 0.
        """
        if len(taken) != len(names):
            raise DeviceError(f"{self._device.name} returned {len(taken)} samples for {len(names)} sessions")
        for name, sample in zip(names, taken, strict=True):
            if not 0 < sample.ms < math.inf:
                raise DeviceError(f"{self._device.name} reports a latency of {sample.ms} ms for {self._path(name)}")

    def _probe(self) -> None:
        assert self._reference is not None
        taken = self._device.run([self._reference], self._plan, self._plan.seed)
        self._require_latencies([REFERENCE], taken)
        self.series.events.append(Event(REFERENCE, taken[0]))

    def _path(self, name: str) -> Path:
        if name == REFERENCE:
            assert self._reference is not None
            return self._reference
        return self._models[name]

    def _finish_block(self, began: float | None) -> None:
        if began is not None:
            # To the millisecond: the file of an interrupted measurement then holds the same number.
            self.series.waited_s = round(self.series.waited_s + self._clock.now() - began, 3)
        if self._on_block is not None:
            self._on_block(self.series)


def measure(
    device: Device,
    models: Sequence[Path],
    plan: MeasurePlan | None = None,
    *,
    reference: Path | None = None,
    expected_ms: float | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> Measured:
    """Measure ``models`` on ``device`` in the quiet state; see :class:`Schedule`.

    ``progress`` counts the sessions that ``plan`` has for the models, without further ones and those of the
    reference; then the models that were measured often enough in the quiet state.

    Raises:
        DeviceError: the device fails.
    """
    plan = plan or MeasurePlan()
    if not models:
        return Measured([], None, ONE_STATE)
    schedule = Schedule(device, plan, reference=reference, expected_ms=expected_ms, clock=clock)
    names = [str(number) for number in range(len(models))]
    schedule.add(dict(zip(names, models, strict=True)))
    try:
        schedule.rounds(names, plan.sessions, progress)
        schedule.until_quiet(names, progress)
    finally:
        device.release()
    return schedule.measured(names)


def seconds_of(samples: Sequence[Sample]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the times in seconds at which the sessions of ``samples`` ended; their numbers where one has no
    time."""
    if any(sample.time is None for sample in samples):
        return np.arange(len(samples), dtype=float)
    return np.array([datetime.fromisoformat(sample.time or "").timestamp() for sample in samples])
