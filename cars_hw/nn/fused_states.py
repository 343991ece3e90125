"""Operations on states whose normalisation is done where they are read, each one kernel of a GPU.

A convolution writes its output before the normalisation, and statistics of it. What reads the output normalises it.
So an output is written once and read once where PyTorch reads it three times and writes it twice. ReLU, depthwise
and pointwise convolution are one kernel, and what is between them is computed again on the way back.

The operations are registered with PyTorch, so that what is dispatched can be counted and replayed. Each launches
one kernel. A GPU with Triton runs :mod:`cars_hw.nn.triton_separable` and its neighbours; everything else runs
:mod:`cars_hw.nn.fused_plain`, which says what each operation computes.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import torch
from torch import Tensor

from cars_hw.nn import fused_plain
from cars_hw.nn.fused import by_triton

_UNIT: Final = "Tensor x, Tensor? x_stats, Tensor depth, Tensor point, int stride, int dilation"
_BEHIND: Final = "Tensor gradient, Tensor sums, Tensor y, Tensor stats"
_SCHEMAS: Final = {
    "triton_separable": (
        f"separable({_UNIT}) -> (Tensor, Tensor)",
        f"separable_point_gradient({_BEHIND}, {_UNIT}, Tensor(a!) parts) -> Tensor",
        "separable_depth_gradient(Tensor gradient, Tensor x, Tensor? x_stats, Tensor depth, int stride, "
        "int dilation, Tensor(a!) parts, Tensor(b!) into, bool add, bool sums) -> Tensor",
    ),
    "triton_pointwise": (
        "pointwise(Tensor x, Tensor? x_stats, Tensor[] weights) -> (Tensor, Tensor)",
        f"pointwise_gradient({_BEHIND}, Tensor x, Tensor? x_stats, Tensor[] weights, Tensor(a!)[] parts, "
        "Tensor(b!) into, bool add) -> ()",
    ),
    "triton_states": (
        "sum_states(Tensor a, Tensor? a_stats, Tensor? b, Tensor? b_stats, Tensor(a!) out) -> ()",
        "norm_sums(Tensor[] gradients, Tensor[] ys, Tensor[] stats) -> Tensor[]",
        "mean_pixels(Tensor x) -> Tensor",
        "mean_pixels_gradient(Tensor gradient, Tensor(a!) into) -> ()",
    ),
    "triton_pooling": (
        "max_pool(Tensor x, int stride, bool places) -> (Tensor, Tensor)",
        "max_pool_gradient(Tensor gradient, Tensor places, int stride, Tensor(a!) into, bool add) -> ()",
        "avg_pool(Tensor x, int stride) -> Tensor",
        "avg_pool_gradient(Tensor gradient, int stride, Tensor(a!) into, bool add) -> ()",
    ),
}
"""The schemas of the operations, by the module of their kernels."""


class _Chosen:
    """An operation by Triton where it can run, and by PyTorch elsewhere."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self, *given: Any) -> Any:  # noqa: ANN401 -- whatever the schema says
        """Compute the operation."""
        first = given[0] if isinstance(given[0], Tensor) else given[0][0]
        if not by_triton(first):
            # Autocast would round what is between the parts of an operation.
            with torch.autocast(first.device.type, enabled=False):
                return getattr(fused_plain, self.name)(*given)
        kernels = importlib.import_module(f"cars_hw.nn.{self.module}")
        with torch.cuda.device(first.device):
            return getattr(kernels, self.name)(*given)


def _library() -> Any:  # noqa: ANN401 -- PyTorch does not type it
    library: Any = torch.library
    made = library.Library("cars_hw", "FRAGMENT")
    for module, schemas in _SCHEMAS.items():
        for schema in schemas:
            made.define(schema)
            name = schema.partition("(")[0]
            made.impl(name, _Chosen(module, name), "CompositeExplicitAutograd")
    return made


_LIBRARY: Final = _library()
"""The operations exist for as long as this does."""

OPS: Final[Any] = torch.ops.cars_hw
"""The operations by their names."""
