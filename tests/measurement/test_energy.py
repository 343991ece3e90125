"""The energy of a run by hand: windows of a device that a test writes, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cars_hw.config.measurement import EnergyPlan
from cars_hw.devices import FakeDevice
from cars_hw.devices.energy import PowerWindow
from cars_hw.errors import DeviceStateError, InputError
from cars_hw.measurement.energy import measure_energy

A, B = Path("a"), Path("b")


class Written(FakeDevice):
    """A device with a power for each model and for the rest; ``step`` joules are one step of its counter."""

    def __init__(self, watts: dict[Path | None, float], step: float = 0.0, other_load: float | None = None) -> None:
        super().__init__()
        self.watts, self.step, self.other_load = watts, step, other_load
        self.asked: list[tuple[Path | None, float]] = []
        self.drift = 0.0
        self.is_released = False

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Return the power that was written."""
        self.asked.append((model, seconds))
        watts = self.watts[model] + self.drift * len(self.asked)
        resolution = self.step / (watts * seconds)
        moved = resolution <= 0.5
        run_seconds = 0.0 if model is None else 0.010
        return PowerWindow(
            watts if moved else 0.0,
            resolution if moved else math.inf,
            seconds,
            1000,
            run_seconds,
            self.other_load,
        )

    def release(self) -> None:
        """Note it."""
        self.is_released = True


def test_millijoules_by_hand() -> None:
    device = Written({A: 3.0, B: 5.5, None: 0.5})
    first, second = measure_energy(device, [A, B], EnergyPlan(seconds=10))
    # 2.5 W and 5 W beyond rest for 10 ms.
    assert (first.mj, second.mj) == (pytest.approx(25.0), pytest.approx(50.0))
    assert (first.error, first.watts, first.idle_watts, first.run_ms) == (0.0, 3.0, 0.5, 10.0)
    # Two rounds of 10 s.
    assert first.seconds == 20.0
    # A look at the first model, and then models and rests by turns; the second round backwards.
    assert [model for model, _ in device.asked] == [A, None, A, None, B, None, B, None, A, None]
    assert device.is_released


def test_windows_become_longer_until_the_counter_is_fine_enough() -> None:
    # A step of 6 J at 3 W: 1% are 600 J and 200 s.
    device = Written({A: 3.0, None: 0.5}, step=6.0)
    (found,) = measure_energy(device, [A], EnergyPlan(seconds=10, max_seconds=600, max_error=0.03))
    longest = max(seconds for model, seconds in device.asked if model is A)
    assert 200 <= longest <= 300
    # The rest may be known six times worse, at a sixth of the power.
    assert max(seconds for model, seconds in device.asked if model is None) <= 300
    assert found.error <= 0.03
    assert found.mj == pytest.approx(25.0)


def test_a_counter_that_is_too_coarse_is_refused_with_what_is_needed() -> None:
    device = Written({A: 3.0, None: 0.5}, step=60.0)
    with pytest.raises(
        DeviceStateError, match=r"moves in steps of 20.0% of what it counted in 100 s .*; 1.0% is"
    ) as told:
        measure_energy(device, [A], EnergyPlan(seconds=10, max_seconds=100, max_error=0.03))
    assert told.value.remedy == "longer-energy"
    assert device.is_released
    with pytest.raises(DeviceStateError, match="did not move twice in 10 s"):
        measure_energy(device, [A], EnergyPlan(seconds=10, max_seconds=10))


def test_windows_are_long_enough_for_what_is_beyond_rest() -> None:
    # A step of 1 J, and half a watt of 3 W beyond rest: a third of 5% of it are 8.3 mW, which is 1 J in 120 s.
    device = Written({A: 3.0, None: 2.5}, step=1.0)
    (found,) = measure_energy(device, [A], EnergyPlan(seconds=10, max_seconds=600, max_error=0.05))
    assert found.mj == pytest.approx(5.0)
    assert found.error <= 0.05
    assert 120 <= max(seconds for _, seconds in device.asked) <= 180


def test_rounds_that_scatter_are_known_better_by_more_of_them() -> None:
    class Scattered(Written):
        def spend(self, model: Path | None, seconds: float) -> PowerWindow:
            """Return 2.5 W beyond rest, and 6% more or less in the second and third window."""
            taken = [one for one, _ in self.asked].count(A)
            self.watts[A] = 0.5 + 2.5 * {1: 0.94, 2: 1.06}.get(taken, 1.0)
            return super().spend(model, seconds)

    device = Scattered({A: 3.0, None: 0.5})
    (found,) = measure_energy(device, [A], EnergyPlan(seconds=10, max_error=0.05))
    # A look, and three rounds.
    assert [one for one, _ in device.asked].count(A) == 4
    assert found.mj == pytest.approx(25.0)
    assert found.error == pytest.approx(0.06 / 2**0.5, rel=1e-4)


def test_a_neighbour_is_refused() -> None:
    with pytest.raises(DeviceStateError, match=r"other processes kept 0.6 cores busy while a runs"):
        measure_energy(Written({A: 3.0, None: 0.5}, other_load=0.6), [A])
    assert measure_energy(Written({A: 3.0, None: 0.5}, other_load=0.05), [A])


def test_a_model_that_takes_no_more_than_the_rest_is_refused() -> None:
    with pytest.raises(DeviceStateError, match=r"0.5 W while a runs, and 0.6 W at rest: its energy cannot be told"):
        measure_energy(Written({A: 0.5, None: 0.6}), [A])


def test_a_rest_that_changes_is_an_error_that_is_counted() -> None:
    # From window to window 20 mW more: the rests before and after differ by 40 mW, of 2.5 W.
    device = Written({A: 3.0, None: 0.5})
    device.drift = 0.02
    (found,) = measure_energy(device, [A], EnergyPlan(max_error=0.05))
    assert found.mj == pytest.approx(25.0)
    assert found.error == pytest.approx(0.02 / 2.5)
    device.drift = 0.2
    with pytest.raises(DeviceStateError, match=r"the energy of a is known to 8.0% only after 5 rounds, and 5.0%"):
        measure_energy(device, [A], EnergyPlan(max_error=0.05))


def test_a_device_without_a_counter_is_refused() -> None:
    class Silent:
        name = "silent"

        def release(self) -> None:
            """Do nothing."""

    with pytest.raises(InputError, match="silent does not tell its energy; phones do by their battery"):
        measure_energy(Silent(), [A])  # type: ignore[arg-type]
