"""The edge that is not there."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from cars_hw.space.operations.operation import Operation

NONE: Final = "none"


class NoOperation(Operation):
    """An absent edge: no module computes it, and it has neither a key nor a cost."""

    name = NONE
    title = "no edge"
    short = "none"
    kept_maps = 0

    def is_computed(self, stride: int) -> bool:
        """Return False."""
        del stride
        return False

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Raise a ValueError: an absent edge is not computed."""
        del layers, channels, stride, norm
        raise ValueError(f"no module computes '{self.name}'")
