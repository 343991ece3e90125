"""The loss of a minibatch, in which classes may count by their number of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cars_hw.config.training import ClassWeights


def weights_of_classes(labels: Tensor, classes: int, kind: ClassWeights) -> Tensor | None:
    """Return the weight of each class in the loss, float32 of shape ``(classes,)``; None where all count the same.

    Balanced weights are ``images / (classes with images * images of the class)``, as in scikit-learn's
    ``compute_class_weight``: their mean over the images is 1, so that the loss keeps its scale. A class without
    images has the weight 1.

    Args:
        labels: the class of every training image, int64 of shape ``(images,)``.
        classes: the number of classes.
        kind: how classes are weighed.
    """
    if kind == "none":
        return None
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    present = counts > 0
    weights = torch.ones(classes, dtype=torch.float64)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.float()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the images of a batch, each multiplied by the weight of its class.

    The sum is divided by the number of images and not by the sum of their weights. So parts of a batch that several
    processes hold add up to the same gradient, and an image counts the same in every batch.

    ``labels`` are classes, int64 of shape (N,), or the probabilities of the classes by another network, of shape
    (N, classes). Then every image counts the same. :func:`mixed_cross_entropy` is for mixed images.
    """
    if weights is None or labels.is_floating_point():
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    # By image and not by torch's own weights, which weigh the smoothed part by the classes it is smoothed to.
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return (losses * weights.to(losses.dtype)[labels]).mean()


def mixed_cross_entropy(
    logits: Tensor, shares: Tensor, weights: Tensor | None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy over mixed images, each multiplied by the mean weight of the classes in it.

    ``shares`` are those of the classes in each image, float of shape (N, classes), each row with a sum of 1. Of an
    image that has one class only, the loss is that of :func:`cross_entropy`.
    """
    if weights is None:
        return F.cross_entropy(logits, shares, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits, shares, label_smoothing=label_smoothing, reduction="none")
    return (losses * (shares @ weights).to(losses.dtype)).mean()
