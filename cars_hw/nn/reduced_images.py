"""Images of a smaller resolution, made of a batch on its device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reduced_images(images: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Return ``images`` (N, C, H, W) at ``resolution``, height and width in pixels; themselves if they have it.

    The filter is bilinear with antialiasing, like that of Pillow, which resizes the images of a data set. Pillow
    rounds its results to 8 bits; this function does not. The memory format stays that of ``images``.
    """
    if images.shape[-2:] == resolution:
        return images
    # In single precision at least: half of it has no kernel of this filter on every device.
    plain = images if images.dtype == torch.float64 else images.float()
    made = F.interpolate(plain, size=resolution, mode="bilinear", antialias=True, align_corners=False)
    last = images.is_contiguous(memory_format=torch.channels_last)
    return made.to(images.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)
