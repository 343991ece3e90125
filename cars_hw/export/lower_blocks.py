"""MobileNet-like blocks as layers of a :class:`~cars_hw.export.graph.Graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from cars_hw.export.graph import Add, PixelMean, Relu, Relu6, Scale, Sigmoid
from cars_hw.nn.mobile import MobileBlock, Normalized, SqueezeExcite
from cars_hw.space.shape import Shape

if TYPE_CHECKING:
    from cars_hw.export.builder import Builder


def lower_block(build: Builder, block: MobileBlock, source: str, name: str) -> str:
    """Add ``block``, whose output is called ``name``, to ``build``; return that name."""
    widen, project = block.widen, block.project
    state = source if widen is None else lower_normalized(build, widen, source, f"{name}/widen")
    state = lower_normalized(build, block.filter, state, f"{name}/filter")
    if block.squeeze is not None:
        state = _squeeze(build, block.squeeze, state, f"{name}/squeeze")
    if not block.adds_input:
        return lower_normalized(build, project, state, name)
    state = lower_normalized(build, project, state, f"{name}/project")
    return build.add(Add(output=name, inputs=(source, state), shape=build.shapes[state]))


def lower_normalized(build: Builder, modules: nn.Module, source: str, name: str) -> str:
    """Add a convolution, its normalisation, and the activation behind them, if there is one; return ``name``."""
    assert isinstance(modules, Normalized)
    conv, norm, *activation = modules
    assert isinstance(conv, nn.Conv2d)
    folded = build.scale_and_shift(norm, name)
    if not activation:
        return build.conv(conv, folded, source, name)
    state = build.conv(conv, folded, source, f"{name}/conv")
    kind = Relu6 if isinstance(activation[0], nn.ReLU6) else Relu
    return build.add(kind(output=name, inputs=(state,), shape=build.shapes[state]))


def _squeeze(build: Builder, module: SqueezeExcite, source: str, name: str) -> str:
    shape = build.shapes[source]
    mean = build.add(PixelMean(output=f"{name}/mean", inputs=(source,), shape=Shape(shape.channels, 1, 1)))
    state = build.conv(module.reduce, None, mean, f"{name}/reduce")
    state = build.add(Relu(output=f"{name}/act", inputs=(state,), shape=build.shapes[state]))
    state = build.conv(module.expand, None, state, f"{name}/expand")
    gate = build.add(Sigmoid(output=f"{name}/gate", inputs=(state,), shape=build.shapes[state]))
    return build.add(Scale(output=f"{name}/scaled", inputs=(source, gate), shape=shape))
