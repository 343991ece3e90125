"""Builder: a graph in the making, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from cars_hw.errors import ExportError
from cars_hw.export.graph import Conv, Graph, Layer, Relu, Shift
from cars_hw.space.shape import Shape

Exact = npt.NDArray[np.float64]


class Builder:
    """The graph so far. Every method adds a layer and returns the name of what it computes."""

    def __init__(self, inputs: tuple[tuple[str, Shape], ...]) -> None:
        self.inputs = inputs
        self.layers: dict[str, Layer] = {}
        self.shapes = dict(inputs)

    def graph(self, outputs: tuple[str, ...]) -> Graph:
        """Return the graph with ``outputs``."""
        return Graph(self.inputs, tuple(self.layers.values()), outputs)

    def add(self, layer: Layer) -> str:
        """Add ``layer``.

        Raises:
            ExportError: another layer, or an input of the graph, has its name.
        """
        if layer.output in self.shapes:
            raise ExportError(
                f"two layers are called '{layer.output}': a module that lowers itself must begin the names of its "
                "layers with the name that it gets, and may use each only once"
            )
        self.layers[layer.output] = layer
        self.shapes[layer.output] = layer.shape
        return layer.output

    def fresh(self, name: str) -> str:
        """Return ``name``, or ``name_2``, ``name_3`` if it is taken."""
        number, unique = 1, name
        while unique in self.shapes:
            number += 1
            unique = f"{name}_{number}"
        return unique

    def relu(self, source: str) -> str:
        """Add the ReLU of ``source``, unless it is there already: it is the same value for all who take it."""
        name = f"{source}/relu"
        if name in self.layers:
            return name
        return self.add(Relu(output=name, inputs=(source,), shape=self.shapes[source]))

    def shift(self, source: str) -> str:
        """Add ``source`` shifted by a pixel, unless it is there already."""
        name = f"{source}/shift"
        if name in self.layers:
            return name
        channels, height, width = self.shapes[source]
        shape = Shape(channels, height - 1 + height % 2, width - 1 + width % 2)
        return self.add(Shift(output=name, inputs=(source,), shape=shape))

    def exact(self, tensor: Tensor) -> Exact:
        """Return the values of ``tensor`` in float64."""
        values: Exact = tensor.detach().cpu().double().numpy()
        return values

    def conv(self, conv: nn.Conv2d, affine: tuple[Exact, Exact] | None, source: str, name: str) -> str:
        """Add ``conv``, its output scaled and shifted by ``affine``, two arrays of shape (C_out,)."""
        shape = self.shapes[source]
        if conv.in_channels != shape.channels:
            raise ExportError(f"{name}: {conv.in_channels} channels are expected, not {shape.channels}")
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ExportError(f"{name}: only convolutions with a number of zeros as padding can be exported")
        dilation = _square(name, conv.dilation)
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding in zip(
                (shape.height, shape.width), conv.kernel_size, conv.stride, conv.padding, strict=True
            )
        )
        weight, bias = self._folded(conv, affine)
        return self.add(
            Conv(
                output=self.fresh(name),
                inputs=(source,),
                shape=Shape(conv.out_channels, height, width),
                weight=weight,
                bias=bias,
                stride=_pair(conv.stride),
                padding=_pair(conv.padding),
                dilation=dilation,
                groups=conv.groups,
            )
        )

    def scale_and_shift(self, norm: nn.Module, name: str) -> tuple[Exact, Exact]:
        """Return the scale and the shift, (C,) each, that ``norm`` amounts to in eval mode."""
        if not isinstance(norm, nn.BatchNorm2d):
            raise ExportError(f"{name}: {type(norm).__name__} cannot be folded into a convolution")
        if norm.running_mean is None or norm.running_var is None:
            raise ExportError(
                f"{name}: its normalisation keeps no running averages; export a trained Network instead"
            )
        scale = 1 / np.sqrt(self.exact(norm.running_var) + norm.eps)
        if norm.affine:
            scale *= self.exact(norm.weight)
        shift = -self.exact(norm.running_mean) * scale
        return scale, shift + self.exact(norm.bias) if norm.affine else shift

    def _folded(
        self, conv: nn.Conv2d, affine: tuple[Exact, Exact] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        weight = self.exact(conv.weight)
        bias = None if conv.bias is None else self.exact(conv.bias)
        if affine is not None:
            scale, shift = affine
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else bias * scale + shift
        return weight.astype(np.float32), None if bias is None else bias.astype(np.float32)


def _pair(sizes: Iterable[int]) -> int | tuple[int, int]:
    """Return the sizes for height and width, or the one number that both have."""
    height, width = sizes
    return height if height == width else (height, width)


def _square(name: str, pair: Iterable[int]) -> int:
    first, *others = pair
    if any(other != first for other in others):
        raise ExportError(f"{name}: only convolutions with the same dilation on both axes can be exported")
    return first
