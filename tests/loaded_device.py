"""The fake device as one that runs a model for minutes, on a clock that hurries."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.devices.load import Spell
from cars_hw.measurement.schedule import Clock


def hurried() -> Clock:
    """Return a clock on which half a minute passes between two looks."""
    seconds = count(0.0, 30.0)
    return Clock(lambda: next(seconds), lambda _: None)


class Loaded(FakeDevice):
    """The fake device, which takes 1.5 times as long under load, and 1.8 times for the slowest tenth of the runs.

    It is interrupted when the network with the number ``stops_at`` is to run. ``loaded`` has those that ran.
    """

    def __init__(self, stops_at: int | None = None) -> None:
        super().__init__()
        self.loaded: list[bytes] = []
        self.stops_at = stops_at

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        del seconds
        (sample,) = self.run([model], MeasurePlan(), 0)
        # A single session is a look whether it has cooled down.
        hot = sample.ms if sessions == 1 else 1.5 * sample.ms
        if rested and sessions > 1:
            if len(self.loaded) == self.stops_at:
                raise KeyboardInterrupt
            self.loaded.append(model.read_bytes())
        spell = Spell(
            ((0.0, hot), (0.85, hot), (0.86, 1.2 * hot), (1.0, 1.2 * hot)),
            100,
            1800.0,
            temperatures_c={"case": 38.0 + len(self.loaded)},
            thermal_status=1,
        )
        return [spell] * sessions
