"""Parameters and multiply-adds of one operation."""

from __future__ import annotations

from cars_hw.latency.keys import OpKey
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.operations import OPERATIONS


def key_cost(key: OpKey) -> Cost:
    """Return the parameters and multiply-adds of ``key``."""
    channels, output = key.source.channels, key.output
    match key.kind:
        case "stem_cifar" | "stem_eighth" | "stem_half":
            return normalized_convolution_cost(channels, 3, output)
        case "stem_quarter":
            half = key.source.halved(key.channels // 2)
            first = normalized_convolution_cost(channels, 3, half)
            return first.plus(normalized_convolution_cost(half.channels, 3, output))
        case "relu_conv_bn" | "factorized_reduce":
            return normalized_convolution_cost(channels, 1, output)
        case "head":
            return Cost((channels + 1) * key.channels, channels * key.channels)
        case _:
            operation = OPERATIONS.get(key.kind)
            return Cost() if operation is None else operation.cost(key.source, key.stride)
