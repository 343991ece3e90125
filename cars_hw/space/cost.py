"""The costs of layers, in closed form.

Parameters are the weights and biases of convolutions and linear layers, as an exported file has them. An export
folds a batch normalisation into the convolution before it: its shift becomes a bias, and its scale disappears.
Constants of pooling, of padding and of preprocessing are not parameters. Multiply-adds are those of convolutions
and linear layers, padded pixels included; one multiply-add counts as one operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class Cost(NamedTuple):
    """The number of parameters, and the number of multiply-adds for one image.

    ``folded`` is the number of parameters that only training has: the scales of normalisations, which an export
    folds into the weights.
    """

    parameters: int = 0
    multiply_adds: int = 0
    folded: int = 0

    @property
    def trained_parameters(self) -> int:
        """The number of parameters of the torch modules: those of the exported file, and those that it folds."""
        return self.parameters + self.folded

    def plus(self, other: Cost) -> Cost:
        """Return the sum of both."""
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.folded + other.folded,
        )


def convolution_cost(channels_in: int, channels_out: int, kernel: int | tuple[int, int], output: Shape) -> Cost:
    """Return the cost of a convolution without bias; a depthwise one has one input channel an output.

    ``kernel`` is its height and width in pixels, or both where they are one number.
    """
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    weights = channels_in * channels_out * height * width
    return Cost(weights, weights * output.height * output.width)


def normalized_convolution_cost(channels_in: int, kernel: int | tuple[int, int], output: Shape) -> Cost:
    """Return the cost of a convolution to ``output`` and of the batch normalisation behind it.

    A factorized reduction costs as much as one with a kernel of 1: each of its halves makes half of the channels.
    """
    cost = convolution_cost(channels_in, output.channels, kernel, output)
    return cost.plus(Cost(parameters=output.channels, folded=output.channels))


def separable_cost(kernel: int, output: Shape) -> Cost:
    """Return the cost of a depthwise convolution to ``output``, a pointwise one and a batch normalisation."""
    depthwise = convolution_cost(1, output.channels, kernel, output)
    return depthwise.plus(normalized_convolution_cost(output.channels, 1, output))
