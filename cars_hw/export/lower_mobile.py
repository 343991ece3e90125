"""From a network of MobileNet-like blocks to a :class:`~cars_hw.export.graph.Graph`."""

from __future__ import annotations

from cars_hw.export.builder import Builder
from cars_hw.export.graph import Graph
from cars_hw.export.lower import lower_head
from cars_hw.export.lower_blocks import lower_block, lower_normalized
from cars_hw.nn.mobile import MobileBlock, MobileNetwork
from cars_hw.space.shape import Shape


def lower_mobile(network: MobileNetwork, shape: Shape) -> Graph:
    """Return what ``network`` computes in eval mode, from ``image``, of ``shape``, to ``logits`` (N, classes).

    Raises:
        ExportError: a batch normalisation has no running averages, or the image has another number of channels.
    """
    build = Builder((("image", shape),))
    state = lower_normalized(build, network.stem, "image", "stem")
    for number, block in enumerate(network.blocks):
        assert isinstance(block, MobileBlock)
        state = lower_block(build, block, state, f"blocks.{number}")
    state = lower_normalized(build, network.head, state, "head")
    return build.graph((lower_head(build, network.classifier, state, "logits"),))
