"""Steps of an optimiser that change only those elements of the parameters that the networks of the step used.

The networks of a step may use only the first channels of a parameter. Without this module, momentum and weight
decay would also change the other channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from cars_hw.nn.slices import Window

Partial = Mapping[Tensor, frozenset[Window]]
"""The parameters of which a step used only parts, and the windows that it used."""


class PartialSteps:
    """Steps of ``optimizer``, an SGD with a momentum for each of its parameters."""

    def __init__(self, optimizer: torch.optim.SGD, gradient_clip: float) -> None:
        self.optimizer = optimizer
        self.gradient_clip = gradient_clip

    def step(self, touched: Sequence[nn.Parameter], partial: Partial) -> None:
        """Step the ``touched`` parameters, which have gradients. Those in ``partial`` change in their windows only.

        All other elements keep their value and their momentum, bit for bit. Their gradients are zero, so they do
        not add to the norm that is clipped.
        """
        if not partial:
            self._step(touched)
            return
        whole = [one for one in touched if one not in partial]
        with self._joined([one for one in touched if one in partial], partial) as joined:
            self._step([*whole, joined])

    def _step(self, parameters: Sequence[nn.Parameter]) -> None:
        (group,) = self.optimizer.param_groups
        everything = group["params"]
        torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        group["params"] = parameters
        try:
            self.optimizer.step()
        finally:
            group["params"] = everything

    @contextmanager
    def _joined(self, parameters: Sequence[nn.Parameter], partial: Partial) -> Iterator[nn.Parameter]:
        """Yield one parameter that joins ``parameters`` with their gradients and momenta; then copy the step back.

        A step of one joined parameter takes far fewer calls than a step of many parameters.
        """
        state = self.optimizer.state
        values, momenta = ([lines(one.detach()) for one in parameters], self._momenta(parameters))
        gradients = [lines(_gradient(one)) for one in parameters]
        before, momentum_before = torch.cat(values), torch.cat(momenta)
        joined = nn.Parameter(before.clone())
        joined.grad = torch.cat(gradients)
        state[joined] = {"momentum_buffer": momentum_before.clone()}
        try:
            yield joined
            mask = torch.cat(masks(parameters, partial))
            lengths = [one.numel() for one in parameters]
            for targets, after, was in (
                (values, joined.detach(), before),
                (momenta, state[joined]["momentum_buffer"], momentum_before),
            ):
                torch._foreach_copy_(targets, torch.split(torch.where(mask, after, was), lengths))
        finally:
            del state[joined]

    def _momenta(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        return [lines(self.optimizer.state[one]["momentum_buffer"]) for one in parameters]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def lines(tensor: Tensor) -> Tensor:
    """Return all elements as a view (elements,). Four-dimensional tensors have the memory format channels_last."""
    return tensor.permute(0, 2, 3, 1).view(-1) if tensor.ndim == 4 else tensor.view(-1)


def masks(parameters: Sequence[Tensor], partial: Partial) -> list[Tensor]:
    """Return for each of ``parameters`` which elements are in its windows, in the order of :func:`lines`."""
    return [_mask(one.shape, one.stride(), partial[one], one.device) for one in parameters]


# Parameters of the same shape and windows share a mask: a few masks for each number of channels.
@lru_cache(maxsize=2048)
def _mask(shape: torch.Size, stride: tuple[int, ...], windows: frozenset[Window], device: torch.device) -> Tensor:
    """Return which elements of a tensor are in one of ``windows``, in the order of :func:`lines`."""
    mask = torch.empty_strided(shape, stride, dtype=torch.bool, device=device).zero_()
    for window in windows:
        window.of(mask).fill_(True)
    return lines(mask)
