"""Dense convolutions within a bottleneck: of a quarter of the channels, as in AmoebaNet's published code."""
# ruff: noqa: RUF001, RUF003 -- people read 3×3 and not 3x3

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.operations.operation import Operation

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape

SHARE: Final = 4
"""The convolutions between the two 1x1 ones have a quarter of the channels, at least one."""

Window = tuple[int, int]
"""Height and width in pixels."""


class Bottleneck(Operation):
    """ReLU, 1x1 convolution to a quarter of the channels, convolutions of ``kernels``, 1x1 convolution to all.

    A batch normalisation follows each convolution, and a ReLU all but the last. The convolutions of ``kernels``
    divide the stride among them: each has that of the axes along which only it is wider than a pixel.
    """

    kernels: ClassVar[tuple[Window, ...]]
    family = "dense"
    kept_maps = 3

    def begins_with_relu(self, stride: int) -> bool:
        """Return True."""
        del stride
        return True

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return the cost of all convolutions."""
        inner = shape._replace(channels=_inner(shape.channels))
        total = normalized_convolution_cost(shape.channels, 1, inner)
        for kernel, (rows, columns) in zip(self.kernels, self._strides(stride), strict=True):
            inner = inner._replace(height=-(-inner.height // rows), width=-(-inner.width // columns))
            total = total.plus(normalized_convolution_cost(inner.channels, kernel, inner))
        return total.plus(normalized_convolution_cost(inner.channels, 1, inner._replace(channels=shape.channels)))

    def _strides(self, stride: int) -> list[Window]:
        if len(self.kernels) == 1:
            return [(stride, stride)]
        return [(stride if rows > 1 else 1, stride if columns > 1 else 1) for rows, columns in self.kernels]

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the sequence."""
        inner, nn = _inner(channels), layers.nn
        modules = [nn.ReLU(), layers.pointwise(channels, inner), norm.layer(inner)]
        for kernel, steps in zip(self.kernels, self._strides(stride), strict=True):
            padding = (kernel[0] // 2, kernel[1] // 2)
            # In place is safe here: no other module reads the output of a normalisation.
            modules += [nn.ReLU(inplace=True), nn.Conv2d(inner, inner, kernel, steps, padding, bias=False)]
            modules.append(norm.layer(inner))
        modules += [nn.ReLU(inplace=True), layers.pointwise(inner, channels), norm.layer(channels)]
        return layers.ReLUFirst(*modules)


def _inner(channels: int) -> int:
    return max(1, channels // SHARE)


class Conv3x3(Bottleneck):
    """With a convolution of 3x3 pixels."""

    name = "conv_3x3"
    title = "convolution 3×3"
    short = "conv 3×3"
    kernels = ((3, 3),)


class Conv7x1And1x7(Bottleneck):
    """With a convolution of a row of 7 pixels, and then one of a column of 7."""

    name = "conv_7x1_1x7"
    title = "convolutions 1×7, 7×1"
    short = "1×7 7×1"
    kernels = ((1, 7), (7, 1))
