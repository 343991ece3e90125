"""Parameters and multiply-adds of MobileNet-like blocks, in closed form; see :mod:`cars_hw.space.cost`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cars_hw.space.cost import Cost, normalized_convolution_cost

if TYPE_CHECKING:
    from cars_hw.space.mobile import Block
    from cars_hw.space.shape import Shape


def block_cost(block: Block, source: Shape) -> Cost:
    """Return the cost of ``block`` on an image of the shape ``source``."""
    inner = source._replace(channels=block.expanded(source.channels))
    total = normalized_convolution_cost(source.channels, 1, inner) if block.expansion > 1 else Cost()
    inner = inner.halved() if block.stride == 2 else inner
    total = total.plus(normalized_convolution_cost(1, block.kernel, inner))
    if squeezed := block.squeezed(source.channels):
        weights = 2 * inner.channels * squeezed
        total = total.plus(Cost(weights + inner.channels + squeezed, weights))
    return total.plus(normalized_convolution_cost(inner.channels, 1, inner._replace(channels=block.channels)))
