"""The clock that a core reaches while models run: a limit of the hardware shows in it alone."""

from __future__ import annotations

from typing import Final

FEWEST_READINGS: Final = 16
"""With fewer readings nothing is said: the first sessions begin with a core that was idle."""

REACHED: Final = 0.97
"""A core that reached this share of its largest clock reached it: some phones report a little less."""


class ClockWatch:
    """The readings of a core's clock in MHz while models ran. A reading of None is none."""

    def __init__(self) -> None:
        self.reached_mhz: float | None = None
        """The largest reading."""
        self._readings = 0

    def add(self, clock_mhz: float | None) -> None:
        """Count a reading."""
        if clock_mhz is not None:
            self._readings += 1
            self.reached_mhz = max(clock_mhz, self.reached_mhz or 0.0)

    def shortfall(self, core: int, largest_mhz: float | None) -> str | None:
        """Return that ``core`` did not reach ``largest_mhz``, in a few words; None if it did, or is not known."""
        if self._readings < FEWEST_READINGS or self.reached_mhz is None or largest_mhz is None:
            return None
        if self.reached_mhz >= REACHED * largest_mhz:
            return None
        return f"the clock of core {core} reached {self.reached_mhz:g} of {largest_mhz:g} MHz while models ran"
