"""The sustained state: what a network takes after minutes of load, when a phone has reached the heat that it keeps.

A network runs without a pause, first for minutes that do not count, then for a window that does. The 50th and 90th
percentile of all runs in the window are reported; the 90th percentile over at least 60 s is the figure of MLPerf
Mobile (Janapa Reddi et al., 2022). Between two networks the device rests until it is as fast as at the beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ClassVar, Final

import numpy as np

from cars_hw.config.measurement import SustainedPlan
from cars_hw.config.setting import Settings, count, milliseconds, setting
from cars_hw.devices.load import LoadDevice, Spell
from cars_hw.devices.protocol import Device
from cars_hw.errors import InputError
from cars_hw.measurement.schedule import Clock
from cars_hw.progress import Progress, silent

COOL: Final = 1.05
"""A device that takes at most this many times its latency of the beginning has cooled down."""

STEADY: Final = 0.02
"""Where the load has settled, the median of the window differs by at most this fraction from that of before."""

FRESH_S: Final = 5.0
"""The latency at the beginning is that of so many seconds."""

REST_S: Final = 10.0
"""The time between two looks whether a device has cooled down, in seconds."""

LOOK_S: Final = 1.0
"""How long a look whether a device has cooled down takes at most, in seconds: it heats the device again."""

BLOCK_S: Final = 30.0
"""The device is asked for so many seconds of load at a time."""

_PARTS: Final = 200
"""A session counts as so many runs, evenly spread over its percentiles."""


@dataclass(frozen=True)
class Sustained(Settings):
    """The latency of a model under load, in milliseconds.

    ``p50_ms`` and ``p90_ms`` are percentiles of the runs in the window, ``before_ms`` is the 50th percentile in the
    same time before it, and ``fresh_ms`` that of the first seconds of load. ``load_s`` is the time of load before
    the window, and ``window_s`` the length of the window, in seconds. ``runs`` counts the runs in the window.
    ``clock_mhz`` is the median clock in it. ``cooled`` is False if the device was still slower than at the
    beginning when the load of this model began. ``exact`` is False if the tool reported averages only: then the
    percentiles are those of sessions. ``warmest_c`` has the highest temperatures during the load in degrees
    Celsius, by part, and ``thermal_status`` the highest level of throttling that Android reported, 0 to 6.
    """

    fresh_ms: float = milliseconds()
    before_ms: float = milliseconds()
    p50_ms: float = milliseconds()
    p90_ms: float = milliseconds()
    load_s: float = setting(minimum=0, unit="s")
    window_s: float = setting(minimum=0, unit="s")
    runs: int = count(minimum=1)
    clock_mhz: float | None = setting(None, above=0)
    cooled: bool = True
    exact: bool = True
    warmest_c: Mapping[str, float] = field(default_factory=dict)
    thermal_status: int | None = setting(None, minimum=0)

    ADDED: ClassVar = frozenset({"warmest_c", "thermal_status"})

    @property
    def slowdown(self) -> float:
        """How many times the latency of the beginning the median run of the window takes."""
        return self.p50_ms / self.fresh_ms

    def warnings(self) -> list[str]:
        """Return why the figures are not those of the sustained state, each in a few words."""
        found = []
        change = self.p50_ms / self.before_ms - 1
        if abs(change) > STEADY:
            found.append(
                f"after {self.load_s:.0f} s of load the latency still {'rises' if change > 0 else 'falls'}, by "
                f"{abs(change):.1%} in {self.window_s:.0f} s"
            )
        if not self.cooled:
            found.append("the device had not cooled down when the load began")
        return found


@dataclass
class _Loads:
    """The spells of one model, with the times in seconds at which they ended."""

    spells: list[Spell] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[Spell]:
        """Return the spells that ended after ``begin`` and not after ``end``."""
        return [spell for spell, ended in zip(self.spells, self.ends, strict=True) if begin < ended <= end + 1e-6]


def measure_sustained(
    device: Device,
    models: Sequence[Path],
    plan: SustainedPlan | None = None,
    *,
    progress: Progress = silent,
    clock: Clock | None = None,
    done: Sequence[Sustained] = (),
    on_model: Callable[[Sustained], None] = lambda _: None,
) -> list[Sustained]:
    """Return the latency of each of ``models`` under load; ``progress`` counts the seconds of load.

    ``done`` has the latencies of the first models, where a measurement goes on that was interrupted. ``on_model``
    is called with each further one.

    Raises:
        InputError: the device cannot run a model for minutes.
        DeviceError: the device fails.
    """
    loading = require_load_device(device)
    plan, clock = plan or SustainedPlan(), clock or Clock()
    try:
        found = list(done)
        for model in models[len(done) :]:
            cooled = not found or _rest(loading, models[0], found[0].fresh_ms, plan, clock)
            found.append(_under_load(loading, model, plan, clock, cooled=cooled, progress=progress))
            on_model(found[-1])
        return found
    finally:
        device.release()


def require_load_device(device: Device) -> LoadDevice:
    """Return ``device`` as one that can run a model for minutes.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(device, LoadDevice):
        raise InputError(f"{device.name}: the sustained state is measured on phones and boards only")
    return device


