"""The torch module of a network of MobileNet-like blocks."""

from __future__ import annotations

from torch import Tensor, nn

from cars_hw.nn.layers import Normalization, mean_of_pixels
from cars_hw.space.block_cost import block_cost
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.mobile import Activation, Block, MobileGenotype
from cars_hw.space.shape import Shape


def activation_of(name: Activation) -> nn.Module:
    """Return the activation between convolutions."""
    # In place is safe: it follows a normalisation, whose output nothing else reads.
    return nn.ReLU(inplace=True) if name == "relu" else nn.ReLU6(inplace=True)


class Normalized(nn.Sequential):
    """A convolution that keeps the size or halves it, a batch normalisation, and perhaps an activation."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: Activation | None = None,
        norm: Normalization | None = None,
    ) -> None:
        conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        layer = (norm or Normalization()).layer(channels[1])
        super().__init__(conv, layer, *([] if act is None else [activation_of(act)]))


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
    """An inverted residual block, see :class:`~cars_hw.space.mobile.Block`.

    The names of its weights do not depend on the block, so that one block can have a part of another one's weights.
    """

    def __init__(
        self, block: Block, channels_in: int, act: Activation = "relu", norm: Normalization | None = None
    ) -> None:
        super().__init__()
        inner, squeezed = block.expanded(channels_in), block.squeezed(channels_in)
        self.widen: nn.Module | None = None
        if block.expansion > 1:
            self.widen = Normalized((channels_in, inner), 1, act=act, norm=norm)
        self.filter = Normalized(
            (inner, inner), block.kernel, stride=block.stride, groups=inner, act=act, norm=norm
        )
        self.squeeze = SqueezeExcite(inner, squeezed) if squeezed else None
        self.project = Normalized((inner, block.channels), 1, norm=norm)
        self.adds_input = block.adds_input(channels_in)

    def path(self, x: Tensor) -> Tensor:
        """Return what the convolutions make of ``x``, without adding it."""
        out: Tensor = self.filter(x if self.widen is None else self.widen(x))
        out = out if self.squeeze is None else self.squeeze(out)
        projected: Tensor = self.project(out)
        return projected

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels, H, W), or at stride 2 half of the size, rounded up."""
        out = self.path(x)
        return x + out if self.adds_input else out


class MobileNetwork(nn.Module):
    """The network of ``genotype``, with logits (N, classes) for images (N, C_in, H, W)."""

    def __init__(self, genotype: MobileGenotype, in_channels: int = 3, classes: int = 1000) -> None:
        super().__init__()
        self.genotype = genotype
        self.stem = Normalized((in_channels, genotype.stem), 3, stride=2, act=genotype.activation)
        self.blocks = nn.Sequential(*(MobileBlock(*placed, genotype.activation) for placed in genotype.placed()))
        last = genotype.blocks[-1].channels
        self.head = Normalized((last, genotype.head), 1, act=genotype.activation)
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
    state = shape.halved(genotype.stem)
    total = total.plus(normalized_convolution_cost(shape.channels, 3, state))
    for block, _ in genotype.placed():
        total = total.plus(block_cost(block, state))
        state = (state.halved() if block.stride == 2 else state)._replace(channels=block.channels)
    head = state._replace(channels=genotype.head)
    return total.plus(normalized_convolution_cost(state.channels, 1, head))
