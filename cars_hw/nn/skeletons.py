"""Layers without weights, to which weights are bound that lie elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cars_hw.nn.operations import make_operation
from cars_hw.nn.paths import SHARED


@dataclass(frozen=True)
class Skeleton:
    """A module without weights, the names of its weights, and the skeletons of its submodules with weights."""

    module: nn.Module
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    children: tuple[tuple[str, Skeleton], ...]

    @staticmethod
    def of(module: nn.Module) -> Skeleton:
        """Return the skeleton of ``module``."""
        children = [(name, Skeleton.of(child)) for name, child in module._modules.items() if child is not None]
        return Skeleton(
            module,
            tuple(name for name, value in module._parameters.items() if value is not None),
            tuple(name for name, value in module._buffers.items() if value is not None),
            tuple((name, child) for name, child in children if child.names()),
        )

    def names(self) -> list[str]:
        """Return the names of the weights, in the order in which :meth:`bound` takes them."""
        inner = [f"{name}.{below}" for name, child in self.children for below in child.names()]
        return [*self.parameters, *self.buffers, *inner]

    def bound(self, values: Iterator[Tensor]) -> nn.Module:
        """Return a copy of the module with weights from ``values``. Everything else is shared."""
        module = self.module
        # Copied field by field: a constructor draws initial weights, which takes long compared with a pass.
        copied = object.__new__(type(module))
        copied.__dict__.update(module.__dict__)
        if self.parameters:
            fields: dict[str, Any] = dict(module._parameters)
            fields.update((name, next(values)) for name in self.parameters)
            copied.__dict__["_parameters"] = fields
        if self.buffers:
            fields = dict(module._buffers)
            fields.update((name, next(values)) for name in self.buffers)
            copied.__dict__["_buffers"] = fields
        if self.children:
            fields = dict(module._modules)
            fields.update((name, child.bound(values)) for name, child in self.children)
            copied.__dict__["_modules"] = fields
        return copied


def on_no_device(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a module that has no memory for its weights. No random numbers are drawn."""
    with torch.device("meta"):
        return make()


@lru_cache(maxsize=4096)
def operation_template(name: str, channels: int, stride: int) -> nn.Module:
    """Return the shared operation ``name`` without memory for its weights."""
    return on_no_device(lambda: make_operation(name, channels, stride, SHARED))


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of ``module`` by their names."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
