"""The power that a phone takes from its battery while the tool runs a model, or while it rests."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from cars_hw.config.measurement import MeasurePlan, Meter
from cars_hw.devices.android import battery
from cars_hw.devices.energy import PowerWindow, Reading, power_of
from cars_hw.devices.remote import Session
from cars_hw.devices.remote_machine import GONE
from cars_hw.devices.scripted import MAX_LOST_CONNECTIONS, ScriptedDevice
from cars_hw.errors import ConnectionLostError

SETTLE_S = 2 * battery.EVERY_S
"""So many seconds at both ends of a run of the tool do not count: it is noticed late that the tool has ended.

Nor do those at the begin of a rest, in which a gauge still tells what was before.
"""


class BatteryDevice(ScriptedDevice):
    """A device with a battery; see :class:`cars_hw.devices.energy.EnergyDevice`.

    ``meter`` is what tells the energy, see :mod:`cars_hw.devices.android.battery`.
    """

    meter: Meter = "auto"

    def energy_meter(self) -> str:
        """Return what counts the energy; see :class:`cars_hw.devices.energy.EnergyDevice`.

        Raises:
            DeviceStateError: the phone is on a charger.
            DeviceError: it does not tell its energy.
        """
        self._prepare({})
        output, _ = self._metered("rest_metered 0 0", "a look at the battery", 0.0)
        found = battery.meter_of(battery.parse_rows(output, self._shell.where), self.meter, self._shell.where)
        return {
            "energy": "the energy counter of the battery",
            "charge": "the charge counter of the battery, and its voltage",
            "current": "the current of the battery over the time, and its voltage",
            "auto": "",
        }[found]

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Run ``model`` or nothing; see :class:`cars_hw.devices.energy.EnergyDevice`.

        Raises:
            DeviceStateError: the phone is on a charger, hot, or its battery is low.
            RunnerError: the tool fails on the model.
            ConnectionLostError: the connection was lost again and again, or for longer than ``Waits.reconnect``.
            DeviceError: the counters tell what cannot be.
        """
        for lost in range(1, MAX_LOST_CONNECTIONS + 1):
            try:
                return self._window(model, seconds)
            except GONE as error:
                # Half of a window is worth nothing, and it begins again.
                if self._serial is None or lost == MAX_LOST_CONNECTIONS:
                    raise
                self._wait_for_return(error)
        raise AssertionError

    def _window(self, model: Path | None, seconds: float) -> PowerWindow:
        names = self._named([] if model is None else [model])
        self._prepare(names)
        where = self._shell.where
        if model is None:
            times = math.ceil((seconds + SETTLE_S) / battery.EVERY_S)
            output, _ = self._metered(f"rest_metered {battery.EVERY_S} {times}", "a rest", seconds)
            readings = self._readings(output)
            found = power_of(readings, readings[0].second + SETTLE_S, readings[-1].second)
        else:
            # The tool ends with the runs that are timed, and what is before them is not counted.
            plan = MeasurePlan(
                warmup_seconds=0.5, warmup_runs=1, min_runs=1, min_seconds=seconds, max_seconds=10 * seconds
            )
            command = f"metered {battery.EVERY_S} {shlex.join(self._words(names[model], plan))}"
            output, tool = self._metered(command, str(model), seconds, model)
            readings = self._readings(output)
            end = readings[-1].second
            run_seconds = tool[1]
            begin = max(end - tool[0] * run_seconds, readings[0].second)
            found = power_of(readings, begin + SETTLE_S, end - SETTLE_S)._replace(
                runs=tool[0], run_seconds=run_seconds
            )
        battery.require_power(found.watts, where)
        return found

    def _readings(self, output: str) -> list[Reading]:
        where = self._shell.where
        rows = battery.parse_rows(output, where)
        return battery.readings_of(rows, battery.meter_of(rows, self.meter, where), where)

    def _metered(
        self, command: str, name: str, seconds: float, model: Path | None = None
    ) -> tuple[str, tuple[int, float]]:
        """Return the output of ``command``, and the runs of ``model`` with their mean time in seconds."""
        try:
            results = list(
                self._sessions(
                    [Session(0, command)],
                    lambda _: name,
                    functions=battery.FUNCTIONS,
                    after=battery.AFTER,
                    # A slow model may end the last run late, and the tool also warms up.
                    longer_s=10 * seconds if model is not None else 2 * seconds,
                )
            )
            if len(results) != 1:
                raise ConnectionLostError(f"{self._shell.where} left out a session")
            if model is None:
                return results[0].output, (0, 0.0)
            lines = results[0].output.splitlines()
            said = "\n".join(line for line in lines if not line.startswith("@"))
            timed = self._timed(results[0]._replace(output=said), model)
        except BaseException:
            # The unread output of the script makes the connection unusable.
            self._disconnect()
            raise
        return results[0].output, (timed.runs, timed.mean_us / 1e6)
