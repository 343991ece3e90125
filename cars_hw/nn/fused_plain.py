"""The operations of :mod:`cars_hw.nn.fused_states` by PyTorch's own: the fallback, and what kernels are tested by.

Shapes: a state is (N, C, H, W) in channels_last. Several states of a cell are one tensor (S, N, H, W, C).
Statistics of a normalisation are (parts, 3, C): mean, sum of squared deviations, and number of pixels. Sums for its
gradient are (parts, 2, C): those of the gradient, and of its product with the normalised state. Only the first part
is filled here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cars_hw.nn.fused_parts import EPSILON, parts_of

Optional = Tensor | None


def separable(  # noqa: PLR0917 -- PyTorch passes all by their places
    x: Tensor, x_stats: Optional, depth: Tensor, point: Tensor, stride: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """Return the pointwise convolution of the depthwise convolution of the ReLU of ``x``, and its statistics."""
    middle = _depthwise(_value(x, x_stats).relu(), depth, stride, dilation)
    return _with_statistics(F.conv2d(middle, _wide(point)[:, :, None, None]).to(x.dtype))


def separable_point_gradient(  # noqa: PLR0917
    gradient: Tensor,
    sums: Tensor,
    y: Tensor,
    stats: Tensor,
    x: Tensor,
    x_stats: Optional,
    depth: Tensor,
    point: Tensor,
    stride: int,
    dilation: int,
    parts: Tensor,
) -> Tensor:
    """Return the gradient behind the depthwise convolution; that of ``point`` goes to ``parts``."""
    before = _before_normalization(gradient, sums, y, stats)
    middle = _depthwise(_value(x, x_stats).relu(), depth, stride, dilation)
    _fill(parts, torch.einsum("nohw,nihw->oi", before, middle))
    return _last(F.conv2d(before, _wide(point).T[:, :, None, None]).to(x.dtype))


def separable_depth_gradient(  # noqa: PLR0917
    gradient: Tensor,
    x: Tensor,
    x_stats: Optional,
    depth: Tensor,
    stride: int,
    dilation: int,
    parts: Tensor,
    into: Tensor,
    add: bool,
    sums: bool,
) -> Tensor:
    """Write or ``add`` the gradient of ``x`` to ``into``, that of ``depth`` to ``parts``; return the ``sums``."""
    value = _value(x, x_stats)
    channels, kernel = depth.shape[0], depth.shape[2]
    padding = dilation * (kernel // 2)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        _wide(gradient),
        value.relu(),
        _wide(depth),
        None,
        (stride, stride),
        (padding, padding),
        (dilation, dilation),
        False,
        (0, 0),
        channels,
        (True, True, False),
    )
    _fill(parts, found[1])
    for_x = torch.where(value <= 0, 0, found[0])
    _write(into, for_x, add)
    if not sums:
        return x.new_empty(0)
    made = parts.new_zeros(len(parts), 2, channels)
    made[0] = _sums(_wide(for_x.to(x.dtype)), value)
    return made


def pointwise(x: Tensor, x_stats: Optional, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the 1x1 convolution of the ReLU of the states ``x`` (S, N, H, W, C), and its statistics.

    With two ``weights``, the resolution is halved. The first of them reads the first pixel of every square of 2x2,
    the second one the last, and their channels are side by side.
    """
    value = _states_value(x, x_stats).relu()
    made = [
        F.conv2d(part, _wide(weight)[:, :, None, None])
        for part, weight in zip(_pixels(value, len(weights)), weights, strict=True)
    ]
    return _with_statistics(torch.cat(made, dim=1).to(x.dtype))


def pointwise_gradient(  # noqa: PLR0917
    gradient: Tensor,
    sums: Tensor,
    y: Tensor,
    stats: Tensor,
    x: Tensor,
    x_stats: Optional,
    weights: list[Tensor],
    parts: list[Tensor],
    into: Tensor,
    add: bool,
) -> None:
    """Write or ``add`` the gradient of the states ``x`` to ``into``, and those of ``weights`` to ``parts``."""
    before = _before_normalization(gradient, sums, y, stats)
    value = _states_value(x, x_stats)
    inputs = _pixels(value.relu(), len(weights))
    gradients = torch.split(before, [len(weight) for weight in weights], dim=1)
    for_x = torch.zeros_like(value)
    for number, (one, weight) in enumerate(zip(gradients, weights, strict=True)):
        _fill(parts[number], torch.einsum("nohw,nihw->oi", one, inputs[number]))
        found = F.conv2d(one, _wide(weight).T[:, :, None, None])
        if len(weights) == 1:
            for_x = found
        else:
            height, width = for_x[:, :, number::2, number::2].shape[2:]
            for_x[:, :, number::2, number::2] = found[:, :, :height, :width]
    for_x = torch.where(value <= 0, 0, for_x)
    states, batch, height, width, channels = x.shape
    _write(into, for_x.permute(0, 2, 3, 1).view(batch, height, width, states, channels).permute(3, 0, 1, 2, 4), add)


def sum_states(a: Tensor, a_stats: Optional, b: Optional, b_stats: Optional, out: Tensor) -> None:
    """Write the sum of ``a`` and ``b``, each normalised if it has statistics, to ``out``."""
    made = _value(a, a_stats)
    out.copy_(made if b is None else made + _value(b, b_stats))


