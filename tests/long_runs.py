"""How many cases a test takes: a seeded sample in ``make test``, all of them in ``make test-long``."""

from __future__ import annotations

import os

VARIABLE = "CARS_HW_LONG_TESTS"
"""Set by ``pytest --long``, and inherited by the workers of pytest-xdist."""


def amount(short: int, long: int) -> int:
    """Return ``long`` under ``pytest --long``, ``short`` elsewhere."""
    return long if os.environ.get(VARIABLE) == "1" else short
