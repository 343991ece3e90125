"""Parameters and multiply-adds of one operation."""

from __future__ import annotations

from cars_hw.latency.op_key import OpKey, block_choice
from cars_hw.space.block_cost import block_cost
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.families import BLOCK_FAMILIES, MOBILE
from cars_hw.space.mobile import Block
from cars_hw.space.operations import OPERATIONS


def key_block(key: OpKey) -> Block | None:
    """Return the block that ``key`` is; None if it is something else."""
    choice = block_choice(key.kind)
    if choice is None:
        return None
    squeeze = BLOCK_FAMILIES[MOBILE].squeeze if choice.squeeze else 0.0
    return Block(choice.expansion, choice.kernel, key.channels, key.stride, squeeze)


def key_cost(key: OpKey) -> Cost:
    """Return the parameters and multiply-adds of ``key``."""
    channels, output = key.source.channels, key.output
    match key.kind:
        case "stem_cifar" | "stem_eighth" | "stem_half" | "stem_image" | "stem_conv":
            return normalized_convolution_cost(channels, 3, output)
        case "stem_quarter":
            half = key.source.halved(key.channels // 2)
            first = normalized_convolution_cost(channels, 3, half)
            return first.plus(normalized_convolution_cost(half.channels, 3, output))
        case "relu_conv_bn" | "factorized_reduce" | "head_conv":
            return normalized_convolution_cost(channels, 1, output)
        case "head":
            return Cost((channels + 1) * key.channels, channels * key.channels)
        case _ if (block := key_block(key)) is not None:
            return block_cost(block, key.source)
        case _:
            operation = OPERATIONS.get(key.kind)
            return Cost() if operation is None else operation.cost(key.source, key.stride)
