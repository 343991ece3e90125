"""The largest of 3x3 pixels."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from types import ModuleType
from typing import Any

from cars_hw.space.operations.operation import Operation


class MaxPool3x3(Operation):
    """The largest of 3x3 pixels; no normalisation follows, in the SuperNet neither."""

    name = "max_pool_3x3"
    title = "max pooling 3×3"
    short = "max 3×3"
    family = "pooling"

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the pooling."""
        del channels, norm
        return layers.MaxPool(stride)
