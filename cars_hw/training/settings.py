"""How weights are trained: the shared ones of a search, and those of a network that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SharedTraining:
    """How the shared weights learn (CARS, section 4.1, where it says so; DARTS for the rest).

    ``architectures`` is the B of Eq. 3, drawn for each minibatch. The learning rate falls from
    ``learning_rate`` to ``learning_rate_min`` along a cosine, epoch by epoch. ``validation_fraction`` of the
    training images judges architectures; of these, ``evaluation_images`` (0: all) do so in every generation.
    ``threads`` (0: torch's own number) take part in a step on a CPU: on small activations a second thread gains
    a tenth, and costs tenfold as soon as another process wants its core.
    """

    batch_size: int = 128
    architectures: int = 1
    learning_rate: float = 0.025
    learning_rate_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    crop_padding: int = 4
    cutout: int = 0
    validation_fraction: float = 0.5
    evaluation_images: int = 0
    evaluation_batch: int = 500
    threads: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a chosen network is trained to the end.

    The learning rate rises linearly over ``warmup_epochs`` and then falls to zero along a cosine, step by
    step. ``auxiliary`` weighs the auxiliary head's loss (0: no such head); ``drop_path`` is reached at the
    last epoch.
    """

    epochs: int
    batch_size: int = 96
    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    warmup_epochs: float = 0.0
    auxiliary: float = 0.0
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    crop_padding: int = 4
    cutout: int = 0


def cosine(position: float, start: float, end: float) -> float:
    """Return the value at ``position`` (0 to 1) of a half cosine from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(position, 0.0), 1.0))) / 2
