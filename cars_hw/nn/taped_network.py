"""A network of shared layers on a tape, as one function of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cars_hw.nn.device_kind import device_kind
from cars_hw.nn.network import run_stem
from cars_hw.nn.paths import SharedNetwork
from cars_hw.nn.tape import Tape, can_tape
from cars_hw.space.genotype import Genotype


class _Taped(torch.autograd.Function):
    """What the classifier reads, from the states that the stem made, one or two, and the weights between both."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 -- PyTorch does not name its type
        network: SharedNetwork,
        genotype: Genotype,
        states: int,
        *given: Tensor,
    ) -> Tensor:
        """Return (N, channels of the last cell)."""
        before, last = given[0], given[states - 1]
        ctx.tape = Tape(kept=True)
        common = network.common_of(ctx.tape, (before, last))
        ctx.output = network.last_output(common, genotype)
        ctx.weights = given[states:]
        out: Tensor = ctx.tape.mean(ctx.output)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients of the states and of the weights; None for those that were not read."""
        found = ctx.tape.back(ctx.output, gradient)
        begun = [None if one.gradient is None else one.gradient[0].permute(0, 3, 1, 2) for one in ctx.tape.begun]
        return None, None, None, *begun, *(found.get(weight) for weight in ctx.weights)


def is_taped(network: SharedNetwork, x: Tensor, genotype: Genotype) -> bool:
    """Return whether a training pass of ``genotype`` for images ``x`` goes by a tape: on a GPU, if it can."""
    return device_kind(x) == "cuda" and torch.is_grad_enabled() and can_tape(network.spec, (genotype,))


def taped_logits(network: SharedNetwork, x: Tensor, genotype: Genotype, weights: list[Tensor]) -> Tensor:
    """Return the logits (N, classes) for images ``x`` (N, C_in, H, W); ``weights`` are those that are trained."""
    before, last = run_stem(network.stem, x)
    states = (before,) if before is last else (before, last)
    features = _Taped.apply(network, genotype, len(states), *states, *weights)
    logits: Tensor = network.classifier(features)
    return logits
