"""What a tape keeps: states before their normalisation, outputs of cells, and gradients of weights in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class State:
    """A state (N, C, H, W) in channels_last. With ``stats``, what it stands for is its normalisation by them.

    ``gradient`` is that of what it stands for, and None as long as nothing has been added to it.
    """

    x: Tensor
    stats: Tensor | None = None
    gradient: Tensor | None = None

    def receives(self) -> tuple[Tensor, bool]:
        """Return the tensor of the gradient, and whether it has values, to which to add."""
        add = self.gradient is not None
        if self.gradient is None:
            self.gradient = torch.empty_like(self.x)
        return self.gradient, add

    def receive(self, gradient: Tensor, *, give: bool) -> None:
        """Add ``gradient``. With ``give``, nothing else reads it, and it may become that of the state."""
        if self.gradient is not None:
            self.gradient.add_(gradient)
        else:
            self.gradient = gradient if give else gradient.clone()


@dataclass(eq=False)
class Output:
    """The nodes of a cell (4, N, H, W, C), or the output of a stem (1, N, H, W, C), and the gradient of it."""

    x: Tensor
    gradient: Tensor | None = None

    @staticmethod
    def of(x: Tensor) -> Output:
        """Return a state (N, C, H, W) as an output."""
        return Output(x.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)[None])

    def receives(self) -> tuple[Tensor, bool]:
        """See :meth:`State.receives`."""
        add = self.gradient is not None
        if self.gradient is None:
            self.gradient = torch.empty_like(self.x)
        return self.gradient, add


@dataclass(eq=False)
class Edge:
    """The output of an operation on ``source``.

    ``back`` takes the gradient of what ``value`` stands for, and the sums for the gradient of its normalisation if
    that is ``normalized`` by the operation. Without ``back``, the gradient is that of the source.
    """

    value: State
    source: State
    back: Callable[[Tensor, Tensor | None], None] | None = None
    normalized: bool = False


@dataclass(eq=False)
class Slot:
    """The place of a weight's gradient among those in equally many ``parts``, and whether it has values."""

    weight: Tensor
    parts: int
    begin: int
    filled: bool = False

    def of(self, rows: Tensor) -> Tensor:
        """Return the place in ``rows`` (..., numbers of all these weights)."""
        return rows[..., self.begin : self.begin + self.weight.numel()]


@dataclass(eq=False)
class WeightGradients:
    """Gradients of weights in parts. They lie side by side, so that one launch adds those in equally many parts."""

    _slots: list[Slot] = field(default_factory=list)
    _sizes: dict[int, int] = field(default_factory=dict)
    _rows: dict[int, Tensor] = field(default_factory=dict)

    def reserve(self, weight: Tensor, parts: int) -> Slot:
        """Return a place for the gradient of ``weight`` in ``parts``."""
        begin = self._sizes.get(parts, 0)
        self._sizes[parts] = begin + weight.numel()
        slot = Slot(weight, parts, begin)
        self._slots.append(slot)
        return slot

    def allocate(self, like: Tensor) -> None:
        """Make room for all that was reserved, on the device of ``like``; sums are in float32 at least."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        for parts, size in self._sizes.items():
            self._rows[parts] = torch.empty(parts, size, dtype=dtype, device=like.device)

    def fill(self, slots: Sequence[Slot]) -> list[Tensor]:
        """Return the parts (parts, numbers) of weights whose gradients are about to be written."""
        for slot in slots:
            slot.filled = True
        return [slot.of(self._rows[slot.parts]) for slot in slots]

    def added(self) -> dict[Tensor, Tensor]:
        """Return the gradients by their weights, and in their types. Weights that were not filled have none."""
        whole: dict[tuple[int, torch.dtype], Tensor] = {}
        found: dict[Tensor, Tensor] = {}
        for slot in self._slots:
            if not slot.filled:
                continue
            key = slot.parts, slot.weight.dtype
            if key not in whole:
                whole[key] = self._rows[slot.parts].sum(0).to(slot.weight.dtype)
            own = slot.of(whole[key]).as_strided(slot.weight.shape, slot.weight.stride(), slot.begin)
            found[slot.weight] = found[slot.weight] + own if slot.weight in found else own
        # The parts take much memory, and a tape of a block is kept.
        self._rows.clear()
        return found
