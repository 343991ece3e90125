"""How photographs are varied: random resized crops and colours, a whole batch at once on the training device.

The distributions are those of torchvision's RandomResizedCrop and ColorJitter, which draw once for a whole batch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

ASPECTS: Final = (3 / 4, 4 / 3)
"""The narrowest and the widest crop, width by height."""

_TRIES: Final = 10
_GREY: Final = (0.2989, 0.587, 0.114)


def crop_and_resize(images: Tensor, least: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Return a part of each of ``images``, shape ``(N, C, H, W)``, blown up to their size, in their dtype.

    A part has ``least`` to all of the image's area and an aspect within :data:`ASPECTS`, and lies anywhere. Parts
    that do not fit into the image are drawn again, ten times in all; if none fits, the first is cut down to the
    image. With ``flip``, every second one on average is mirrored left to right.
    """
    count, _, height, width = images.shape
    area = height * width * (least + (1 - least) * _uniform((count, _TRIES), generator))
    low, high = (math.log(aspect) for aspect in ASPECTS)
    aspect = torch.exp(low + (high - low) * _uniform((count, _TRIES), generator))
    across, down = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (across <= width) & (down <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    across = across.gather(1, first)[:, 0].clamp(max=width)
    down = down.gather(1, first)[:, 0].clamp(max=height)
    left = (width - across) * _uniform((count,), generator)
    top = (height - down) * _uniform((count,), generator)
    sign = torch.ones(count)
    if flip:
        sign -= 2 * torch.randint(2, (count,), generator=generator, device=generator.device).cpu()
    window = torch.zeros(count, 2, 3)
    window[:, 0, 0] = sign * across / width
    window[:, 0, 2] = (2 * left + across) / width - 1
    window[:, 1, 1] = down / height
    window[:, 1, 2] = (2 * top + down) / height - 1
    # A GPU copies what it is given later, so that Python does not wait for the work before.
    window = window.to(images.device, non_blocking=True)
    grid = functional.affine_grid(window, list(images.shape), align_corners=False)
    parts = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return _as_before(parts, images)


def jitter_colours(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return ``images``, shape ``(N, C, H, W)``, with other colours, in their dtype; a pixel is from 0 to 255.

    Brightness, contrast and saturation are each scaled by ``1 - strength`` to ``1 + strength``, the hue is turned
    by up to half of ``strength``, as a share of the circle; each image in its own way, each batch in an order of
    its own. Grey images have neither saturation nor hue.
    """
    device = images.device
    count = len(images)
    pixels = images.float()
    for step in torch.randperm(4, generator=generator, device=generator.device).tolist():
        drawn = (2 * _uniform((count, 1, 1, 1), generator) - 1).to(device, non_blocking=True)
        factor = 1 + strength * drawn
        if step == 0:
            pixels = pixels * factor
        elif step == 1:
            pixels = torch.lerp(_grey(pixels).mean(dim=(2, 3), keepdim=True), pixels, factor)
        elif pixels.shape[1] != 3:
            continue
        elif step == 2:
            pixels = torch.lerp(_grey(pixels), pixels, factor)
        else:
            pixels = turn_hue(pixels, drawn * strength / 2)
        pixels = pixels.clamp(0, 255)
    return _as_before(pixels, images)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Return RGB ``images``, float ``(N, 3, H, W)``, with their hue turned by ``turn`` (a share of the circle).

    By way of hue, saturation and value: the grey and the brightest channel stay.
    """
    red, green, blue = images.unbind(1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sector = sector + 6 * turn[:, 0]
    # Each channel is a trapezium over the circle, a third of it apart.
    channels = []
    for offset in (5, 3, 1):
        place = (sector + offset) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=1)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != 3:
        return pixels.mean(dim=1, keepdim=True)
    return (pixels * _grey_shares(pixels.device)).sum(dim=1, keepdim=True)


@lru_cache(maxsize=16)
def _grey_shares(device: torch.device) -> Tensor:
    """Return the share of each channel in grey (3, 1, 1). On a GPU once, because Python waits for the copy."""
    return torch.tensor(_GREY, device=device)[:, None, None]


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    # On the CPU whatever the generator's device: these are a few numbers an image.
    return torch.rand(shape, generator=generator, device=generator.device).cpu()


def _as_before(pixels: Tensor, images: Tensor) -> Tensor:
    if images.is_floating_point():
        return pixels.to(images.dtype)
    return pixels.round().clamp(0, 255).to(images.dtype)
