"""Which of the training images train the shared weights, and which evaluate architectures."""

from __future__ import annotations

import torch
from torch import Tensor

from cars_hw.data import DataBundle, Dataset, stratified_split


def judging_parts(data: DataBundle, share: float, generator: torch.Generator) -> tuple[Dataset, Dataset]:
    """Return the images that train and those that evaluate: the given validation part, or else ``share`` of each
    class of the training images."""
    if data.validation is not None:
        return data.train, data.validation
    train, valid = judging_split(data.train.labels, share, generator)
    return data.train.select(train), data.train.select(valid)


def judging_split(labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which of the training images train, and which evaluate: ``share`` of each class; int64 indices."""
    train, valid = stratified_split(labels, [1 - share, share], generator)
    return train, valid
