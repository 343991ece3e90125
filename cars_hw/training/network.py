"""Training a chosen network to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.data import Augmentation, DataBundle, EvaluationBatches, TrainingBatches
from cars_hw.network import Network
from cars_hw.training.settings import Recipe, cosine

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainingResult:
    """What training came to: accuracy on the test images (a fraction) and the last epoch's mean loss."""

    accuracy: float
    loss: float


def train_network(
    network: Network,
    data: DataBundle,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TrainingResult:
    """Train ``network`` in place on all training images of ``data``; ``progress`` hears of each epoch.

    The test images are looked at once, after the last epoch: nothing is chosen by them.
    """
    target = torch.device(device)
    network.to(target).to(memory_format=torch.channels_last)
    batches = TrainingBatches(
        data.train,
        recipe.batch_size,
        data.mean,
        data.std,
        Augmentation(recipe.crop_padding, True, recipe.cutout),
        device=target,
    )
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    # Drop-path draws from torch's own generator of the device; seeded here so that a seed says it all.
    torch.manual_seed(seed)
    loss = torch.zeros((), device=target)
    for epoch in range(recipe.epochs):
        progress(epoch, recipe.epochs)
        network.train()
        network.drop_path = recipe.drop_path * epoch / recipe.epochs
        loss = torch.zeros((), device=target)
        for step, (images, labels) in enumerate(batches.epoch(generator)):
            _set_rate(optimizer, recipe, epoch + step / len(batches))
            loss += _step(network, optimizer, recipe, images, labels)
        loss /= len(batches)
    progress(recipe.epochs, recipe.epochs)
    return TrainingResult(test_accuracy(network, data, device=target), float(loss))


@torch.inference_mode()
def test_accuracy(network: nn.Module, data: DataBundle, *, device: torch.device | str = "cpu") -> float:
    """Return the accuracy on all test images, a fraction, with the network's running averages."""
    network.eval()
    batches = EvaluationBatches(data.test, EVALUATION_BATCH, data.mean, data.std, device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in batches:
        right += (network(images).argmax(dim=1) == labels).sum()
    return int(right) / len(data.test)


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> None:
    rate = cosine(epoch / recipe.epochs, recipe.learning_rate, 0.0)
    if epoch < recipe.warmup_epochs:
        rate = recipe.learning_rate * (epoch + 1e-3) / recipe.warmup_epochs
    for group in optimizer.param_groups:
        group["lr"] = rate


def _step(
    network: Network, optimizer: torch.optim.Optimizer, recipe: Recipe, images: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    bf16 = images.is_cuda and torch.cuda.is_bf16_supported()
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits, auxiliary = network.forward_with_auxiliary(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if auxiliary is not None:
            aside = F.cross_entropy(auxiliary, labels, label_smoothing=recipe.label_smoothing)
            loss = loss + recipe.auxiliary * aside
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
    optimizer.step()
    return loss.detach()
