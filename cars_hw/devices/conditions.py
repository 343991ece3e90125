"""What this machine is and does at this moment, read without any privilege."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def host_conditions() -> dict[str, Any]:
    """Return processor, cores, clock (MHz), governor, load (1, 5, 15 minutes), platform and time (ISO 8601).

    What this system does not tell is None.
    """
    load = None
    with suppress(OSError, AttributeError):
        load = [round(value, 2) for value in os.getloadavg()]
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "clock_mhz": _clock_mhz(),
        "governor": _read(_CPUFREQ / "scaling_governor"),
        "load": load,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def pin_to(cores: int) -> list[int] | None:
    """Return which ``cores`` of those that this process may use a measurement should be pinned to.

    The last ones: interrupts are served by the first. None where the system cannot pin, such as macOS, or has
    fewer.
    """
    if sys.platform == "darwin" or not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-cores:] if len(allowed) >= cores else None


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
