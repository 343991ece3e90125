"""The conditions of this machine, read without privileges."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def host_conditions() -> dict[str, Any]:
    """Return processor, cores, clock (MHz), governor, load (1, 5, 15 minutes), platform and time (ISO 8601).

    None is what the system does not report.
    """
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "clock_mhz": _clock_mhz(),
        "governor": _read(_CPUFREQ / "scaling_governor"),
        "load": _load(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "time": now(),
    }


def now(timespec: str = "seconds") -> str:
    """Return the time to the second, or to ``timespec`` (see ``datetime.isoformat``), ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=timespec)


class Watch:
    """Observes the load by other processes from its creation on."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_seconds(), time.process_time()

    def conditions(self) -> dict[str, float | None]:
        """Return ``load`` (1 minute), ``clock_mhz`` and ``other_load``: the cores that other processes kept busy.

        The kernel counts in hundredths of a second, so that ``other_load`` is coarse over a short time.
        """
        wall, busy = time.monotonic() - self._began, _busy_seconds()
        other_load = None
        if busy is not None and self._busy is not None and wall > 0:
            other_load = round(max(busy - self._busy - (time.process_time() - self._own), 0.0) / wall, 2)
        load = _load()
        return {"load": load[0] if load else None, "clock_mhz": _clock_mhz(), "other_load": other_load}


def _load() -> list[float] | None:
    with suppress(OSError, AttributeError):
        return [round(value, 2) for value in os.getloadavg()]
    return None


def _busy_seconds() -> float | None:
    """Return the busy time of all processors in seconds, with the time that a hypervisor took."""
    first, _, _ = (_read(Path("/proc/stat")) or "").partition("\n")
    name, *fields = first.split()[:9] if first else [""]
    if name != "cpu" or len(fields) < 8:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def _clock_mhz() -> float | None:
    kilohertz = _read(_CPUFREQ / "scaling_cur_freq")
    if kilohertz is not None and kilohertz.isdigit():
        return int(kilohertz) / 1000
    megahertz = _cpuinfo("cpu MHz")
    with suppress(TypeError, ValueError):
        return float(megahertz or "")
    return None


def _cpuinfo(field: str) -> str | None:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
