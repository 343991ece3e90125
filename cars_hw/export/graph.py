"""A network as a short list of plain layers, from which every export format is written.

The candidate operations are a closed set, so they are lowered once, here, with batch normalisation folded into
the convolutions; a format is then a writer over :class:`Graph` that needs to know nothing of torch. Weights are
float32 and laid out as in torch; a writer for another layout transposes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.space.shape import Shape

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One computation. ``output`` names both the layer and what it computes; ``shape`` is that value's.

    ``inputs`` are names of graph inputs or of earlier layers' outputs.
    """

    output: str
    inputs: tuple[str, ...]
    shape: Shape


class Axis(NamedTuple):
    """How a window moves along the height or the width of an image.

    ``window`` is the number of pixels that it covers, with dilation; ``padding`` is on both sides.
    """

    window: int
    stride: int
    padding: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Layer):
    """Convolution with ``padding`` zeros in pixels on both sides of an axis.

    ``weight`` has shape (C_out, C_in / groups, K_h, K_w), ``bias`` shape (C_out,) or is absent. ``stride`` and
    ``padding`` are for height and width, or for both where they are one number.
    """

    weight: Weights
    bias: Weights | None
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int
    groups: int

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The window along the height and along the width."""
        strides, paddings = (one if isinstance(one, tuple) else (one, one) for one in (self.stride, self.padding))
        windows = [self.dilation * (size - 1) + 1 for size in self.weight.shape[2:]]
        return Axis(windows[0], strides[0], paddings[0]), Axis(windows[1], strides[1], paddings[1])

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image, the padding's included; one multiply-add is one."""
        return self.weight.size * self.shape.height * self.shape.width


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Layer):
    """A vector times ``weight`` (C_out, C_in), plus ``bias`` (C_out,): (N, C_in) to (N, C_out)."""

    weight: Weights
    bias: Weights

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image; one multiply-add is one."""
        return self.weight.size


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Layer):
    """The positive part."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu6(Layer):
    """The positive part, at most 6."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Layer):
    """``1 / (1 + exp(-x))`` of every value ``x``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelMean(Layer):
    """The mean over all pixels, as an image of one pixel: (N, C, H, W) to (N, C, 1, 1)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Layer):
    """The first input, each channel multiplied by that of the second one, an image of one pixel."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Layer):
    """Largest of 3x3 pixels, one pixel of padding that never wins."""

    stride: int


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool(Layer):
    """Mean of 3x3 pixels, one pixel of padding that does not count: at the border fewer pixels are averaged."""

    stride: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Shift(Layer):
    """The image a pixel up and to the left: zeros fill height and width up to even, then row and column 0 go.

    (N, C, H, W) to (N, C, H - 1, W - 1) where the sizes are even, to the same shape where they are odd.
    """


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Layer):
    """The sum of two inputs of one shape."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """The inputs' channels one after the other."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Zeros(Layer):
    """Zeros of the one input's batch and shape; its values do not matter."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Layer):
    """The input itself."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalAveragePool(Layer):
    """The mean over all pixels, as a vector: (N, C, H, W) to (N, C). ``shape`` is (C, 1, 1)."""


VECTORS = (GlobalAveragePool, Linear)
"""The layers that make vectors (N, C) rather than images; their ``shape`` is (C, 1, 1)."""


@dataclass(frozen=True, eq=False)
class Graph:
    """``layers`` in an order in which they can run, from ``inputs`` (name and shape) to ``outputs`` (names).

    Every value is a float32 image (N, C, H, W), but for the vectors (N, C) that :data:`VECTORS` make.

    Raises:
        ValueError: a name is given twice, or is used before it is given.
    """

    inputs: tuple[tuple[str, Shape], ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {name for name, _ in self.inputs}
        for layer in self.layers:
            if layer.output in known:
                raise ValueError(f"two values are called {layer.output}")
            _check_known(known, layer.inputs)
            known.add(layer.output)
        _check_known(known, self.outputs)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return dict(self.inputs) | {layer.output: layer.shape for layer in self.layers}

    def shape(self, name: str) -> Shape:
        """Return the shape of the value called ``name``; a vector's is (C, 1, 1).

        Raises:
            KeyError: there is no such value.
        """
        return self._shapes[name]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image, in convolutions and linear layers; one multiply-add is one."""
        return sum(layer.multiply_adds for layer in self.layers if isinstance(layer, Conv | Linear))

    def without_dead_layers(self) -> Graph:
        """Return the graph without the layers that no output depends on."""
        needed = set(self.outputs)
        for layer in reversed(self.layers):
            if layer.output in needed:
                needed.update(layer.inputs)
        return Graph(self.inputs, tuple(layer for layer in self.layers if layer.output in needed), self.outputs)


def _check_known(known: set[str], names: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{name} is used before it is computed")


def add_graph(shape: Shape) -> Graph:
    """Return the sum of two images of ``shape``, what joins the two edges of a node."""
    inputs = (("input_0", shape), ("input_1", shape))
    return Graph(inputs, (Add(output="sum", inputs=("input_0", "input_1"), shape=shape),), ("sum",))


def concat_graph(shape: Shape, count: int) -> Graph:
    """Return ``count`` images of ``shape`` side by side, what joins the nodes of a cell."""
    inputs = tuple((f"input_{number}", shape) for number in range(count))
    joined = shape._replace(channels=count * shape.channels)
    layer = Concat(output="joined", inputs=tuple(name for name, _ in inputs), shape=joined)
    return Graph(inputs, (layer,), ("joined",))


def identity_graph(shape: Shape) -> Graph:
    """Return the graph that hands an image of ``shape`` through: what it takes to run nothing."""
    return Graph((("input", shape),), (Identity(output="same", inputs=("input",), shape=shape),), ("same",))


def head_graph(shape: Shape, classes: int) -> Graph:
    """Return a network's head, from an image of ``shape`` to logits (N, ``classes``), with arbitrary weights."""
    weight = np.random.default_rng(0).standard_normal((classes, shape.channels)).astype(np.float32)
    pool = GlobalAveragePool(output="mean", inputs=("input",), shape=Shape(shape.channels, 1, 1))
    linear = Linear(
        output="logits",
        inputs=("mean",),
        shape=Shape(classes, 1, 1),
        weight=weight,
        bias=np.zeros(classes, np.float32),
    )
    return Graph((("input", shape),), (pool, linear), ("logits",))
