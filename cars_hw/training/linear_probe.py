"""Linear probe: how well a linear classifier of its own tells classes apart by the features of a network.

A probe says what the features of a network are worth, whatever classifier was trained with them (Alain and Bengio,
2016). Here it is a ridge regression on the classes. Each image is classified by the regression on all other images,
which has a closed form, so no image answers for itself and none is set aside.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY: Final = 3.0
"""The penalty of the squared weights, relative to the number of images. Each feature has a variance of one.

Among 1, 3 and 10, which order networks about equally well with 1,000 images, this is the middle one.
"""

_CONSTANT: Final = 1e-6
"""A feature whose deviation is below this fraction of the largest one tells nothing."""


@torch.inference_mode()
def left_out_scores(features: Tensor, labels: Tensor, classes: int, penalty: float = PENALTY) -> Tensor:
    """Return the score of each class for each image, float64 of shape (N, ``classes``): the highest one answers.

    Args:
        features: (N, D), one row for each image. Numbers that are not finite count as zero.
        labels: the class of each image, int64 of shape (N,).
        classes: the number of classes.
        penalty: of the squared weights, relative to N.

    The scores are those of a ridge regression on the indicators of the classes, with an intercept that is not
    penalised. Those of an image come from the other images, by the residuals divided by one minus the leverage
    (Allen, 1974).
    """
    inputs = features.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    wanted = F.one_hot(labels, classes).double()
    mean = wanted.mean(dim=0)
    deviation = inputs.std(dim=0, correction=0)
    inputs = (inputs - inputs.mean(dim=0)) / deviation.clamp_min(_CONSTANT * deviation.max() + 1e-300)
    images = len(inputs)
    normal = inputs.T @ inputs
    normal.diagonal().add_(penalty * images)
    # The matrix is positive definite. The variant without a check of errors makes a GPU wait for nothing.
    factor, _ = torch.linalg.cholesky_ex(normal)
    solved = torch.cholesky_solve(inputs.T, factor)
    leverage = (inputs * solved.T).sum(dim=1, keepdim=True) + 1 / images
    fitted = inputs @ (solved @ (wanted - mean)) + mean
    return wanted - (wanted - fitted) / (1 - leverage).clamp_min(1e-9)
