"""What a candidate operation of the space is.

A subclass says all that the package needs to know of an operation. Nothing here imports torch: an operation gets
the building blocks of its module, :mod:`cars_hw.nn.layers`, as an argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from cars_hw.space.cost import Cost

if TYPE_CHECKING:
    from cars_hw.space.shape import Shape


class Operation(ABC):
    """An operation from a state (N, C, H, W) to the same shape, or at stride 2 to half of its size, rounded up.

    Attributes:
        name: what genotypes and latency tables call it.
        title: what the report calls it.
        short: what it is called in a drawing of a cell.
        family: whose colour it has, one of :data:`cars_hw.report.kinds.FAMILIES`.
        kept_maps: how many images of its input's size training keeps for the backward pass, about.
        any_layout: whether it computes the same in every memory layout, so that a runtime converts nothing.
        within: the name of an operation with larger kernels whose weights contain those of this one, if any. A
            SuperNet may share the weights of both.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    short: ClassVar[str]
    family: ClassVar[str] = "rest"
    kept_maps: ClassVar[int] = 1
    any_layout: ClassVar[bool] = False
    within: ClassVar[str | None] = None

    def is_computed(self, stride: int) -> bool:
        """Return whether a network computes anything for it: only then it has a latency key."""
        del stride
        return True

    def begins_with_relu(self, stride: int) -> bool:
        """Return whether it begins with a ReLU. A state's ReLU is computed once for all edges that begin with it.

        The module then has a method ``activated``, which takes the state with its ReLU done.
        """
        del stride
        return False

    def has_cpu_kernel(self, stride: int) -> bool:
        """Return whether training on a CPU replaces PyTorch's kernels by those of :mod:`cars_hw.nn.layers`."""
        del stride
        return False

    def cost(self, shape: Shape, stride: int) -> Cost:
        """Return its parameters and multiply-adds on a state of ``shape``; those of a pooling are none."""
        del shape, stride
        return Cost()

    @abstractmethod
    def module(self, layers: ModuleType, channels: int, stride: int, norm: Any) -> Any:  # noqa: ANN401
        """Return the torch module.

        ``layers`` is :mod:`cars_hw.nn.layers` (with torch's own as ``layers.nn``), ``norm`` a ``Normalization`` of
        it, whose ``norm.layer(channels)`` is a batch normalisation. The SuperNet has one module of every operation
        on every edge, and shares its weights among the architectures.

        An export lowers ReLU, convolutions, batch normalisations, 3x3 poolings and sequences of them. A module of
        another kind needs a method ``lower(build, source, name)``, see :class:`cars_hw.export.lower.Lowerable`.
        """

    def narrowed(self, weights: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return the part of ``weights`` that a smaller module has, see :func:`narrowed`."""
        return narrowed(weights, shapes)


def narrowed(weights: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the part of ``weights`` that a smaller module has, as views of the same memory.

    Both mappings are by the names of a state dictionary; ``shapes`` are those of the smaller module. If one of the
    first two axes is shorter there, it counts channels, and the first ones are taken. If a further axis is shorter,
    it is that of a kernel, and the centre is taken.

    Raises:
        KeyError: the smaller module has a weight that ``weights`` lack.
    """
    return {name: weights[name][_part(weights[name].shape, shape)] for name, shape in shapes.items()}


def _part(large: Sequence[int], small: Sequence[int]) -> tuple[slice, ...]:
    begins = [0 if axis < 2 else (size - small[axis]) // 2 for axis, size in enumerate(large)]
    return tuple(slice(begin, begin + size) for begin, size in zip(begins, small, strict=True))
