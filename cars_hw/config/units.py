"""Latencies, spans of time and sizes of memory as people write them."""

from __future__ import annotations

import math
import re
from typing import Final

from cars_hw.errors import UnitError

_MILLISECONDS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_PATTERN: Final = re.compile(r"\s*(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[a-zA-Zµμ]*)\s*")


def parse_latency(text: str) -> float:
    """Return the milliseconds that ``text`` says: ``20ms``, ``1.5ms``, ``0.02s``, ``800us``.

    Raises:
        UnitError: no unit, an unknown one, or not a positive number.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise UnitError(f"'{text}' is not a latency; write it with its unit, such as 20ms or 0.02s")
    # The micro sign and the Greek letter look alike, and keyboards have the one or the other.
    unit = match["unit"].lower().replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    if unit not in _MILLISECONDS:
        problem = f"has an unknown unit '{match['unit']}'" if unit else "has no unit"
        raise UnitError(f"latency '{text}' {problem}; write it as us, ms or s, such as 20ms or 0.02s")
    value = float(match["number"]) * _MILLISECONDS[unit]
    if not (value > 0 and math.isfinite(value)):
        raise UnitError(f"latency '{text}' must be more than nothing and finite")
    return value


_BYTES: Final = {
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_memory(text: str) -> int:
    """Return the bytes that ``text`` says: ``2GB``, ``500MB``, ``1.5GiB``.

    Raises:
        UnitError: no unit, an unknown one, or less than a byte.
    """
    match = _PATTERN.fullmatch(text)
    unit = "" if match is None else match["unit"].lower()
    if match is None or unit not in _BYTES:
        raise UnitError(f"'{text}' is no size of memory; write it with its unit, such as 500MB, 2GB or 1.5GiB")
    value = float(match["number"]) * _BYTES[unit]
    if not 1 <= value < 1e18:
        raise UnitError(f"the size of memory '{text}' must be at least one byte, and below an exabyte")
    return int(value)


_SECONDS: Final = {"d": 86_400, "h": 3600, "hour": 3600, "hours": 3600, "m": 60, "min": 60, "s": 1, "sec": 1}
_SPAN: Final = re.compile(r"\s*(?P<number>[0-9]*\.?[0-9]+)\s*(?P<unit>[a-zA-Z]+)")


def parse_span(text: str) -> float:
    """Return the seconds that ``text`` says: ``90min``, ``3h``, ``45m``, ``2h30m``, ``1.5h``.

    Raises:
        UnitError: a number without a unit, an unknown unit, units that do not descend, or no time at all.
    """
    found, rest = [], text.strip()
    while match := _SPAN.match(rest):
        unit = match["unit"].lower()
        if unit not in _SECONDS:
            raise UnitError(
                f"'{text}' has an unknown unit '{match['unit']}'; write it as h, min or s, such as 2h30m"
            )
        found.append((float(match["number"]), _SECONDS[unit]))
        rest = rest[match.end() :]
    units = [unit for _, unit in found]
    if not found or rest.strip() or units != sorted(set(units), reverse=True):
        raise UnitError(f"'{text}' is not a time; write it with its units, such as 3h, 90min or 2h30m")
    seconds = sum(number * unit for number, unit in found)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UnitError(f"the time '{text}' must be more than nothing and finite")
    return seconds


def format_seconds(seconds: float) -> str:
    """Return a span of time as people say it: 45 s, 3 min 20 s, 7 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def format_latency(milliseconds: float) -> str:
    """Return ``milliseconds`` with three significant digits and the unit that reads best."""
    # Rounded first: 999.9 us is a millisecond, and would else be written as 1e+03 us.
    rounded = float(f"{milliseconds:.3g}")
    if rounded < 1:
        return f"{1000 * rounded:.3g} us"
    if rounded < 1000:
        return f"{rounded:.3g} ms"
    return f"{rounded / 1000:.3g} s" if rounded < 1e6 else f"{rounded / 1000:.0f} s"


def in_milliseconds(value: float) -> str:
    """Return ``value`` (ms) with four significant digits and its unit: ``0.3714 ms``, ``20 ms``.

    Tables and the sentences about them have this one unit, so that a reader need not convert.
    """
    rounded = float(f"{value:.4g}")
    if rounded == 0 or not math.isfinite(rounded):
        return f"{rounded:.4g} ms"
    decimals = max(0, 3 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if decimals else text} ms"
