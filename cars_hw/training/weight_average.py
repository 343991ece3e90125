"""An average of shared weights over the steps of a training, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cars_hw.training.partial_steps import Partial, lines, masks


class WeightAverage:
    """The exponential moving average of each element of ``parameters`` over the steps that changed the element.

    A step trains few of the shared weights, so an average over all steps would follow the rare ones too slowly. A
    step here counts only for the elements that it trained. The sum of the factors of the past values is kept for
    each element, as in the bias correction of Adam (Kingma and Ba, 2015), so that the initial weights do not count.
    An element that was never trained has its present value.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self._place = {id(one): place for place, one in enumerate(parameters)}
        self._sums = [torch.zeros_like(one.detach()) for one in parameters]
        self._factors = [torch.zeros_like(one.detach()) for one in parameters]

    def update(self, touched: Sequence[nn.Parameter], partial: Partial) -> None:
        """Count a step that changed ``touched``, those in ``partial`` in their windows only."""
        whole = [one for one in touched if one not in partial]
        with torch.no_grad():
            if whole:
                places = [self._place[id(one)] for one in whole]
                sums, factors = ([of[place] for place in places] for of in (self._sums, self._factors))
                self._move(sums, factors, [one.detach() for one in whole])
            parts = [one for one in touched if one in partial]
            if parts:
                self._update_parts(parts, partial)

    def _update_parts(self, parts: Sequence[nn.Parameter], partial: Partial) -> None:
        places = [self._place[id(one)] for one in parts]
        kept = [[lines(of[place]) for place in places] for of in (self._sums, self._factors)]
        # Joined, because a few calls on many elements are faster than many calls on few.
        before = [torch.cat(some) for some in kept]
        sums, factors = after = [one.clone() for one in before]
        self._move([sums], [factors], [torch.cat([lines(one.detach()) for one in parts])])
        mask = torch.cat(masks(parts, partial))
        lengths = [one.numel() for one in parts]
        for some, new, old in zip(kept, after, before, strict=True):
            torch._foreach_copy_(some, torch.split(torch.where(mask, new, old), lengths))

    def _move(self, sums: list[Tensor], factors: list[Tensor], values: list[Tensor]) -> None:
        for kept in (sums, factors):
            torch._foreach_mul_(kept, self.decay)
        torch._foreach_add_(sums, values, alpha=1 - self.decay)
        torch._foreach_add_(factors, 1 - self.decay)

    def values(self) -> list[Tensor]:
        """Return the averages, in the order of the parameters."""
        return [
            torch.where(factors > 0, sums / factors.clamp(min=torch.finfo(sums.dtype).tiny), one.detach())
            for one, sums, factors in zip(self.parameters, self._sums, self._factors, strict=True)
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Set the parameters to the averages for the duration of the block."""
        with torch.no_grad():
            present = [one.detach().clone() for one in self.parameters]
            averages = self.values()
            try:
                torch._foreach_copy_(list(self.parameters), averages)
                yield
            finally:
                torch._foreach_copy_(list(self.parameters), present)

    def state(self) -> dict[str, Any]:
        """Return the state for a training that is resumed."""
        return {"sums": self._sums, "factors": self._factors}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        for kept, read in ((self._sums, state["sums"]), (self._factors, state["factors"])):
            for one, value in zip(kept, read, strict=True):
                one.copy_(value)
