"""Separable convolutions: twice depthwise and pointwise."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from cars_hw.space.cost import Cost, separable_cost
from cars_hw.space.operations.operation import Operation

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class SepConv(Operation):
    """Twice ReLU, depthwise and pointwise convolution, batch normalisation; the stride is in the first."""

    kernel: ClassVar[int]
    family = "separable"
    kept_maps = 6

    def begins_with_relu(self, stride: int) -> bool:
        """Return True."""
        del stride
        return True

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return the cost of both halves."""
        half = separable_cost(self.kernel, shape.halved() if stride == 2 else shape)
        return half.plus(half)

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the sequence."""
        return layers.ReLUFirst(
            layers.nn.ReLU(),
            layers.Depthwise(channels, self.kernel, stride),
            layers.pointwise(channels, channels),
            norm.layer(channels),
            # In place is safe here: no other module reads the output of the normalisation.
            layers.nn.ReLU(inplace=True),
            layers.Depthwise(channels, self.kernel, 1),
            layers.pointwise(channels, channels),
            norm.layer(channels),
        )


class SepConv3x3(SepConv):
    """With kernels of 3x3 pixels."""

    name = "sep_conv_3x3"
    title = "separable conv. 3×3"
    short = "sep 3×3"
    kernel = 3
    within = "sep_conv_5x5"


class SepConv5x5(SepConv):
    """With kernels of 5x5 pixels."""

    name = "sep_conv_5x5"
    title = "separable conv. 5×5"
    short = "sep 5×5"
    kernel = 5

    def has_cpu_kernel(self, stride: int) -> bool:
        """Return True: the second half has stride 1."""
        del stride
        return True


class SepConv7x7(SepConv):
    """With kernels of 7x7 pixels."""

    name = "sep_conv_7x7"
    title = "separable conv. 7×7"
    short = "sep 7×7"
    kernel = 7
