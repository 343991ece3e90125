"""A measurement of energy that was interrupted goes on: what was measured counts, and nothing is measured twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cars_hw.config.measurement import EnergyPlan
from cars_hw.devices import FakeDevice
from cars_hw.devices.energy import PowerWindow
from cars_hw.errors import DeviceStateError, TableError
from cars_hw.measurement.energy import ROUNDS, Energy, measure_energy
from cars_hw.measurement.energy_journal import EnergyJournal

MODELS = [Path("a"), Path("b"), Path("c")]
WATTS = {MODELS[0]: 3.0, MODELS[1]: 5.5, MODELS[2]: 1.25}
PLAN = EnergyPlan(seconds=10)


class Killed(BaseException):
    """What stands for a kill."""


class Counted(FakeDevice):
    """A device with known powers, which is killed before its window number ``dies``; ``seen`` are the models."""

    def __init__(self, dies: float = math.inf, *, scatter: bool = False) -> None:
        super().__init__()
        self.dies, self.scatter = dies, scatter
        self.seen: list[Path | None] = []

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Return the power of ``model``, half a watt at rest."""
        if len(self.seen) >= self.dies:
            raise Killed
        self.seen.append(model)
        # The first window of all is a look at a model, which counts for nothing.
        watts = 0.5 if model is None else WATTS[model]
        if self.scatter and model is not None and self.seen.count(model) % 2:
            watts *= 1.5
        return PowerWindow(watts, 1e-6, seconds, 1000, 0.0 if model is None else 0.01)

    @property
    def windows(self) -> int:
        """The windows with a model."""
        return sum(model is not None for model in self.seen)


def measured(device: Counted, path: Path | None) -> list[Energy]:
    return measure_energy(device, MODELS, PLAN, journal=EnergyJournal(path, {"meter": "m"}, len(MODELS)))


def test_killed_before_any_window_it_goes_on_with_what_it_has(tmp_path: Path) -> None:
    whole = Counted()
    expected = measured(whole, None)
    # By hand: 2.5, 5 and 0.75 W beyond rest for 10 ms.
    assert [one.mj for one in expected] == pytest.approx([25.0, 50.0, 7.5])
    assert whole.windows == 1 + ROUNDS * len(MODELS)
    for dies in range(len(whole.seen)):
        path = tmp_path / f"{dies}.partial"
        with pytest.raises(Killed):
            measured(Counted(dies), path)
        kept = EnergyJournal(path, {"meter": "m"}, len(MODELS))
        # Each model was followed by a rest; before all, there are a look and a rest.
        assert kept.done == max(0, (dies - 2) // 2)
        again = Counted()
        assert measured(again, path) == expected
        assert again.windows == 1 + ROUNDS * len(MODELS) - kept.done
        # The first one that is missing comes first: in the second round they come backwards.
        order = [*MODELS, *MODELS[::-1]]
        assert again.seen[2] == order[kept.done]


def test_what_was_all_measured_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "t.partial"
    expected = measured(Counted(), path)
    again = Counted()
    assert measured(again, path) == expected
    assert again.seen == []


def test_another_measurement_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.partial"
    with pytest.raises(Killed):
        measured(Counted(5), path)
    content = path.read_bytes()
    for identity, models, what in (({"meter": "other"}, 3, "meter"), ({"meter": "m"}, 4, "networks")):
        with pytest.raises(TableError, match=rf"with other settings \({what}\); go on with the settings of that"):
            EnergyJournal(path, identity, models)
    path.write_bytes(content.replace(b"joules", b"jaules"))
    with pytest.raises(TableError) as told:
        EnergyJournal(path, {"meter": "m"}, 3)
    assert told.value.remedy == "energy-again"
    path.write_bytes(content)
    assert EnergyJournal(path, {"meter": "m"}, 3).done == 1


def test_what_is_not_known_well_enough_after_all_rounds_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "t.partial"
    with pytest.raises(DeviceStateError, match="only after 5 rounds"):
        measured(Counted(scatter=True), path)
    # It would end in the same way again.
    assert not path.exists()
