"""The time that a search is to take: the estimate by stage, and what was chosen so that it fits."""

from __future__ import annotations

from dataclasses import dataclass

from cars_hw.config.setting import Settings, setting


def seconds_field() -> float:
    """Return a field for a span of time: thirty thousand years at most."""
    field: float = setting(unit="seconds", minimum=0, maximum=1e12)
    return field


@dataclass(frozen=True)
class StageSeconds(Settings):
    """The estimated seconds of each stage of a search."""

    warm_up: float = seconds_field()
    generations: float = seconds_field()
    finalists: float = seconds_field()
    final: float = seconds_field()

    @property
    def total(self) -> float:
        """The seconds of all stages."""
        return self.warm_up + self.generations + self.finalists + self.final


@dataclass(frozen=True)
class TimePlan(Settings):
    """The time that the length of a search was chosen for.

    ``within`` is the time in seconds that search and final stage may take, and ``stages`` the estimate for the
    chosen settings.
    """

    within: float = seconds_field()
    stages: StageSeconds = setting()
