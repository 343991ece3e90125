"""Devices that run a model for minutes, without a pause: the interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable


class Spell(NamedTuple):
    """One session of a load.

    Attributes:
        quantiles: shares of its runs from 0 to 1, and the latency in milliseconds that so many do not exceed.
        runs: the number of runs.
        clock_mhz: the clock of the processor; None if not reported.
        is_exact: whether the quantiles are those of the runs; otherwise they are the average of the session.
        temperatures_c: the temperatures in degrees Celsius, by part, shortly before; those that are reported.
        thermal_status: how far Android throttled shortly before, 0 to 6; None if not reported.
    """

    quantiles: tuple[tuple[float, float], ...]
    runs: int
    clock_mhz: float | None = None
    is_exact: bool = True
    temperatures_c: Mapping[str, float] = MappingProxyType({})
    thermal_status: int | None = None


@runtime_checkable
class LoadDevice(Protocol):
    """A device that can run a model for minutes."""

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        """Run ``sessions`` sessions of ``model``, each for at least ``seconds``, one directly after the other.

        If ``rested``, the device first waits until it is not hot.

        Raises:
            DeviceError: as :meth:`cars_hw.devices.protocol.Device.run`.
        """
