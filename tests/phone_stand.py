"""A simulated phone whose tool is a shell script, and the devices that measure on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from simulated_phone import Adbd, Phone, System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits

# Prints what the tool prints: of a model so many microseconds as its file has bytes.
CANNED = """\
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(PATH=/usr/bin:/bin; wc -c < "$graph")
FAULT
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""
PLAN = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
STAY = "stay_on_while_plugged_in"
WAITS = Waits(cool_down=0.3, reconnect=0.3, session=20.0, pause=0.02, old_script=3)


class Stand(NamedTuple):
    """A phone, its side of the connection, and ours."""

    phone: Phone
    adbd: Adbd
    keys: Path
    said: list[str]
    shells: list[AdbShell]

    def device(self, waits: Waits = WAITS) -> AndroidDevice:
        shell = AdbShell(Address("127.0.0.1", self.adbd.port), keys=self.keys, connect_s=2.0)
        self.shells.append(shell)
        return AndroidDevice(shell, "android:sim", log=self.said.append, waits=waits)


@contextmanager
def standing(folder: Path, keys: Path, system: System, fault: str = ":") -> Iterator[Stand]:
    phone = Phone(folder, system=system)
    phone.install(CANNED.replace("FAULT", fault))
    with Adbd(phone) as adbd:
        stand = Stand(phone, adbd, keys, [], [])
        yield stand
        for shell in stand.shells:
            shell.close()
