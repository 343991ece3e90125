"""Which measured figures are less certain than others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

UNSTEADY: Final = 0.05
"""Sessions that lie further from their figure than this fraction of it are told of."""


def unsteady_remark(spreads: Sequence[tuple[str, float | None]]) -> str | None:
    """Return a sentence that names those whose sessions differ, by names and spreads; None where there are none."""
    named = [f"{name} (by {spread:.0%})" for name, spread in spreads if spread is not None and spread > UNSTEADY]
    if not named:
        return None
    return f"{', '.join(named)}: sessions differ; more sessions give better figures."
