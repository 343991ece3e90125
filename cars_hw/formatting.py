"""Figures as text for reports and messages: three significant digits, one unit per quantity."""

# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

UNKNOWN: Final = "–"


def printable(text: str, *, lines: bool = False) -> str:
    """Return ``text`` with every character that is not shown as itself in the form of an escape, such as ``\\x1b``.

    Names from files reach a terminal, where control characters and changes of the writing direction do more than
    show a name. Line breaks are escaped as well, unless ``text`` has several ``lines``.
    """
    return "".join(
        one
        if one.isprintable() or "\ud800" <= one <= "\udfff" or (lines and one == "\n")
        else one.encode("unicode_escape").decode()
        for one in text
    )


def milliseconds(value: float | None) -> str:
    """Return ``value`` (ms) with three significant digits and its unit: ``0.134 ms``, ``20.5 ms``, ``1,340 ms``."""
    return UNKNOWN if value is None else f"{figure(value)} ms"


def figure(value: float) -> str:
    """Return ``value`` with three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else UNKNOWN
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def parts_of(whole: float) -> Callable[[float], str]:
    """Return a function that formats parts of ``whole`` (ms), all with the same number of decimals."""
    decimals = max(0, 3 - math.floor(math.log10(whole))) if whole > 0 else 0
    return lambda value: f"{value:,.{decimals}f} ms"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return ``fraction`` as a percentage."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f}%"


def accuracy_text(fraction: float | None, interval: tuple[float, float] | None = None) -> str:
    """Return ``fraction`` as a percentage with its confidence interval: ``80.0% (49.0 to 94.3)``."""
    if fraction is None or interval is None:
        return percent(fraction)
    low, high = interval
    return f"{percent(fraction)} ({100 * low:.1f} to {100 * high:.1f})"


def signed_percent(fraction: float | None) -> str:
    """Return ``fraction`` as a percentage with its sign."""
    return UNKNOWN if fraction is None else f"{100 * fraction:+.1f}%".replace("-", "\N{MINUS SIGN}")


def millijoules(mj: float | None) -> str:
    """Return ``mj`` with its unit: ``0.52 mJ``, ``1.30 J``."""
    if mj is None:
        return UNKNOWN
    return f"{mj:.3g} mJ" if mj < 999.5 else f"{mj / 1e3:.3g} J"


def millions(count: float) -> str:
    """Return ``count`` in millions: ``0.037 M``, ``4.70 M``."""
    return f"{figure(count / 1e6)} M"


def state_name(state: str) -> str:
    """Return the words for a state of a machine: ``the quiet state``, ``the usual state``, ``the 0.9 quantile of
    the time``."""
    return f"the {state} state" if state.isalpha() else f"the {state} quantile of the time"


def size(count: int) -> str:
    """Return ``count`` bytes in a readable unit: ``51 kB``, ``1.3 MB``, ``193.0 GB``."""
    if count >= 999_950_000:
        return f"{count / 1e9:.1f} GB"
    return f"{max(1, round(count / 1e3))} kB" if count < 999_500 else f"{count / 1e6:.1f} MB"


def dominated_words(names: Sequence[str]) -> str:
    """Return why the networks ``names`` are in a front although cheaper ones are as accurate; empty for none."""
    if not names:
        return ""
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return (
        f"{listed} {'is' if len(names) == 1 else 'are'} no more accurate than a cheaper network after this short "
        "training. Short trainings underestimate large networks, so the front also has the best network of each "
        "stretch of the costs. Longer trainings decide."
    )


LOSSES_CHOSE: Final = (
    "The losses under shared weights chose the front, so a network can be in it although a cheaper one is more "
    "accurate."
)
"""What is said of a front after a search by the loss without a final stage."""
