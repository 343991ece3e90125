"""Scores of untrained networks, from one minibatch: a second opinion on the order of networks.

The scores are those that Abdelfattah et al. (Zero-Cost Proxies for Lightweight NAS, ICLR 2021) compare, beside the
parameters and multiply-adds of the table of truth. Higher scores are for better networks. Each is the mean over
several draws of the initial weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cars_hw.nn.network import Network
from cars_hw.space.architecture import Architecture

INITIAL_WEIGHTS = 3


def gradient_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the logarithm of the norm of the loss's gradient (Abdelfattah et al., 2021)."""
    loss = F.cross_entropy(network.train()(images), labels)
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return math.log(float(torch.stack([one.norm() for one in found if one is not None]).norm()))


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the logarithm of the synaptic flow: the sum of weight times gradient (Tanaka et al., NeurIPS 2020).

    Weights are positive, the image is all ones, and the loss is the sum of the outputs. A new normalisation changes
    nothing in evaluation.
    """
    del labels
    network = network.eval()
    with torch.no_grad():
        for one in network.parameters():
            one.abs_()
    parameters = list(network.parameters())
    found = torch.autograd.grad(network(torch.ones_like(images[:1])).sum(), parameters, allow_unused=True)
    flow = sum(float((one.detach() * g).sum()) for one, g in zip(parameters, found, strict=True) if g is not None)
    return math.log(flow)


class _Activations(TorchDispatchMode):
    """Keeps which of its inputs each ReLU lets through, as a row for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- as torch has it
        types: Any,  # noqa: ANN401
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        if func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
            self.codes.append((args[0] > 0).flatten(1).double())
        return func(*args, **(kwargs or {}))


def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the log-determinant of how alike the ReLUs treat the images (Mellor et al., NASWOT, ICML 2021)."""
    del labels
    with torch.no_grad(), _Activations() as seen:
        network.train()(images)
    alike = sum(code @ code.T + (1 - code) @ (1 - code).T for code in seen.codes)
    assert isinstance(alike, Tensor)
    return float(torch.linalg.slogdet(alike).logabsdet)


SCORES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "gradient norm": gradient_norm,
    "synflow": synflow,
    "naswot": naswot,
}


def scores(
    architectures: Mapping[str, Architecture], images: Tensor, labels: Tensor
) -> dict[str, dict[str, float]]:
    """Return each of :data:`SCORES` of each of ``architectures``, by its name."""
    found: dict[str, dict[str, float]] = {score: {} for score in SCORES}
    with torch.random.fork_rng(devices=[]):
        for name, (genotype, spec) in architectures.items():
            for score, function in SCORES.items():
                values = []
                for seed in range(INITIAL_WEIGHTS):
                    torch.manual_seed(seed)
                    # The flow through many layers leaves the range of single precision.
                    network = Network(spec, genotype).double()
                    values.append(function(network, images.double(), labels))
                found[score][name] = round(mean(values), 5)
    return found
