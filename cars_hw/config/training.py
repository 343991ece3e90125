"""How weights are trained: the shared ones of a search, and those of a network that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

TrainingPrecision = Literal["auto", "float32", "bf16", "fp16"]


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
    """How a chosen network is trained to the end; :mod:`cars_hw.config.recipes` has the published ones.

    The learning rate rises linearly over ``warmup_epochs`` and then falls to zero by ``schedule``, step by step;
    the schedule counts from the first epoch. ``auxiliary`` weighs the auxiliary head's loss (0: no such head);
    ``drop_path`` is reached at the last epoch. A ``crop_scale`` above 0 takes the place of ``crop_padding``; see
    :class:`~cars_hw.data.Augmentation` for what varies images.

    ``ema`` is the decay of an exponential moving average of the weights, a step at a time, which is then what is
    judged and shipped (0: none). ``hold_out`` is the share of the training images that is not trained on, and that
    chooses the best epoch (0: the last epoch is taken). ``precision`` is that of activations: see
    :func:`~cars_hw.training.precision.resolve_precision`.

    Raises ``ValueError`` for what no training can be.
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
    schedule: Literal["cosine", "linear"] = "cosine"
    crop_scale: float = 0.0
    colour_jitter: float = 0.0
    ema: float = 0.0
    hold_out: float = 0.0
    precision: TrainingPrecision = "auto"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"a training has at least one epoch, not {self.epochs}")
        for name in ("ema", "hold_out", "drop_path"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}")
        if self.schedule not in ("cosine", "linear"):
            raise ValueError(f"unknown schedule '{self.schedule}'; known: cosine, linear")

    def rate(self, epoch: float) -> float:
        """Return the learning rate at ``epoch``, a step's share of it included: 0 at the beginning."""
        if epoch < self.warmup_epochs:
            # A step at a rate of exactly zero would be a step for nothing.
            return self.learning_rate * (epoch + 1e-3) / self.warmup_epochs
        position = min(epoch / self.epochs, 1.0)
        if self.schedule == "linear":
            return self.learning_rate * (1 - position)
        return cosine(position, self.learning_rate, 0.0)


def cosine(position: float, start: float, end: float) -> float:
    """Return the value at ``position`` (0 to 1) of a half cosine from ``start`` to ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(position, 0.0), 1.0))) / 2
