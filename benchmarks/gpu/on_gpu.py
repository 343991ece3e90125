"""A plugin of pytest: tests of recorded passes and shared weights run on a GPU, with CUDA graphs.

They run in the tests' own precision, so that their tolerances hold. ``GPU_CHECK_CPU=1`` keeps them on the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from emulated_graphs import EmulatedRecorder
from torch import Tensor

from cars_hw.training.recorded_passes import PlainPasses, SlicedPasses
from cars_hw.training.recorder import CudaRecorder, Recorder
from cars_hw.training.shared_weights import SuperNetWeights

CPU = os.environ.get("GPU_CHECK_CPU") == "1"
DEVICE = torch.device("cpu" if CPU else "cuda")


class Counting:
    """A recorder of CUDA graphs that counts as the emulated one does."""

    def __init__(self) -> None:
        self.real: Recorder = EmulatedRecorder() if CPU else CudaRecorder(DEVICE)
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record ``work``."""
        replay = self.real(work)
        self.recorded += 1

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


class OnDevice(SuperNetWeights):
    """Shared weights on the GPU, without autocast, and recorded only if a test has a recorder."""

    def __init__(self, *given: Any, recorder: Recorder | None = None, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*given, recorder=recorder, device=DEVICE, **named)
        high = partial(torch.autocast, DEVICE.type, enabled=False)
        self._autocast = high
        if recorder is None:
            weights = getattr(self.passes, "class_weights", None)
            if self._uses_parts:
                self.passes = SlicedPasses(self.slices, self.parameters, high, weights)
            else:
                self.passes = PlainPasses(self.supernet, high, weights)
        else:
            self.passes.autocast = high  # type: ignore[attr-defined]

    def step(self, images: Tensor, labels: Tensor, architectures: Any) -> Tensor:  # noqa: ANN401
        """Take a step on the device."""
        return super().step(images.to(DEVICE), labels.to(DEVICE), architectures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the classes of this plugin in place of those that the tests have imported."""
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        for name, replacement in {"SuperNetWeights": OnDevice, "EmulatedRecorder": Counting}.items():
            if hasattr(module, name):
                setattr(module, name, replacement)
        if hasattr(module, "batch"):
            own = module.batch
            module.batch = lambda own=own: tuple(part.to(DEVICE) for part in own())
