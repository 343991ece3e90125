"""Devices that tell the energy that they take: the interface, and the power between readings of a counter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable


class Reading(NamedTuple):
    """The energy in joules that was taken since any moment, at a time in seconds. It never falls."""

    second: float
    joules: float


class PowerWindow(NamedTuple):
    """The mean power over a time in which the device ran a model again and again, or nothing.

    Attributes:
        watts: the power of all that the counter sees, in watts; 0 if the counter did not move.
        resolution: the largest step of the counter, as a fraction of the energy that was counted; infinite if it
            moved less than twice.
        seconds: the time between the two readings that count.
        runs: how often the model ran in the whole window.
        run_seconds: the mean time of a run in seconds; 0 without a model.
        other_load: the cores that other processes kept busy; None if not reported.
    """

    watts: float
    resolution: float
    seconds: float
    runs: int = 0
    run_seconds: float = 0.0
    other_load: float | None = None


@runtime_checkable
class EnergyDevice(Protocol):
    """A device that tells the energy that it takes."""

    def energy_meter(self) -> str:
        """Return what counts the energy, in a few words.

        Raises:
            DeviceError: nothing does, it must not be read, or the device is on a charger.
        """

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Run ``model`` again and again for at least so many seconds, or nothing, and return the power meanwhile.

        Raises:
            DeviceError: as :meth:`energy_meter` and :meth:`cars_hw.devices.protocol.Device.run`, or the counter
                tells what cannot be.
        """


def power_of(readings: Sequence[Reading], begin: float, end: float) -> PowerWindow:
    """Return the power between the first and the last step of the counter from the second ``begin`` to ``end``.

    A counter that moves in large steps is exact at the moment of a step, and at no other.
    """
    within = [reading for reading in readings if begin <= reading.second <= end]
    steps = [place for place in range(1, len(within)) if within[place].joules != within[place - 1].joules]
    if len(steps) < 2:
        return PowerWindow(0.0, math.inf, 0.0)
    first, last = within[steps[0]], within[steps[-1]]
    counted, seconds = last.joules - first.joules, last.second - first.second
    largest = max(within[place].joules - within[place - 1].joules for place in steps[1:])
    return PowerWindow(counted / seconds, largest / counted, seconds)
