"""The energy of a run of a model: the power while it runs again and again, less that of the device at rest.

The counter of a processor package or of a battery sees all that the device does. So the device rests before and
after each model, and the mean of both rests is subtracted. Every model is measured at least twice, the second time
in the opposite order, and what is not known to the wanted precision is an error and no figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from cars_hw.config.measurement import EnergyPlan
from cars_hw.config.setting import Settings, milliseconds, setting
from cars_hw.devices.energy import EnergyDevice, PowerWindow
from cars_hw.devices.protocol import Device
from cars_hw.errors import DeviceStateError, InputError
from cars_hw.measurement.energy_journal import EnergyJournal, Taken
from cars_hw.progress import Progress, silent

MOST_OTHER_LOAD: Final = 0.1
"""With so many cores busy by other processes, their energy is a part of what is counted."""

ROUNDS: Final = 2
MOST_ROUNDS: Final = 5
"""Every model is measured so many times at least, and at most until its energy is known well enough."""


@dataclass(frozen=True)
class Energy(Settings):
    """The energy of one run of a model, in millijoules beyond what the device takes at rest.

    ``error`` is the largest error that the counter's resolution and the rests before and after allow, or the
    difference between rounds if that is larger; a fraction of ``mj``. ``watts`` is the power of the whole device
    while the model ran, and ``idle_watts`` that at rest. ``run_ms`` is the mean time of a run, and ``seconds`` the
    time that was counted while the model ran.
    """

    mj: float = setting(above=0, maximum=1e9, unit="mJ")
    error: float = setting(minimum=0, maximum=1e9)
    watts: float = setting(minimum=0, maximum=1e9)
    idle_watts: float = setting(minimum=0, maximum=1e9)
    run_ms: float = milliseconds()
    seconds: float = setting(minimum=0, maximum=1e9, unit="s")


def require_energy_device(device: Device) -> EnergyDevice:
    """Return ``device`` as one that tells its energy.

    Raises:
        InputError: it cannot.
        DeviceError: it cannot now.
    """
    if not isinstance(device, EnergyDevice):
        raise InputError(
            f"{device.name} does not tell its energy; phones do by their battery, and processors of Intel and AMD "
            "by RAPL"
        )
    device.energy_meter()
    return device


def measure_energy(
    device: Device,
    models: Sequence[Path],
    plan: EnergyPlan | None = None,
    *,
    progress: Progress = silent,
    name_of: Callable[[Path], str] = str,
    journal: EnergyJournal | None = None,
) -> list[Energy]:
    """Return the energy of a run of each of ``models``; ``progress`` counts the models of a round.

    What ``journal`` has of the models is not measured again, and what is measured is added to it. It is removed
    where all was measured and is not known well enough.

    Raises:
        InputError: the device does not tell its energy.
        DeviceStateError: the energy of a model (``name_of``) is not known to ``plan.max_error``: the counter is too
            coarse, other processes were busy, or the power at rest changed.
        DeviceError: the device fails, must not be asked, or is on a charger.
    """
    plan = plan or EnergyPlan()
    journal = journal or EnergyJournal(None, {}, len(models))
    try:
        rounds = _Rounds(require_energy_device(device), device.name, plan, name_of)
        for number in range(MOST_ROUNDS):
            waiting = [place for place, taken in enumerate(journal.taken) if _lacks(taken, number, plan)]
            ordered = waiting if number % 2 == 0 else waiting[::-1]
            for done, place in enumerate(ordered):
                progress(f"energy, round {number + 1}", done, len(ordered))
                journal.add(place, rounds.take(models[place]))
            if ordered:
                progress(f"energy, round {number + 1}", len(ordered), len(ordered))
    finally:
        device.release()
    try:
        return [
            _energy(taken, plan, device.name, name_of(model))
            for model, taken in zip(models, journal.taken, strict=True)
        ]
    except DeviceStateError:
        # What would go on with it would end in the same way.
        journal.remove()
        raise


def _lacks(taken: Sequence[Taken], number: int, plan: EnergyPlan) -> bool:
    """Return whether a model that was measured so often takes part in round ``number``."""
    return len(taken) <= number and (number < ROUNDS or _error(taken) > plan.max_error)


class _Rounds:
    """Windows with a model and at rest by turns."""

    def __init__(self, device: EnergyDevice, name: str, plan: EnergyPlan, name_of: Callable[[Path], str]) -> None:
        self._device, self._name, self._plan, self._name_of = device, name, plan, name_of
        self._idle: PowerWindow | None = None
        self._seconds = {True: plan.seconds, False: plan.seconds}
        self._beyond_watts: float | None = None

    def take(self, model: Path) -> Taken:
        """Return what a run of ``model`` takes, between two rests, of which it shares one with the last model."""
        if self._idle is None:
            # Known before anything counts: how precise windows must be follows from the power beyond rest.
            first = self._beyond_watts = self._window(model).watts
            self._idle = self._window(None)
            self._beyond_watts = first - self._idle.watts
        busy = self._window(model)
        self._beyond_watts = busy.watts - self._idle.watts
        before, self._idle = self._idle, self._window(None)
        after = self._idle
        rest = (before.watts + after.watts) / 2
        beyond = busy.watts - rest
        if beyond <= 0:
            raise DeviceStateError(
                f"{self._name}: {busy.watts:.3g} W while {self._name_of(model)} runs, and {rest:.3g} W at rest: "
                "its energy cannot be told from that of the rest"
            )
        # The power at rest was anything between that before and after.
        wrong = (
            busy.watts * busy.resolution
            + (before.watts * before.resolution + after.watts * after.resolution) / 2
            + abs(before.watts - after.watts) / 2
        )
        joules, error = beyond * busy.run_seconds, wrong / beyond
        return Taken(joules, error, busy.watts, rest, busy.run_seconds, busy.seconds)

    def _window(self, model: Path | None) -> PowerWindow:
        """Return a window that is long enough for the counter's resolution.

        Raises:
            DeviceStateError: none of the allowed length is, or other processes were busy.
        """
        busy, longest = model is not None, max(self._plan.max_seconds, self._plan.seconds)
        what = "at rest" if model is None else f"while {self._name_of(model)} runs"
        while True:
            seconds = self._seconds[busy]
            window = self._device.spend(model, seconds)
            if window.other_load is not None and window.other_load > MOST_OTHER_LOAD:
                raise DeviceStateError(
                    f"{self._name}: other processes kept {window.other_load:.2g} cores busy {what}, and the "
                    "counter has their energy, too; stop them, and measure again"
                )
            wanted = self._plan.max_error / 3
            if self._beyond_watts is not None and self._beyond_watts > 0 and window.watts > 0:
                # The counter's step is a part of all that it counted, and the error one of what is beyond rest.
                wanted *= self._beyond_watts / window.watts
            if window.resolution <= wanted:
                return window
            if seconds >= longest:
                moved = (
                    "did not move twice"
                    if math.isinf(window.resolution)
                    else (f"moves in steps of {window.resolution:.1%} of what it counted")
                )
                raise DeviceStateError(
                    f"{self._name}: the energy counter {moved} in {seconds:.0f} s {what}; {wanted:.1%} is needed",
                    remedy="longer-energy",
                )
            ratio = 4.0 if math.isinf(window.resolution) else max(1.2 * window.resolution / wanted, 1.2)
            self._seconds[busy] = min(seconds * ratio, longest)


def _error(taken: Sequence[Taken]) -> float:
    joules = [one.joules for one in taken]
    mean = fmean(joules)
    # Rounds are independent, and their mean is the better the more there are.
    apart = (max(joules) - min(joules)) / 2 / mean / math.sqrt(max(len(joules) - 1, 1))
    return max(apart, fmean(one.error for one in taken))


def _energy(taken: Sequence[Taken], plan: EnergyPlan, device: str, name: str) -> Energy:
    error = _error(taken)
    if error > plan.max_error:
        rests = [one.idle_watts for one in taken]
        raise DeviceStateError(
            f"{device}: the energy of {name} is known to {error:.1%} only after {len(taken)} rounds, and "
            f"{plan.max_error:.1%} is wanted; at rest the device took {min(rests):.3g} to {max(rests):.3g} W. "
            "Stop what else runs there, and keep its screen as it is",
            remedy="longer-energy",
        )
    return Energy(
        mj=round(1e3 * fmean(one.joules for one in taken), 6),
        error=round(error, 6),
        watts=round(fmean(one.watts for one in taken), 6),
        idle_watts=round(fmean(one.idle_watts for one in taken), 6),
        run_ms=round(1e3 * fmean(one.run_seconds for one in taken), 6),
        seconds=round(sum(one.seconds for one in taken), 1),
    )