def quantile(spells: Sequence[Spell], share: float) -> float:
    """Return the latency in milliseconds that ``share`` of the runs of ``spells`` do not exceed.

    The runs of a session are spread between its quantiles.
    """
    shares = (np.arange(_PARTS) + 0.5) / _PARTS
    values = np.concatenate([np.interp(shares, *np.transpose(spell.quantiles)) for spell in spells])
    weights = np.repeat([spell.runs / _PARTS for spell in spells], _PARTS)
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, share * passed[-1] * (1 - 1e-12))])


def _under_load(
    device: LoadDevice, model: Path, plan: SustainedPlan, clock: Clock, *, cooled: bool, progress: Progress
) -> Sustained:
    """Run ``model`` for the load and the window, and return what it takes."""
    loads, whole = _Loads(), plan.load_seconds + plan.window_seconds
    began = clock.now()
    while (elapsed := clock.now() - began) < whole or not loads.spells:
        progress("under load", min(int(elapsed), int(whole)), int(whole))
        sessions = math.ceil(min(BLOCK_S, max(whole - elapsed, 0.0)) / plan.session_seconds) or 1
        spells = device.load(model, sessions, plan.session_seconds, rested=not loads.spells)
        ended = clock.now() - began
        loads.spells += spells
        # Sessions of a block are equally long.
        loads.ends += [elapsed + (ended - elapsed) * (place + 1) / len(spells) for place in range(len(spells))]
    end = loads.ends[-1]
    window = loads.between(end - plan.window_seconds, end)
    fresh = loads.between(-1.0, max(FRESH_S, loads.ends[0]))
    # A plan whose load is shorter than a session has nothing before the window but the beginning.
    before = loads.between(end - 2 * plan.window_seconds, end - plan.window_seconds) or fresh
    clocks = [spell.clock_mhz for spell in window if spell.clock_mhz is not None]
    statuses = [spell.thermal_status for spell in loads.spells if spell.thermal_status is not None]
    return Sustained(
        fresh_ms=round(quantile(fresh, 0.5), 6),
        before_ms=round(quantile(before, 0.5), 6),
        p50_ms=round(quantile(window, 0.5), 6),
        p90_ms=round(quantile(window, 0.9), 6),
        load_s=round(max(end - plan.window_seconds, 0.0), 1),
        window_s=plan.window_seconds,
        runs=sum(spell.runs for spell in window),
        clock_mhz=median(clocks) if clocks else None,
        cooled=cooled,
        exact=all(spell.is_exact for spell in window),
        warmest_c=_warmest(loads.spells),
        thermal_status=max(statuses, default=None),
    )


def _warmest(spells: Sequence[Spell]) -> dict[str, float]:
    """Return the highest temperature of each part."""
    found: dict[str, float] = {}
    for spell in spells:
        for part, value in spell.temperatures_c.items():
            found[part] = max(value, found.get(part, value))
    return found


def _rest(device: LoadDevice, model: Path, fresh_ms: float, plan: SustainedPlan, clock: Clock) -> bool:
    """Wait until ``model`` takes as long as at the beginning; return whether it does, in time."""
    began = clock.now()
    while clock.now() - began < plan.cool_seconds:
        clock.sleep(REST_S)
        (spell,) = device.load(model, 1, min(plan.session_seconds, LOOK_S), rested=True)
        if quantile([spell], 0.5) <= COOL * fresh_ms:
            return True
    return False
