"""The state itself, or at stride 2 a factorized reduction of it."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.operations.operation import Operation

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class SkipConnect(Operation):
    """The input; at stride 2 ReLU, two strided 1x1 convolutions and a batch normalisation (FactorizedReduce)."""

    name = "skip_connect"
    title = "skip connection"
    short = "skip"
    family = "between"
    kept_maps = 0

    def is_computed(self, stride: int) -> bool:
        """Return whether it is more than its input."""
        return stride == 2

    def begins_with_relu(self, stride: int) -> bool:
        """Return whether it is the factorized reduction."""
        return stride == 2

    def has_cpu_kernel(self, stride: int) -> bool:
        """Return whether it is the factorized reduction."""
        return stride == 2

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return the cost of the factorized reduction, or nothing."""
        return normalized_convolution_cost(shape.channels, 1, shape.halved()) if stride == 2 else Cost()

    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the identity, or the factorized reduction."""
        return layers.nn.Identity() if stride == 1 else layers.FactorizedReduce(channels, channels, norm)
