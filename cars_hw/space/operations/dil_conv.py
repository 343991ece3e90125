"""Dilated separable convolutions."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from cars_hw.space.cost import Cost, separable_cost
from cars_hw.space.operations.operation import Operation

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class DilConv(Operation):
    """ReLU, depthwise convolution with dilation 2, pointwise convolution, batch normalisation."""

    kernel: ClassVar[int]
    family = "dilated"
    kept_maps = 3

    def begins_with_relu(self, stride: int) -> bool:
        """Return True."""
        del stride
        return True

    def has_cpu_kernel(self, stride: int) -> bool:
        """Return True."""
        del stride
        return True

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return the cost."""
        return separable_cost(self.kernel, shape.halved() if stride == 2 else shape)

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the sequence."""
        return layers.ReLUFirst(
            layers.nn.ReLU(),
            layers.DilatedDepthwise(channels, self.kernel, stride),
            layers.pointwise(channels, channels),
            norm.layer(channels),
        )


class DilConv3x3(DilConv):
    """With kernels of 3x3 pixels."""

    name = "dil_conv_3x3"
    title = "dilated conv. 3×3"
    short = "dil 3×3"
    kernel = 3
    within = "dil_conv_5x5"


class DilConv5x5(DilConv):
    """With kernels of 5x5 pixels."""

    name = "dil_conv_5x5"
    title = "dilated conv. 5×5"
    short = "dil 5×5"
    kernel = 5
