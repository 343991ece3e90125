"""The torch module of a network of MobileNet-like blocks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cars_hw.nn.layers import mean_of_pixels
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.mobile import Block, MobileGenotype
from cars_hw.space.shape import Shape


def activation_of(genotype: MobileGenotype) -> nn.Module:
    """Return the activation between the convolutions of ``genotype``."""
    # In place is safe: it follows a normalisation, whose output nothing else reads.
    return nn.ReLU(inplace=True) if genotype.activation == "relu" else nn.ReLU6(inplace=True)


class Normalized(nn.Sequential):
    """A convolution that keeps the size or halves it, a batch normalisation, and perhaps an activation."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: nn.Module | None = None,
    ) -> None:
        conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels[1]), *([] if act is None else [act]))


class SqueezeExcite(nn.Module):
    """Multiply each channel by a weight from 0 to 1, which the means of all channels decide (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) from (N, C, H, W)."""
        weights: Tensor = self.gate(self.expand(self.act(self.reduce(x.mean(dim=(2, 3), keepdim=True)))))
        return x * weights


class MobileBlock(nn.Module):
    """An inverted residual block, see :class:`~cars_hw.space.mobile.Block`."""

    def __init__(self, block: Block, channels_in: int, genotype: MobileGenotype) -> None:
        super().__init__()
        inner, squeezed = block.expanded(channels_in), block.squeezed(channels_in)
        modules: list[nn.Module] = []
        if block.expansion > 1:
            modules.append(Normalized((channels_in, inner), 1, act=activation_of(genotype)))
        act = activation_of(genotype)
        modules.append(Normalized((inner, inner), block.kernel, stride=block.stride, groups=inner, act=act))
        if squeezed:
            modules.append(SqueezeExcite(inner, squeezed))
        modules.append(Normalized((inner, block.channels), 1))
        self.path = nn.Sequential(*modules)
        self.adds_input = block.adds_input(channels_in)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels, H, W), or at stride 2 half of the size, rounded up."""
        out: Tensor = self.path(x)
        return x + out if self.adds_input else out


class MobileNetwork(nn.Module):
    """The network of ``genotype``, with logits (N, classes) for images (N, C_in, H, W)."""

    def __init__(self, genotype: MobileGenotype, in_channels: int = 3, classes: int = 1000) -> None:
        super().__init__()
        self.genotype = genotype
        self.stem = Normalized((in_channels, genotype.stem), 3, stride=2, act=activation_of(genotype))
        self.blocks = nn.Sequential(*(MobileBlock(*placed, genotype) for placed in genotype.placed()))
        last = genotype.blocks[-1].channels
        self.head = Normalized((last, genotype.head), 1, act=activation_of(genotype))
        self.classifier = nn.Linear(genotype.head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return what the classifier gets: (N, head)."""
        return mean_of_pixels(self.head(self.blocks(self.stem(x))))


def mobile_cost(genotype: MobileGenotype, shape: Shape, classes: int) -> Cost:
    """Return the cost of the exported network of ``genotype`` on one image of ``shape``, in closed form."""
    total = Cost((genotype.head + 1) * classes, genotype.head * classes)
    for one in _costs(genotype, shape):
        total = total.plus(one)
    return total


def _costs(genotype: MobileGenotype, shape: Shape) -> Iterator[Cost]:
    state = shape.halved(genotype.stem)
    yield normalized_convolution_cost(shape.channels, 3, state)
    for block, channels_in in genotype.placed():
        inner = state._replace(channels=block.expanded(channels_in))
        if block.expansion > 1:
            yield normalized_convolution_cost(channels_in, 1, inner)
        inner = inner.halved() if block.stride == 2 else inner
        yield normalized_convolution_cost(1, block.kernel, inner)
        if squeezed := block.squeezed(channels_in):
            weights = 2 * inner.channels * squeezed
            yield Cost(weights + inner.channels + squeezed, weights)
        state = inner._replace(channels=block.channels)
        yield normalized_convolution_cost(inner.channels, 1, state)
    yield normalized_convolution_cost(state.channels, 1, state._replace(channels=genotype.head))