def norm_sums(gradients: list[Tensor], ys: list[Tensor], stats: list[Tensor]) -> list[Tensor]:
    """Return the sums for the gradients of one or two normalisations; one gradient may be that of both."""
    found = []
    for number, (y, own) in enumerate(zip(ys, stats, strict=True)):
        made = own.new_zeros(len(own), 2, y.shape[1])
        made[0] = _sums(_wide(gradients[min(number, len(gradients) - 1)]), _value(y, own))
        found.append(made)
    return found


def max_pool(x: Tensor, stride: int, places: bool) -> tuple[Tensor, Tensor]:
    """Return the largest of 3x3 pixels, and the places in the windows, uint8, if ``places`` are wanted."""
    out, indices = F.max_pool2d(x, 3, stride, 1, return_indices=True)
    if not places:
        return out, x.new_empty(0)
    height, width = out.shape[2:]
    down = indices // x.shape[3] - stride * torch.arange(height, device=x.device)[:, None] + 1
    right = indices % x.shape[3] - stride * torch.arange(width, device=x.device) + 1
    return out, _last((3 * down + right).to(torch.uint8))


def max_pool_gradient(gradient: Tensor, places: Tensor, stride: int, into: Tensor, add: bool) -> None:
    """Write or ``add`` the gradient of the input of :func:`max_pool` to ``into``."""
    batch, channels, height, width = into.shape
    rows, columns = gradient.shape[2:]
    made = _wide(gradient).new_zeros(batch, channels, height + 2, width + 2)
    for place in range(9):
        down, right = divmod(place, 3)
        window = made[:, :, down : down + stride * rows : stride, right : right + stride * columns : stride]
        window += torch.where(places == place, gradient, 0)
    _write(into, made[:, :, 1:-1, 1:-1], add)


def avg_pool(x: Tensor, stride: int) -> Tensor:
    """Return the mean of 3x3 pixels, without the padding."""
    return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)


def avg_pool_gradient(gradient: Tensor, stride: int, into: Tensor, add: bool) -> None:
    """Write or ``add`` the gradient of the input of :func:`avg_pool` to ``into``."""
    wide = _wide(gradient)
    found: Tensor = torch.ops.aten.avg_pool2d_backward(
        wide, wide.new_zeros(into.shape), (3, 3), (stride, stride), (1, 1), False, False, None
    )
    _write(into, found, add)


def mean_pixels(x: Tensor) -> Tensor:
    """Return the means (N, S C) of states (S, N, H, W, C)."""
    return _wide(x).mean(dim=(2, 3)).permute(1, 0, 2).reshape(x.shape[1], -1).to(x.dtype)


def mean_pixels_gradient(gradient: Tensor, into: Tensor) -> None:
    """Write the gradient of the states of :func:`mean_pixels` to ``into``."""
    states, batch, height, width, channels = into.shape
    each = _wide(gradient).view(batch, states, channels).transpose(0, 1) / (height * width)
    into.copy_(each[:, :, None, None])


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _moments(stats: Tensor) -> tuple[Tensor, Tensor]:
    means, squares, counts = stats.unbind(1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (squares + counts * (means - mean).square()).sum(0) / total
    return mean, (variance + EPSILON).rsqrt()


def _value(x: Tensor, stats: Optional) -> Tensor:
    """Return (N, C, H, W), normalised if there are statistics."""
    if stats is None:
        return _wide(x)
    mean, scale = _moments(stats)
    return (_wide(x) - mean[:, None, None]) * scale[:, None, None]


def _states_value(x: Tensor, stats: Optional) -> Tensor:
    states, batch, height, width, channels = x.shape
    joined = x.permute(1, 2, 3, 0, 4).reshape(batch, height, width, states * channels).permute(0, 3, 1, 2)
    return _value(joined, stats)


def _pixels(value: Tensor, weights: int) -> list[Tensor]:
    if weights == 1:
        return [value]
    height, width = value.shape[2:]
    value = F.pad(value, (0, width % 2, 0, height % 2))
    return [value[:, :, ::2, ::2], value[:, :, 1::2, 1::2]]


def _depthwise(value: Tensor, depth: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (depth.shape[2] // 2)
    return F.conv2d(value, _wide(depth), None, stride, padding, dilation, depth.shape[0])


def _with_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    y = _last(y)
    wide, pixels = _wide(y), y.numel() // y.shape[1]
    stats = wide.new_zeros(parts_of(pixels, y.shape[1]).count, 3, y.shape[1])
    mean = wide.mean(dim=(0, 2, 3))
    stats[0, 0], stats[0, 2] = mean, pixels
    stats[0, 1] = (wide - mean[:, None, None]).square().sum(dim=(0, 2, 3))
    return y, stats


def _sums(gradient: Tensor, normalized: Tensor) -> Tensor:
    return torch.stack([gradient.sum(dim=(0, 2, 3)), (gradient * normalized).sum(dim=(0, 2, 3))])


def _before_normalization(gradient: Tensor, sums: Tensor, y: Tensor, stats: Tensor) -> Tensor:
    """Return the gradient of ``y`` for that of its normalised values."""
    _, scale = _moments(stats)
    ones, products = sums.sum(0) * (y.shape[1] / y.numel())
    value = _value(y, stats)
    made: Tensor = _wide(gradient) - ones[:, None, None] - value * products[:, None, None]
    return made * scale[:, None, None]


def _fill(parts: Tensor, value: Tensor) -> None:
    parts.zero_()
    parts[0] = value.reshape(-1)


def _write(into: Tensor, value: Tensor, add: bool) -> None:
    into.copy_(value + into if add else value)
