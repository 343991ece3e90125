"""A convolution of single pixels."""
# ruff: noqa: RUF001, RUF003 -- people read 1×1 and not 1x1

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.operations.operation import Operation

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class Conv1x1(Operation):
    """ReLU, 1x1 convolution, batch normalisation; at stride 2 of every second pixel."""

    name = "conv_1x1"
    title = "convolution 1×1"
    short = "conv 1×1"
    family = "dense"

    def begins_with_relu(self, stride: int) -> bool:
        """Return True."""
        del stride
        return True

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return the cost."""
        return normalized_convolution_cost(shape.channels, 1, shape.halved() if stride == 2 else shape)

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the sequence."""
        convolution = layers.nn.Conv2d(channels, channels, 1, stride, bias=False)
        return layers.ReLUFirst(layers.nn.ReLU(), convolution, norm.layer(channels))
