"""From a network of MobileNet-like blocks to a :class:`~cars_hw.export.graph.Graph`."""

from __future__ import annotations

from torch import nn

from cars_hw.export.graph import Add, Graph, PixelMean, Relu, Relu6, Scale, Sigmoid
from cars_hw.export.lower import Builder, lower_head
from cars_hw.nn.mobile import MobileBlock, MobileNetwork, SqueezeExcite
from cars_hw.space.shape import Shape


def lower_mobile(network: MobileNetwork, shape: Shape) -> Graph:
    """Return what ``network`` computes in eval mode, from ``image``, of ``shape``, to ``logits`` (N, classes).

    Raises:
        ExportError: a batch normalisation has no running averages, or the image has another number of channels.
    """
    build = Builder((("image", shape),))
    state = _sequence(build, network.stem, "image", "stem")
    for number, block in enumerate(network.blocks):
        assert isinstance(block, MobileBlock)
        state = _block(build, block, state, f"blocks.{number}")
    state = _sequence(build, network.head, state, "head")
    return build.graph((lower_head(build, network.classifier, state, "logits"),))


def _block(build: Builder, block: MobileBlock, source: str, name: str) -> str:
    state = source
    for number, module in enumerate(block.path):
        path = f"{name}/{number}"
        if isinstance(module, SqueezeExcite):
            state = _squeeze(build, module, state, path)
        else:
            assert isinstance(module, nn.Sequential)
            state = _sequence(build, module, state, path)
    if not block.adds_input:
        return state
    return build.add(Add(output=name, inputs=(source, state), shape=build.shapes[state]))


def _sequence(build: Builder, modules: nn.Sequential, source: str, name: str) -> str:
    """Lower a convolution, its normalisation, and the activation behind them, if there is one."""
    conv, norm, *activation = modules
    assert isinstance(conv, nn.Conv2d)
    state = build.conv(conv, build.scale_and_shift(norm, name), source, f"{name}/conv")
    if not activation:
        return state
    kind = Relu6 if isinstance(activation[0], nn.ReLU6) else Relu
    return build.add(kind(output=f"{name}/act", inputs=(state,), shape=build.shapes[state]))


def _squeeze(build: Builder, module: SqueezeExcite, source: str, name: str) -> str:
    shape = build.shapes[source]
    mean = build.add(PixelMean(output=f"{name}/mean", inputs=(source,), shape=Shape(shape.channels, 1, 1)))
    state = build.conv(module.reduce, None, mean, f"{name}/reduce")
    state = build.add(Relu(output=f"{name}/act", inputs=(state,), shape=build.shapes[state]))
    state = build.conv(module.expand, None, state, f"{name}/expand")
    gate = build.add(Sigmoid(output=f"{name}/gate", inputs=(state,), shape=build.shapes[state]))
    return build.add(Scale(output=f"{name}/scaled", inputs=(source, gate), shape=shape))
