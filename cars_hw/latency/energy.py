"""The energy of networks on the device of a latency table: measured for a few, and predicted for all others.

The energy of a network is a power times its latency, and an energy times its multiply-adds. The latency is what the
table predicts for the quiet state: a processor that waits for memory takes another power than one that multiplies.
The second term is there only where networks that are left out of the fit are predicted better by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, NamedTuple

import numpy as np

from cars_hw.config.setting import Settings, count, setting
from cars_hw.errors import DeviceError, InputError
from cars_hw.latency.conformal import conformal_margin
from cars_hw.latency.fit import GAIN
from cars_hw.latency.line import FloatArray
from cars_hw.measurement.energy import Energy
from cars_hw.space.genotype import Genotype
from cars_hw.space.size_grid import Resolution

LEAST_NETWORKS: Final = 4
"""A line through fewer networks has no residuals worth the name."""

MOST_WRONG: Final = 0.5
"""A prediction that is off by more than this fraction, in the mean, is none."""


@dataclass(frozen=True)
class MeteredNetwork(Settings):
    """A calibration network of the table whose energy was measured.

    ``channels``, ``layers`` and ``resolution`` (height and width in pixels) are those of the network.
    """

    genotype: Genotype
    channels: int = count(minimum=1)
    layers: int = count(minimum=1)
    resolution: Resolution = setting(metavar="HxW")
    energy: Energy = setting()


@dataclass(frozen=True)
class EnergyState(Settings):
    """The energy of networks on a device, beyond what it takes at rest.

    A network takes ``watts`` times its predicted latency in the quiet state (in milliseconds, which gives
    millijoules), and ``mj_per_million`` for a million multiply-adds. ``residuals`` has one value per network: how
    much more it takes than a fit to the others predicts, as a fraction. ``meter`` is what counted the energy, and
    ``measured`` the time (ISO 8601).
    """

    meter: str
    measured: str
    networks: tuple[MeteredNetwork, ...]
    watts: float = setting(minimum=0, maximum=1e6)
    mj_per_million: float = setting(minimum=0, maximum=1e9, unit="mJ")
    residuals: tuple[float, ...] = setting(minimum=-1e6, maximum=1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.residuals) != len(self.networks) or len(self.networks) < LEAST_NETWORKS:
            raise InputError(f"there must be at least {LEAST_NETWORKS} networks, and a residual for each")

    @property
    def error(self) -> float:
        """The median error of the measured networks, a fraction."""
        return median(network.energy.error for network in self.networks)

    @property
    def left_out_error(self) -> float:
        """The mean error of a prediction of a network that is left out of the fit, a fraction."""
        return fmean(map(abs, self.residuals))

    @property
    def idle_watts(self) -> float:
        """What the device took at rest, in watts; it is in none of the energies."""
        return fmean(network.energy.idle_watts for network in self.networks)

    def margin(self, level: float) -> tuple[float, float]:
        """Return by what fraction to exceed a prediction for a bound, and the share of networks that it holds for.

        That share is ``level``, or less if there are few networks.
        """
        return conformal_margin(self.residuals, level, self.error)

    def mj(self, latency_ms: float, multiply_adds: float) -> float:
        """Return the millijoules of a network with this latency in the quiet state."""
        return self.watts * latency_ms + self.mj_per_million * multiply_adds / 1e6


class Fit(NamedTuple):
    """The coefficients of :class:`EnergyState`."""

    watts: float
    mj_per_million: float
    residuals: tuple[float, ...]


def fit_energy(latencies_ms: Sequence[float], multiply_adds: Sequence[float], energies_mj: Sequence[float]) -> Fit:
    """Return the coefficients by which networks of these latencies and multiply-adds take these energies.

    The error is relative, and no coefficient is negative. The multiply-adds count only if networks that are left
    out are predicted at least 5% better by them.

    Raises:
        InputError: less than four networks.
        DeviceError: networks that are left out are predicted badly.
    """
    if len(energies_mj) < LEAST_NETWORKS:
        raise InputError(f"a prediction of the energy needs at least {LEAST_NETWORKS} networks")
    columns = np.stack([np.array(latencies_ms), np.array(multiply_adds) / 1e6], axis=1)
    measured = np.array(energies_mj)
    by_time, by_both = (_left_out(columns[:, :used], measured) for used in (1, 2))
    both = float(np.abs(by_both).mean()) < GAIN * float(np.abs(by_time).mean())
    used, residuals = (2, by_both) if both else (1, by_time)
    found = _solved(columns[:, :used], measured)
    watts, per_million = float(found[0]), float(found[1]) if both else 0.0
    wrong = float(np.abs(residuals).mean())
    if not wrong <= MOST_WRONG:
        raise DeviceError(
            f"neither the latency nor the multiply-adds tell the energy of networks on this device: predictions of "
            f"networks that are left out are off by {wrong:.0%}; measure more networks, or again"
        )
    return Fit(watts, per_million, tuple(round(float(one), 6) for one in residuals))


def _solved(columns: FloatArray, measured: FloatArray) -> FloatArray:
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    relative = columns / measured[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    found: FloatArray = nnls(relative / scale, np.ones(len(measured)))[0] / scale
    return found


def _left_out(columns: FloatArray, measured: FloatArray) -> FloatArray:
    """Return how far each network exceeds what a fit to the others predicts, as a fraction."""
    found = []
    for network in range(len(measured)):
        others = np.arange(len(measured)) != network
        predicted = float(columns[network] @ _solved(columns[others], measured[others]))
        if not predicted > 0:
            return np.full(len(measured), np.inf)
        found.append(measured[network] / predicted - 1)
    return np.array(found)


def spread(values: Sequence[float], number: int) -> list[int]:
    """Return the positions of ``number`` of ``values``, from the smallest to the largest in even ranks."""
    ranked = sorted(range(len(values)), key=lambda place: values[place])
    places = np.linspace(0, len(ranked) - 1, min(number, len(ranked)))
    return [ranked[round(float(place))] for place in places]
