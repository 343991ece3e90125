"""A moving average of a network's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """The exponential moving average of the weights and buffers of ``network``, with the state of its base class.

    The base class asks twice a step whether it has begun, by a number on the device, for which a GPU is waited
    for. This one asks once. Whole numbers, such as those of the batches that a normalisation has seen, are the
    last ones.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._decay = decay
        self._begun: bool | None = None

    def update_parameters(self, model: nn.Module) -> None:
        """Count a step after which the weights are those of ``model``."""
        if self._begun is None:
            self._begun = int(self.n_averaged) > 0
        pairs: dict[bool, tuple[list[Tensor], list[Tensor]]] = {True: ([], []), False: ([], [])}
        with torch.no_grad():
            for own, other in zip(_tensors(self.module), _tensors(model), strict=True):
                averaged = self._begun and own.is_floating_point()
                for some, one in zip(pairs[averaged], (own, other), strict=True):
                    some.append(one)
            if pairs[True][0]:
                torch._foreach_lerp_(*pairs[True], 1 - self._decay)
            if pairs[False][0]:
                torch._foreach_copy_(*pairs[False])
            self.n_averaged += 1
        self._begun = True

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a state of this class or of its base class."""
        self._begun = None
        return super().load_state_dict(state_dict, strict, assign)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [one.detach() for one in (*network.parameters(), *network.buffers())]
