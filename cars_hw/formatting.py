"""How the report writes figures and names: one unit for a latency wherever it stands."""

# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

UNKNOWN: Final = "–"


class Kind(NamedTuple):
    """What a kind of operation is called: in full, in a drawing, and which family has its colour."""

    title: str
    short: str
    family: str


FAMILIES: Final = {
    "separable": "separable convolution",
    "dilated": "dilated convolution",
    "pooling": "pooling",
    "between": "between cells: preprocessing, strided skips",
    "elementwise": "ReLU, sums, concatenation",
    "ends": "stem and classifier",
    "rest": "constant cost of any network",
}
"""Families of operations, in the order in which they are stacked, with what they are called."""

_KINDS: Final = {
    "sep_conv_3x3": Kind("separable conv. 3×3", "sep 3×3", "separable"),
    "sep_conv_5x5": Kind("separable conv. 5×5", "sep 5×5", "separable"),
    "dil_conv_3x3": Kind("dilated conv. 3×3", "dil 3×3", "dilated"),
    "dil_conv_5x5": Kind("dilated conv. 5×5", "dil 5×5", "dilated"),
    "max_pool_3x3": Kind("max pooling 3×3", "max 3×3", "pooling"),
    "avg_pool_3x3": Kind("average pooling 3×3", "avg 3×3", "pooling"),
    "skip_connect": Kind("skip connection", "skip", "between"),
    "relu_conv_bn": Kind("preprocessing, 1×1", "1×1", "between"),
    "factorized_reduce": Kind("preprocessing, halving", "halve", "between"),
    "relu": Kind("ReLU", "relu", "elementwise"),
    "add": Kind("sum of two edges", "add", "elementwise"),
    "concat": Kind("concatenation", "concat", "elementwise"),
    "zeros": Kind("zeros of an empty node", "zeros", "elementwise"),
    "stem_cifar": Kind("stem", "stem", "ends"),
    "stem_quarter": Kind("stem, first half", "stem", "ends"),
    "stem_eighth": Kind("stem, second half", "stem", "ends"),
    "head": Kind("classifier", "head", "ends"),
}


def kind_of(operation: str) -> Kind:
    """Return what ``operation``, a candidate operation or a kind of op key, is called."""
    return _KINDS.get(operation, Kind(operation, operation, "rest"))


def milliseconds(value: float | None) -> str:
    """Return ``value`` (ms) with three significant digits and its unit: ``0.134 ms``, ``20.5 ms``, ``1,340 ms``."""
    return UNKNOWN if value is None else f"{figure(value)} ms"


def figure(value: float) -> str:
    """Return ``value`` with three significant digits and never with an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else UNKNOWN
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def parts_of(whole: float) -> Callable[[float], str]:
    """Return what writes parts of ``whole`` (ms), all with as many decimals, since they stand below each other."""
    decimals = max(0, 3 - math.floor(math.log10(whole))) if whole > 0 else 0
    return lambda value: f"{value:,.{decimals}f} ms"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return ``fraction`` as a percentage."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f}%"


def signed_percent(fraction: float | None) -> str:
    """Return ``fraction`` as a percentage with its sign."""
    return UNKNOWN if fraction is None else f"{100 * fraction:+.1f}%".replace("-", "\N{MINUS SIGN}")


def millions(count: float) -> str:
    """Return ``count`` in millions: ``0.037 M``, ``4.70 M``."""
    return f"{figure(count / 1e6)} M"


def size(count: int) -> str:
    """Return so many bytes as people write it: ``51 kB``, ``1.3 MB``."""
    return f"{max(1, round(count / 1e3))} kB" if count < 999_500 else f"{count / 1e6:.1f} MB"
