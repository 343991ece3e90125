"""The energy counters of Intel and AMD processors (RAPL), as Linux shows them below ``/sys/class/powercap``.

A counter has microjoules since any moment, and begins anew at ``max_energy_range_uj``. It is that of a processor
package: its cores, caches and whatever else is on the chip, whoever uses them. The counter of the memory, where
there is one, is added. Since Linux 5.10 only root may read them: fine readings give secrets away (CVE-2020-8694).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cars_hw.devices.energy import Reading
from cars_hw.errors import DeviceError

POWERCAP: Final = Path("/sys/class/powercap")

EVERY_S: Final = 0.1
"""The counters are read so often, in seconds. They move every millisecond."""

MOST_WATTS: Final = 2000.0
"""No package takes more. A counter that says so has jumped, or has begun anew more than once unseen."""


@dataclass
class Counter:
    """One counter: its name, its file, where it begins anew in microjoules, and what it has counted so far."""

    name: str
    file: Path
    range_uj: int
    last: tuple[float, int] | None = None
    joules: float = 0.0

    def read(self, second: float) -> float:
        """Return the joules since the first reading; ``second`` is the present time.

        Raises:
            DeviceError: it cannot be read, or what it tells cannot be.
        """
        now = _number(self.file)
        if self.last is not None:
            passed = second - self.last[0]
            if passed * MOST_WATTS * 1e6 >= self.range_uj:
                raise DeviceError(
                    f"the energy counter {self.name} was not read for {passed:.0f} s, in which it may have begun "
                    "anew more than once; measure again"
                )
            step = now - self.last[1]
            taken = (step if step >= 0 else step + self.range_uj) / 1e6
            if taken < 0 or taken > MOST_WATTS * passed:
                raise DeviceError(
                    f"the energy counter {self.name} moved by {taken:.4g} J in {passed:.3g} s, more than any "
                    "processor takes"
                )
            self.joules += taken
        self.last = second, now
        return self.joules


@dataclass
class Rapl:
    """The counters of the processor ``package``, and of its memory.

    Raises:
        DeviceError: there are none, or they must not be read.
    """

    package: int = 0
    root: Path = POWERCAP
    clock: Callable[[], float] = time.monotonic
    counters: list[Counter] = field(init=False)

    def __post_init__(self) -> None:
        zones = {folder: _text(folder / "name") for folder in sorted(self.root.glob("intel-rapl:*"))}
        own = f"package-{self.package}"
        packages = [folder for folder, name in zones.items() if name == own or name.startswith(f"{own}-")]
        if not packages:
            raise DeviceError(
                f"this machine does not tell its energy: {self.root} has no counter of {own}. Virtual machines "
                "hide it, and Linux has it for processors of Intel and AMD"
            )
        memory = [
            folder
            for folder, name in zones.items()
            if name == "dram" and any(folder.name.startswith(f"{one.name}:") for one in packages)
        ]
        self.counters = [
            Counter(zones[folder], folder / "energy_uj", _number(folder / "max_energy_range_uj"))
            for folder in (*packages, *memory)
        ]
        for counter in self.counters:
            if counter.range_uj <= 0:
                raise DeviceError(f"the energy counter {counter.name} does not tell where it begins anew")
            _number(counter.file)

    def describe(self) -> str:
        """Return which counters are read."""
        return f"RAPL, {' + '.join(counter.name for counter in self.counters)}"

    def read(self) -> Reading:
        """Return the energy that all counters have counted since the first call."""
        second = self.clock()
        return Reading(second, sum(counter.read(second) for counter in self.counters))


class Sampler:
    """Reads ``rapl`` every :data:`EVERY_S` for the time of a ``with`` block; ``readings`` has what it read."""

    def __init__(self, rapl: Rapl) -> None:
        self._rapl = rapl
        self._over = threading.Event()
        self._failed: DeviceError | None = None
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.readings: list[Reading] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def taken(self) -> Sequence[Reading]:
        """Return the readings, after the block.

        Raises:
            DeviceError: a reading failed.
        """
        if self._failed is not None:
            raise self._failed
        return self.readings

    def _sample(self) -> None:
        try:
            while True:
                self.readings.append(self._rapl.read())
                if self._over.wait(EVERY_S):
                    return
        except DeviceError as error:
            self._failed = error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise DeviceError(
            f"{path} must not be read: Linux keeps the energy counters for root",
            remedy="read-rapl",
            path=f"{path.parent.parent}/intel-rapl:*/energy_uj",
        ) from error
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path} cannot be read: {error}") from error
