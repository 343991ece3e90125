"""A machine with known truth: a device whose latency depends on a simulated time, and whose clock is simulated."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, ModelFormat, Sample
from cars_hw.devices.protocol import SessionCounter
from cars_hw.devices.session import low_quantile, time_runs, warm_up
from cars_hw.measurement.schedule import Clock

Factor = Callable[[float], tuple[float, float]]
"""How many times longer arithmetic and memory take at a time in seconds."""

BEGAN = datetime(2000, 1, 1, tzinfo=UTC)
PROCESS_S = 0.3
SESSION_S = 0.005
COLD_S = 0.05


def quiet(_: float) -> tuple[float, float]:
    return 1.0, 1.0


def switching(*states: tuple[float, float], seed: int = 0, shortest: float = 1.0, longest: float = 10.0) -> Factor:
    """Return a machine that goes from one of ``states`` to another after 1 to 10 seconds, at random."""
    rng = np.random.default_rng(seed)
    ends: list[float] = [0.0]
    kinds: list[int] = []

    def at(second: float) -> tuple[float, float]:
        while ends[-1] <= second:
            others = [kind for kind in range(len(states)) if not kinds or kind != kinds[-1]]
            kinds.append(int(rng.choice(others)))
            ends.append(ends[-1] + float(rng.uniform(shortest, longest)))
        return states[kinds[bisect_right(ends, second) - 1]]

    return at


def drifting(amount: float, period: float) -> Factor:
    """Return a machine whose latency rises by ``amount`` and falls again, over and over."""
    return lambda second: (1 + amount * (0.5 - 0.5 * math.cos(2 * math.pi * second / period)),) * 2


def throttled(after: float, factor: float, until: float = math.inf) -> Factor:
    """Return a machine that is slower from a time on."""
    return lambda second: (factor, factor) if after <= second < until else (1.0, 1.0)


@dataclass
class SimulatedMachine:
    """Runs models on simulated time: ``parts`` gives the arithmetic and the memory of a model, in milliseconds.

    After ``COLD_S`` of idle time the clock is low: runs take ``1 + ramp`` times as long, and ever less over
    ``ramp_s`` seconds. ``noise`` is that of a session, ``jitter`` that of a run, upwards only.
    """

    parts: Callable[[Path], tuple[float, float]]
    factor: Factor = quiet
    ramp_s: float = 0.0
    ramp: float = 0.4
    noise: float = 0.006
    jitter: float = 0.05
    seed: int = 0
    name: str = "simulated"
    model_format: ModelFormat = "onnx"
    second: float = field(default=0.0, init=False)
    sessions: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._busy_since = -math.inf
        self._idle_since = 0.0

    @property
    def clock(self) -> Clock:
        """The clock of this machine for a schedule."""
        return Clock(lambda: self.second, self._sleep)

    def conditions(self) -> dict[str, Any]:
        return {**FakeDevice().conditions(), "runtime": "simulated"}

    def release(self) -> None: ...

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        del seed
        self._sleep(PROCESS_S)
        taken = []
        for done, model in enumerate(models, start=1):
            self._advance(SESSION_S)
            arithmetic, memory = self.parts(model)
            own = math.exp(self.noise * float(self._rng.standard_normal()))

            def once(arithmetic: float = arithmetic, memory: float = memory, own: float = own) -> None:
                by_arithmetic, by_memory = self.factor(self.second)
                ms = own * (arithmetic * by_arithmetic + memory * by_memory) * self._cold()
                self._advance(ms * (1 + self.jitter * float(self._rng.exponential())) / 1e3)

            if done == 1:
                warm_up(once, plan.warmup_seconds, self._nanoseconds)
            for _ in range(plan.warmup_runs):
                once()
            request = {"min_runs": plan.min_runs, "min_seconds": plan.min_seconds, "max_seconds": plan.max_seconds}
            ms = low_quantile(time_runs(once, request, self._nanoseconds), plan.quantile) / 1e6
            ended = BEGAN + timedelta(seconds=self.second)
            taken.append(Sample(ms, ended.isoformat(timespec="milliseconds")))
            self.sessions += 1
            if on_session is not None:
                on_session(done)
        return taken

    def _nanoseconds(self) -> int:
        return round(self.second * 1e9)

    def _sleep(self, seconds: float) -> None:
        self.second += seconds
        if seconds >= COLD_S:
            self._busy_since = self.second

    def _advance(self, seconds: float) -> None:
        self.second += seconds

    def _cold(self) -> float:
        if self.ramp_s <= 0:
            return 1.0
        return 1 + self.ramp * max(0.0, 1 - (self.second - self._busy_since) / self.ramp_s)
