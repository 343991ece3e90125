"""The sustained state of a latency table: how many times the quiet latency networks take after minutes of load.

A few networks of the profile run under load: the reference, and the fastest and the slowest of the calibration
networks. A network takes its quiet latency times a factor there: that of the median of these networks. The upper
bound also covers the network that slowed down the most.

The figure of the state is the 90th percentile of runs, as in MLPerf Mobile (Janapa Reddi et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, Final

from cars_hw.config.measurement import SustainedPlan
from cars_hw.config.setting import Settings, count, milliseconds, setting
from cars_hw.errors import InputError
from cars_hw.measurement.sustained import Sustained
from cars_hw.space.genotype import Genotype
from cars_hw.space.size_grid import Resolution

APART: Final = 1.1
"""Where the factors of networks differ by more than this factor, no single one is right for all networks."""


@dataclass(frozen=True)
class LoadedNetwork(Settings):
    """A network that ran under load. ``quiet_ms`` is its latency in the quiet state, in milliseconds.

    ``channels``, ``layers`` and ``resolution`` (height and width in pixels) are those of the network.
    """

    genotype: Genotype
    channels: int = count(minimum=1)
    layers: int = count(minimum=1)
    resolution: Resolution = setting(metavar="HxW")
    quiet_ms: float = milliseconds()
    sustained: Sustained = setting()

    @property
    def p50_factor(self) -> float:
        """How many times the quiet latency the median run takes."""
        return self.sustained.p50_ms / self.quiet_ms

    @property
    def p90_factor(self) -> float:
        """How many times the quiet latency 90% of the runs take at most."""
        return self.sustained.p90_ms / self.quiet_ms


@dataclass(frozen=True)
class SustainedState(Settings):
    """The sustained state of a device. ``networks`` are those that ran under load, the reference first.

    ``load`` has the settings of the load; None in a table of an earlier version.
    """

    networks: tuple[LoadedNetwork, ...]
    load: SustainedPlan | None = None

    OPTIONAL: ClassVar = frozenset({"load"})
    DERIVED: ClassVar = ("p50_factor", "p90_factor")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.networks:
            raise InputError("networks must not be empty")

    @property
    def p50_factor(self) -> float:
        """How many times the quiet latency the median run takes: the median of the networks."""
        return round(median(network.p50_factor for network in self.networks), 6)

    @property
    def p90_factor(self) -> float:
        """How many times the quiet latency 90% of the runs take at most: the median of the networks."""
        return round(median(network.p90_factor for network in self.networks), 6)

    @property
    def largest_factor(self) -> float:
        """The largest factor of the 90th percentile of any of the networks."""
        return max(self.p90_factor, *(network.p90_factor for network in self.networks))

    @property
    def clock_mhz(self) -> float | None:
        """The lowest clock under load, a median over the sessions of a network; None if not reported."""
        return min(_known([network.sustained.clock_mhz for network in self.networks]), default=None)

    @property
    def warmest_c(self) -> dict[str, float]:
        """The highest temperatures under load in degrees Celsius, by part."""
        all_parts = [one for network in self.networks for one in network.sustained.warmest_c.items()]
        return {part: max(value for name, value in all_parts if name == part) for part, _ in all_parts}

    @property
    def thermal_status(self) -> int | None:
        """The highest level of throttling that Android reported under load; None if not reported."""
        statuses = [network.sustained.thermal_status for network in self.networks]
        return max((one for one in statuses if one is not None), default=None)

    def facts(self) -> str:
        """Return clock, temperatures and thermal status under load as text; empty if the device reports none."""
        parts = [] if self.clock_mhz is None else [f"clock {self.clock_mhz:g} MHz"]
        parts += [f"{part} {value:g} C" for part, value in self.warmest_c.items()]
        parts += [] if self.thermal_status is None else [f"thermal status {self.thermal_status}"]
        return ", ".join(parts)

    def warnings(self) -> list[str]:
        """Return why the figures are not those of the sustained state of all networks, each in a few words."""
        found = list(dict.fromkeys(text for network in self.networks for text in network.sustained.warnings()))
        factors = [network.p50_factor for network in self.networks]
        if max(factors) > APART * min(factors):
            found.append(
                f"networks slow down under load by factors from {min(factors):.2f} to {max(factors):.2f}; measure "
                "a network of interest by itself"
            )
        return found


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
