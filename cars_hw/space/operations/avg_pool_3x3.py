"""The mean of 3x3 pixels."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from types import ModuleType
from typing import Any

from cars_hw.space.operations.operation import Operation


class AvgPool3x3(Operation):
    """The mean of 3x3 pixels, padding excluded; no normalisation follows, in the SuperNet neither."""

    name = "avg_pool_3x3"
    title = "average pooling 3×3"
    short = "avg 3×3"
    family = "pooling"

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the pooling."""
        del channels, norm
        return layers.nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
